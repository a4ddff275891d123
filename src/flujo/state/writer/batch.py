"""How a batch of requests becomes one transaction.

A batch locks the rows of its runs, checks each request, and writes the allowed ones. The rows are locked
first, in the order of their ids and with one strength, so that two processes never deadlock; only then are
the fences compared. (A condition inside the INSERT alone would let a write land after another process's
claim has been committed.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, chains
from flujo.domain.acts import Act, Actor, Verb
from flujo.domain.journal import RunId
from flujo.domain.run import GivenAnswer, NewRun, Pause, RunRecord, RunStatus, Write
from flujo.exceptions import FlujoError
from flujo.state import codec, events, owner_tokens, rules
from flujo.state.leases import elapsed_s
from flujo.state.sql import queries, queue, statements
from flujo.state.sql.encryption import JOURNAL, PAUSES, RUNS, decrypted
from flujo.state.sql.functions import column_names, named
from flujo.state.sql.shared_budgets import Counting
from flujo.state.writer import families
from flujo.state.writer.events import BatchEvents, Send, waits_in
from flujo.state.writer.pending import PendingRows
from flujo.state.writer.requests import Accept, Answer, Cancel, Claim, ClaimNext, Expire, Lend, Reserve

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import sqlalchemy as sa

    from flujo.domain.queues import Queued
    from flujo.domain.run import Child
    from flujo.domain.sent_events import NewEvent
    from flujo.state.leases import Leases
    from flujo.state.sql.database import Database
    from flujo.state.writer.requests import Outcome, Request


def _settles(request: Request) -> bool:
    """Return whether a request settles a question."""
    return isinstance(request, Answer | Expire) or (isinstance(request, Claim) and request.answer is not None)


@dataclass(frozen=True, slots=True)
class Applied:
    """The outcomes of a batch, true once its transaction is committed."""

    outcomes: list[Outcome]
    fills_queue: bool = False
    """Whether a run has come into a queue."""
    settled: Collection[RunId] = ()
    """The runs of which a wait that asks no human is settled, without a claim since."""
    transaction_id: str | None = None
    """Postgres reports the state of this transaction when the answer to COMMIT was lost."""


@dataclass(slots=True)
class _Locked:
    """A run's row as this transaction holds it."""

    status: RunStatus
    fence: int
    owner: str | None
    answered: bool
    """Whether a question was settled since the run was claimed."""
    wish: str | None
    wish_by: str | None
    seals: bytes
    queue: str | None
    lease_left_s: float | None


class Batches:
    """Applies batches of requests for one owner."""

    def __init__(self, database: Database, leases: Leases) -> None:
        self.owner = leases.owner
        self.lease_s = leases.lease_s
        self.leases = leases
        self.lapses = queue.Lapses(leases.lease_s, elapsed_s)
        self._asked = 0
        self.pipelined = database.pipelined
        self.statements = statements.statements_for(database.schema)
        self.holes = rules.GapTracker()
        self._latest = 0.0

    def is_gone(self, run_id: str, owner: str) -> bool:
        """Return whether the owner in a run's row no longer executes it: it died, or gave the run up."""
        if owner == self.owner:
            return not self.leases.holds(run_id)
        return owner_tokens.is_provably_dead(owner)

    def apply(
        self, connection: sa.Connection, requests: Sequence[Request], *, careful: bool = False
    ) -> Applied:
        """Judge and write a batch inside the connection's transaction; the caller commits.

        Args:
            connection: in a write transaction.
            requests: those of one run are of one kind, in their order.
            careful: look first whether entries are there already, in which case identical ones are fine.
        """
        return _Batch(self, connection, careful).apply(requests)

    def append(self, connection: sa.Connection, requests: Sequence[Request]) -> bool | None:
        """Write and commit a batch that is nothing but entries, in one statement.

        This is what a step costs, so it is the shortest way there is.

        Returns:
            Whether all of it is committed; if not, some may be, and `apply` looks carefully. None when the
            batch holds more than entries, and nothing was tried.
        """
        plain = [each for each in requests if isinstance(each, Write) and each.is_append]
        if len(plain) != len(requests) or any(map(self.holes.before, plain)):
            return None
        aside: codec.Rows = {}
        rows = [
            (write.fence, codec.entry_row(write.run_id, entry, aside))
            for write in plain
            for entry in write.entries
        ]
        if aside or not rows:
            return None
        return self.statements.append_entries(connection, self.owner, rows)

    def next_position(self) -> int:
        """Return a greater number for each question: SQLite's clock gives many of them the same moment."""
        self._asked += 1
        return self._asked

    def acceptance_time(self, now: float) -> float:
        """Return `now`, or a microsecond after the acceptance before: "newest" has one meaning."""
        self._latest = max(now, self._latest + 1e-6)
        return self._latest


class _Batch:
    def __init__(self, batches: Batches, connection: sa.Connection, careful: bool) -> None:
        self.batches = batches
        self.connection = connection
        self.careful = careful
        self.pending = PendingRows(connection, batches.statements)
        self.locked: dict[str, _Locked] = {}
        self.rows: dict[str, dict[str, Any]] = {}
        """Of the runs that are claimed."""
        self.questions: dict[str, list[dict[str, Any]]] = {}
        """Of the runs that are answered."""
        self.asked: dict[str, list[Pause]] = {}
        """The same questions, checked, as this batch leaves them."""
        self.executed_by: dict[str, set[str]] = {}
        """The runs that a dead owner executed, for each that a run may be taken from."""
        self.accepted: dict[str, RunRecord] = {}
        self.claimed: set[str] = set()
        self.events = BatchEvents(connection, ())
        self.family = families.Family()
        self.now = 0.0
        """The database's time in this transaction."""
        self.transaction_id: str | None = None
        """Postgres' name for it."""

    def apply(self, requests: Sequence[Request]) -> Applied:
        self._look(requests)
        outcomes = [self._outcome(request) for request in requests]
        self._count_shared(requests, outcomes)
        self._cancel_tasks(requests, outcomes)
        with self.batches.pipelined(self.connection):  # so nothing is read in there
            held = self.pending.write()
            self.events.flush()
            if self.pending.fills_queue:
                self.batches.statements.notify(self.connection)
        if held is not None:
            self.pending.keep_again({digest for (digest,) in held.fetchall()})
        self._settle_budgets(requests, outcomes)
        outcomes = self._with_wakes(requests, outcomes)
        settled = self._tell_settled()
        self._claim_next(requests, outcomes)
        return Applied(outcomes, self.pending.fills_queue, settled, self.transaction_id)

    def _tell_settled(self) -> list[RunId]:
        """Notify other processes of the runs that can continue, and return those to wake in this process.

        An answer to a question wakes nothing here: who answers decides who resumes the run.
        """
        settled = sorted(self.pending.unseen)
        if settled:
            self.batches.statements.tell_settled(self.connection, self.batches.owner, settled)
        return [RunId(run_id) for run_id in settled if run_id in self.pending.woken]

    def _claim_next(self, requests: Sequence[Request], outcomes: list[Outcome]) -> None:
        """Claim from queues, when all that the batch says of other runs is written."""
        orders = [each.order for each in requests if isinstance(each, ClaimNext)]
        queue.lock_limits(self.connection, orders)
        for place, request in enumerate(requests):
            if isinstance(request, ClaimNext):
                ids = queue.choose(self.connection, request.order, self.now, self.batches.lapses)
                claims = [Claim(RunId(run_id), rules.FROM_QUEUE, recovering=True) for run_id in ids]
                claimed = _Batch(self.batches, self.connection, self.careful).apply(claims) if ids else None
                found = () if claimed is None else claimed.outcomes
                outcomes[place] = [each for each in found if isinstance(each, RunRecord)]

    def _count_shared(self, requests: Sequence[Request], outcomes: list[Outcome]) -> None:
        """Settle, then reserve in budgets of several runs: what ended attempts release can be reserved."""
        allowed = [
            (place, request)
            for place, (request, outcome) in enumerate(zip(requests, outcomes, strict=True))
            if not isinstance(outcome, FlujoError)
        ]
        ended = [
            (each.run_id, hold)
            for _, each in allowed
            if isinstance(each, Write)
            for hold in each.holds
            if hold.is_counted
        ]
        asked = [(place, each) for place, each in allowed if isinstance(each, Reserve)]
        holds = [*ended, *((each.run_id, each.hold) for _, each in asked)]
        if not holds:
            return
        counting = Counting(self.connection, holds, self.now)
        for run_id, hold in ended:
            counting.settle(run_id, hold)
        for place, each in asked:
            refusal = counting.reserve(each.run_id, each.hold)
            if refusal is not None:
                outcomes[place] = refusal
        counting.write()
        self.pending.holds += counting.rows

    def _cancel_tasks(self, requests: Sequence[Request], outcomes: Sequence[Outcome]) -> None:
        """Leave a wish for each task of the runs that this batch ends as cancelled."""
        for request, outcome in zip(requests, outcomes, strict=True):
            if families.cancels(request) and not isinstance(outcome, FlujoError):
                self.pending.wishes += [
                    {
                        "of_run": task,
                        "new_wish": rules.CANCEL,
                        "new_by": rules.CANCELLED_WITH,
                        "now": self.now,
                    }
                    for task in self.family.tasks.get(request.run_id, ())
                ]

    def _settle_budgets(self, requests: Sequence[Request], outcomes: Sequence[Outcome]) -> None:
        """Count what the tasks that this batch ends have used, in the budgets of their parents."""
        ended = [
            request.run_id
            for request, outcome in zip(requests, outcomes, strict=True)
            if families.settles(request) and not isinstance(outcome, FlujoError)
        ]
        families.settle_budgets(self.connection, self.batches.statements, self.family, ended)

    def _with_wakes(self, requests: Sequence[Request], outcomes: list[Outcome]) -> list[Outcome]:
        """Settle the waits whose tasks have all ended, and return the outcomes, which say so."""
        parents = {
            parent
            for request, outcome in zip(requests, outcomes, strict=True)
            if not isinstance(outcome, FlujoError)
            for parent in self.family.waiting(request)
        }
        woken = families.wake(self.connection, self.batches.statements, sorted(parents), self.now)
        if not woken:
            return outcomes
        self.pending.fills_queue = True
        self.pending.unseen |= woken
        self.pending.woken |= woken
        self.batches.statements.notify(self.connection)
        return [
            True if isinstance(request, Write) and request.run_id in woken and outcome is False else outcome
            for request, outcome in zip(requests, outcomes, strict=True)
        ]

    def _look(self, requests: Sequence[Request]) -> None:
        """Lock the runs, then read what the requests are judged by: one round trip for all of it."""
        known, connection = self.batches.statements, self.connection
        self.events = BatchEvents(connection, requests)
        concerned = self.events.look()
        self.family = families.of(connection, requests)
        claimed = sorted({each.run_id for each in requests if isinstance(each, Claim | Cancel)})
        answered = sorted({*concerned, *(each.run_id for each in requests if _settles(each))})
        with self.batches.pipelined(connection):
            ids = {*concerned, *self.family.ids, *(each.run_id for each in requests if each.run_id)}
            ids.update(other for each in requests if isinstance(each, Accept) for other in each.others)
            locking = known.lock(connection, sorted(ids))
            timing = known.moment(connection)
            reading = known.standing(connection, claimed) if claimed else None
            asking = known.questions(connection, answered) if answered else None
        self.now, self.transaction_id = timing.fetchone()
        for run_id, status, *facts in locking.fetchall():
            self.locked[run_id] = _Locked(RunStatus(status), *facts)  # in the order of `lock`
        if reading is not None:
            self.rows = {row["run_id"]: row for row in named(reading, column_names(statements.STANDING))}
        if asking is not None:
            for row in named(asking, column_names(queries.QUESTIONS)):
                self.questions.setdefault(row["run_id"], []).append(row)
        if claimed:
            self._look_at_neighbours([self.locked[run_id] for run_id in claimed if run_id in self.locked])

    def _look_at_neighbours(self, claimed: Sequence[_Locked]) -> None:
        """Query what else the owners of claimed runs executed.

        Another process may be taking over a neighbour: the neighbour's row has the owner before that claim is
        committed, and `taken_from` afterwards, so one statement sees it either way.
        """
        owners = sorted({run.owner for run in claimed if run.owner and run.status is RunStatus.RUNNING})
        if owners:
            for row in self.connection.execute(statements.neighbours, {"owners": owners}):
                for owner in (row.owner, row.taken_from):
                    self.executed_by.setdefault(owner, set()).add(row.run_id)

    def _outcome(self, request: Request) -> Outcome:
        outcome = self._judged(request)
        if isinstance(outcome, FlujoError) and isinstance(request, Write):
            self.batches.holes.failed(request, outcome)
        return outcome

    def _judged(self, request: Request) -> Outcome:
        try:
            match request:
                case Write():
                    return self._write(request)
                case Accept():
                    return self._accept(request)
                case Claim():
                    return self._claim(request)
                case ClaimNext():
                    return []  # filled in by `_claim_next`
                case Answer() | Expire() | Cancel() | Send():
                    return self._from_outside(request)
                case Reserve():
                    return self._reserve(request)
                case Lend():
                    raise AssertionError  # the writer serves it alone
        except FlujoError as error:
            return error

    def _from_outside(self, request: Answer | Expire | Cancel | Send) -> Outcome:
        """Return the outcome of a request that any process may make, whether or not it owns the run."""
        match request:
            case Answer():
                return self._answer(request.run_id, request.answer)
            case Expire():
                return self._expire(request)
            case Cancel():
                return self._cancel(request)
            case Send():
                return self._send(request.event)

    def _write(self, write: Write) -> Outcome:
        there = self.locked.get(write.run_id)
        if there is None:
            return rules.no_run(write.run_id)
        refusal: FlujoError | None = rules.write_refusal(
            write, there.fence, there.status, there.owner, self.batches.owner
        )
        if refusal is not None or (refusal := self.batches.holes.before(write)) is not None:
            return refusal
        pending = self.pending
        aside = {digest: codec.blob_row(digest, data) for digest, data in write.blobs.items()}
        entries = [codec.entry_row(write.run_id, entry, aside) for entry in write.entries]
        pending.entries += self._fresh(write, entries) if self.careful else entries
        for pause in write.pauses:
            pending.pauses.append(codec.pause_row(write.run_id, pause, self.batches.next_position()))
        for wait in waits_in(write):
            there.answered |= self._take_kept(write.run_id, wait)
        pending.intents += [
            {**codec.intent_row(write.run_id, intent, aside), "fence": write.fence}
            for intent in write.intents
        ]
        pending.holds += [codec.hold_row(write.run_id, hold) for hold in write.holds if not hold.is_counted]
        pending.voids += [{"of_run": write.run_id, "of_pause": pause_id} for pause_id in write.voids]
        pending.acts += [codec.act_row(act, aside) for act in write.acts]
        for child in write.children:
            self._launch(child)
            if chains.predecessor_of(child.run.run_id) == write.run_id:
                self._pass_on(write.run_id, child.run.run_id)
        pending.keep(write.run_id, aside)
        if write.move is not None:
            self._move(write, there)
        elif write.is_empty:
            pending.renewals.append({"of_run": write.run_id, "lease_s": self.batches.lease_s})
        return bool(there.answered)

    def _reserve(self, request: Reserve) -> Outcome:
        """Judge whose run it is; `_count_shared` looks whether there is room."""
        there = self.locked.get(request.run_id)
        if there is None:
            return rules.no_run(request.run_id)
        write = Write(run_id=request.run_id, fence=request.fence, holds=(request.hold,))
        refusal = rules.write_refusal(write, there.fence, there.status, there.owner, self.batches.owner)
        return True if refusal is None else refusal

    def _launch(self, child: Child) -> None:
        """Insert a background task, or a run that continues another one."""
        run, is_mine = child.run, child.is_owned
        self.pending.fills_queue |= not is_mine
        row, state, _, _ = self._new_row(run, child.blobs, claim=is_mine)
        self.pending.children.append({**row, **state, "lease_s": self.batches.lease_s if is_mine else None})

    def _pass_on(self, run_id: RunId, successor: RunId) -> None:
        """Give what was meant for a run, and not done by its end, to the run that continues it."""
        self.events.pass_on(run_id, successor)
        there = self.locked[run_id]
        if there.wish is not None:
            wish = {"new_wish": there.wish, "new_by": there.wish_by, "now": self.now}
            self.pending.wishes.append({"of_run": successor, **wish})

    def _fresh(self, write: Write, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows that are not there yet; raise `JournalConflict` when another is in the place."""
        if not entries:
            return entries
        places = {name: [row[name] for row in entries] for name in ("seq", "path")}
        asked = {"of_run": write.run_id, "seqs": places["seq"], "paths": places["path"]}
        there_already = self.connection.execute(statements.recorded, asked).mappings()
        found = decrypted(
            self.connection, JOURNAL, ({**row, "run_id": write.run_id} for row in there_already)
        )
        by_seq = {row["seq"]: row["digest"] for row in found}
        by_key = {(row["path"], row["kind"], row["attempt"]): row["digest"] for row in found}
        fresh = []
        for entry, row in zip(write.entries, entries, strict=True):
            key = (row["path"], row["kind"], row["attempt"])
            there = by_seq.get(row["seq"], by_key.get(key))
            if there is None:
                fresh.append(row)
            elif there != row["digest"]:
                raise rules.recorded_otherwise(write.run_id, entry)
        return fresh

    def _seals(self, run_id: RunId) -> bytes:
        """Return the digests of a run's values; decrypted here, so that damage concerns its run alone."""
        row = {"run_id": run_id, "seals": self.locked[run_id].seals}
        seals: bytes = decrypted(self.connection, RUNS, [row])[0]["seals"]
        return seals

    def _move(self, write: Write, there: _Locked) -> None:
        move = write.move
        assert move is not None  # noqa: S101 - for the type checker; the caller has looked
        values: dict[str, bytes | str | None] = {"output": move.output, "error": move.error}
        usage = None if move.usage is None else codec.usage_value(move.usage)
        kept_when_left_out = {"context_now": move.context, "usage": usage, "closure": move.closure}
        values |= {name: value for name, value in kept_when_left_out.items() if value is not None}
        aside: codec.Rows = {}
        stored, there.seals = codec.changed_values(write.run_id, self._seals(write.run_id), values, aside)
        self.pending.keep(write.run_id, aside)
        there.status = move.status
        self.pending.messages += [codec.message_row(write.run_id, notice) for notice in move.notices]
        self.pending.evaluations += map(codec.evaluation_row, move.evaluations)
        self.pending.moves.append(
            {
                "of_run": write.run_id,
                "new_status": str(move.status),
                "new_output": stored["output"],
                "new_error": stored["error"],
                "new_context_now": stored.get("context_now"),
                "new_closure": stored.get("closure"),
                "new_usage": stored.get("usage"),
                "new_entries": move.entries,
                "new_seals": there.seals,
                "release": move.release,
            }
        )
        if move.release and not move.status.is_settled:
            self._end_times(write.run_id, write.fence, self.now)
        if move.rest_s is not None:
            self.pending.rests.append({"of_run": write.run_id, "rest_s": move.rest_s})
        elif there.queue is not None and move.release and move.status is RunStatus.RUNNING:
            self.pending.fills_queue = True
        if rules.voids_pauses(move.status):
            self.pending.voided.append({"of_run": write.run_id})

    def _accept(self, request: Accept) -> Outcome:
        run = request.run
        if run.run_id in self.accepted:
            return rules.accept_twice(self.accepted[run.run_id], run)
        if run.run_id in self.locked:
            known = queries.records(self.connection, [run.run_id]).get(run.run_id)
            return rules.being_purged(run.run_id) if known is None else rules.accept_twice(known, run)
        if missing := sorted(request.others - self.locked.keys()):
            return rules.no_run(missing[0])
        row, state, metadata, queued = self._new_row(run, request.blobs, claim=request.claim)
        lease_s = self.batches.lease_s if request.claim else None
        self.pending.fills_queue |= queued is not None and not request.claim
        self.pending.runs.append({**row, **state, "lease_s": lease_s})
        self._begin_with(run)
        record = RunRecord(
            run_id=run.run_id,
            pipeline=run.pipeline,
            closure=run.closure,
            input=run.input,
            context=run.context,
            metadata=metadata,
            user_id=run.user_id,
            lock_digest=run.lock_digest,
            lease_left_s=lease_s,
            parent=run.parent,
            is_case=run.is_case,
            queued=queued,
            **state,
        )
        self.accepted[run.run_id] = record
        return record

    def _begin_with(self, run: NewRun) -> None:
        """Insert the entries and the acts that a new run begins with."""
        aside: codec.Rows = {}
        self.pending.entries += [codec.entry_row(run.run_id, entry, aside) for entry in run.entries]
        self.pending.keep(run.run_id, aside)
        for act in run.acts:
            self._record(act)

    def _new_row(
        self, run: NewRun, blobs: Mapping[str, bytes], *, claim: bool
    ) -> tuple[dict[str, Any], dict[str, Any], Any, Queued | None]:
        """Return the row of a new run, what depends on who executes it, its metadata and its queue."""
        aside: codec.Rows = {digest: codec.known_blob_row(digest, data) for digest, data in blobs.items()}
        created_at = self.batches.acceptance_time(self.now)
        queued = None if run.queued is None else rules.in_queue(run.queued, created_at)
        row = codec.run_row(replace(run, queued=queued), aside)
        state: dict[str, Any] = {
            "status": RunStatus.RUNNING if claim else RunStatus.ACCEPTED,
            "owner": self.batches.owner if claim else None,
            "fence": int(claim),
            "claims": int(claim),
            "entries": len(run.entries),
            "created_at": created_at,
            "updated_at": created_at,
            "ends_by": None if run.life_s is None else created_at + run.life_s,
        }
        self.pending.keep(run.run_id, aside)
        metadata = row["metadata"]
        return {**row, "metadata": canonical.encode(metadata).decode()}, state, metadata, queued

    def _claim(self, request: Claim) -> Outcome:
        there = self.locked.get(request.run_id)
        if there is None:
            return rules.no_run(request.run_id)
        if request.answer is not None:
            self._answer(request.run_id, request.answer)
        gone = there.owner is not None and self.batches.is_gone(request.run_id, there.owner)
        gone = gone and request.run_id not in self.claimed  # held, as soon as this batch is committed
        owner = None if gone else there.owner
        refusal = rules.claim_refusal(
            request.run_id, there.status, request.statuses, owner, there.lease_left_s
        )
        if refusal is not None:
            return refusal
        before = self._standing(request.run_id)
        last_seq = self.rows[request.run_id]["last_seq"] or 0
        cleared: dict[str, bytes | str | None] = {"output": None, "error": None}
        _, seals = codec.changed_values(request.run_id, self._seals(request.run_id), cleared, {})
        together = len(self.executed_by.get(there.owner or "", ())) > 1
        recoveries, suspicions = rules.blame(
            before, recovering=request.recovering, together=together, grown=last_seq > before.entries
        )
        record = replace(
            before,
            status=RunStatus.RUNNING,
            owner=self.batches.owner,
            lease_left_s=self.batches.lease_s,
            fence=there.fence + 1,
            claims=before.claims + 1,
            recoveries=recoveries,
            suspicions=suspicions,
            entries=max(last_seq, before.entries),
            output=None,
            error=None,
            updated_at=self.now,
            is_answered=False,
            pauses=None if request.answer is None else tuple(self._asked(request.run_id)),
        )
        dead = there.owner if there.status is RunStatus.RUNNING else None
        if dead is not None:  # it worked until now, or to the end of its lease at the latest
            self._end_times(request.run_id, there.fence, self.now + min(0.0, there.lease_left_s or 0.0))
        earlier = self.rows[request.run_id]["taken_from"]
        self._note_claim(record, seals, rules.taken_from(dead, earlier, together=together))
        if request.act is not None:
            self._record(request.act)
        return record

    def _cancel(self, request: Cancel) -> Outcome:
        there = self.locked.get(request.run_id)
        if there is None:
            return rules.no_run(request.run_id)
        refusal = rules.cancel_refusal(request.run_id, there.status)
        if refusal is not None:
            return refusal
        row = self.rows[request.run_id]
        if there.wish is None:
            there.wish, there.wish_by = rules.CANCEL, request.actor.by
            self.pending.wishes.append(
                {
                    "of_run": request.run_id,
                    "new_wish": rules.CANCEL,
                    "new_by": request.actor.by,
                    "now": self.now,
                }
            )
            row |= {"wish": rules.CANCEL, "wish_by": request.actor.by, "wish_at": self.now}
            row |= {"updated_at": self.now}
            self._record(Act(verb=Verb.CANCEL, actor=request.actor, run_id=request.run_id))
        return replace(self._standing(request.run_id), lease_left_s=there.lease_left_s)

    def _standing(self, run_id: RunId) -> RunRecord:
        """Return a run as this batch has left it."""
        [record] = queries.decoded(
            self.connection, decrypted(self.connection, RUNS, [dict(self.rows[run_id])])
        )
        return record

    def _record(self, act: Act) -> None:
        aside: codec.Rows = {}
        self.pending.acts.append(codec.act_row(act, aside))
        if act.run_id is not None:
            self.pending.keep(act.run_id, aside)

    def _end_times(self, run_id: RunId, fence: int, at: float) -> None:
        self.pending.ended.append({"of_run": run_id, "of_fence": fence, "ended_at": at})

    def _note_claim(self, record: RunRecord, seals: bytes, taken_from: str | None) -> None:
        there = self.locked[record.run_id]
        self.pending.claims.append(
            {
                "of_run": record.run_id,
                "new_fence": record.fence,
                "new_claims": record.claims,
                "new_recoveries": record.recoveries,
                "new_suspicions": record.suspicions,
                "new_taken_from": taken_from,
                "new_entries": record.entries,
                "new_owner": record.owner,
                "new_seals": seals,
                "now": self.now,
                "lease_s": self.batches.lease_s,
            }
        )
        self.pending.unseen.discard(record.run_id)
        # A second claim in this batch meets the first one.
        self.claimed.add(record.run_id)
        self.rows[record.run_id] |= {
            "recoveries": record.recoveries,
            "suspicions": record.suspicions,
            "claims": record.claims,
        }
        there.status, there.fence, there.seals = record.status, record.fence, seals
        there.owner, there.lease_left_s = record.owner, record.lease_left_s

    def _answer(self, run_id: RunId, given: GivenAnswer) -> Pause:
        if run_id not in self.locked:
            raise rules.no_run(run_id)
        pause = rules.answered(run_id, self._asked(run_id), given)
        if pause.answer is not None:
            return pause
        if given.actor is not None:
            self._record(rules.answer_act(run_id, pause, given.value, given.actor))
        return self._settle(run_id, pause, given.value, given.actor)

    def _send(self, event: NewEvent) -> Outcome:
        """Give an event to the wait that it is for, or keep it."""
        if event.run_id is not None and event.run_id not in self.locked:
            return rules.no_run(event.run_id)
        there = self.events.known(event)
        if there is not None:
            return there
        if event.run_id is None:
            waits = self._waits_for(event)
        else:
            events.require_going(event.run_id, self.locked[event.run_id].status, event.name)
            asked = self._asked(event.run_id)
            waits = [(event.run_id, pause) for pause in asked if events.waits_for(pause, event)]
        takers = events.takers(waits, event)
        for wait in takers:
            self._record(events.send_act(wait, event))
            self._settle(*wait, event.payload, event.actor)
        return self.events.send(event, takers, self.now)

    def _waits_for(self, event: NewEvent) -> Sequence[events.Wait]:
        """Return the open waits for the name and key of an event, with the runs locked that may take it.

        Under the lock of name and key no wait begins; one that was found may end before its run is locked.
        """
        while True:
            waits = self.events.waits(event)
            free = {run_id for run_id, _ in events.fitting(waits, event)} - self.locked.keys()
            if not free:
                return waits
            self._lock_more(sorted(free))

    def _lock_more(self, run_ids: Sequence[RunId]) -> None:
        known = self.batches.statements
        for run_id, status, *facts in known.lock(self.connection, run_ids).fetchall():
            self.locked[run_id] = _Locked(RunStatus(status), *facts)
        for row in named(known.questions(self.connection, run_ids), column_names(queries.QUESTIONS)):
            self.questions.setdefault(row["run_id"], []).append(row)

    def _take_kept(self, run_id: RunId, wait: Pause) -> bool:
        """Settle a wait that is being opened with an event that is kept for it, if there is one."""
        there = next((each for each in self._asked(run_id) if each.pause_id == wait.pause_id), None)
        event = self.events.take(run_id, wait, self.now) if events.opens(there) else None
        if event is None:
            return False
        opened = replace(wait, deadline_s=None, answer=None, answered_at=None, void=False, by=None)
        self.asked[run_id] = [each for each in self._asked(run_id) if each is not there] + [opened]
        self._record(events.send_act((run_id, opened), event))
        self._settle(run_id, opened, event.payload, event.actor)
        return True

    def _expire(self, request: Expire) -> Outcome:
        if request.run_id not in self.locked:
            return rules.no_run(request.run_id)
        pause = rules.asked(request.run_id, self._asked(request.run_id), request.pause_id)
        is_due = pause.is_open and pause.deadline_at is not None and pause.deadline_at <= self.now
        return self._settle(request.run_id, pause, None) if is_due else pause

    def _asked(self, run_id: RunId) -> list[Pause]:
        if run_id not in self.asked:
            rows = decrypted(self.connection, PAUSES, self.questions.get(run_id, ()))
            self.asked[run_id] = [codec.pause(row) for row in rows]
        return self.asked[run_id]

    def _settle(self, run_id: RunId, pause: Pause, answer: bytes | None, actor: Actor | None = None) -> Pause:
        asked = self._asked(run_id)
        place = asked.index(pause)
        # A second answer in this batch meets the first one.
        asked[place] = pause = codec.settled(pause, answer, self.now, None if actor is None else actor.by)
        digest = codec.pause_digest(run_id, pause)
        self.pending.unseen.add(run_id)
        if not pause.kind.asks_human:
            self.pending.woken.add(run_id)
        self.pending.fills_queue |= self.locked[run_id].queue is not None
        self.pending.answers.append(
            {
                "of_run": run_id,
                "of_pause": pause.pause_id,
                "new_answer": pause.answer,
                "new_answered_at": pause.answered_at,
                "new_digest": digest,
                "new_by": pause.by,
            }
        )
        return pause
