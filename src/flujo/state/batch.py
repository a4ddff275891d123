"""One batch of requests as one transaction: lock the runs, judge each request, write what may be written.

The runs' rows are locked first, in the order of their ids and with one strength, so that two processes never
wait for each other; only then are the fences compared. (A condition inside the INSERT alone would let a
write land after somebody else's claim has been committed.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.run import NewRun, Pause, RunRecord, RunStatus, Write
from flujo.exceptions import FlujoError
from flujo.state import codec, judgement, ownership, queries, statements

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import sqlalchemy as sa

    from flujo.domain.journal import RunId, StepPath
    from flujo.state.database import Database
    from flujo.state.leases import Leases


@dataclass(frozen=True, slots=True)
class Accept:
    """Record a new run."""

    run: NewRun
    blobs: Mapping[str, bytes]
    claim: bool

    @property
    def run_id(self) -> RunId:
        """The run's id."""
        return self.run.run_id


@dataclass(frozen=True, slots=True)
class Claim:
    """Take a run over."""

    run_id: RunId
    statuses: tuple[RunStatus, ...]
    recovering: bool = False
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Record a human's answer."""

    run_id: RunId
    pause_id: StepPath
    answer: bytes


@dataclass(frozen=True, slots=True)
class Expire:
    """Settle a question whose deadline has passed."""

    run_id: RunId
    pause_id: StepPath


Request = Accept | Claim | Answer | Expire | Write
Outcome = RunRecord | Pause | FlujoError | None
"""What a request's waiter gets; an error is raised there."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What a batch came to, true once its transaction is committed."""

    outcomes: list[Outcome]
    transaction_id: str | None = None
    """Postgres can be asked about it when the answer to COMMIT gets lost."""


# The batch -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Locked:
    """A run's row as this transaction holds it."""

    status: RunStatus
    fence: int
    owner: str | None
    seals: bytes
    lease_left_s: float | None


class Batches:
    """Applies batches of requests for one owner."""

    def __init__(self, database: Database, leases: Leases) -> None:
        self.owner = leases.owner
        self.lease_s = leases.lease_s
        self.leases = leases
        self.is_postgres = database.is_postgres
        self.pipelined = database.pipelined
        self.statements = statements.Statements(postgres=database.is_postgres)
        self.holes = judgement.Holes()
        self._latest = 0.0

    def is_gone(self, run_id: str, owner: str) -> bool:
        """Return whether nobody executes a run although its row names an owner: it died, or we let go."""
        if owner == self.owner:
            return not self.leases.holds(run_id)
        return ownership.is_provably_dead(owner)

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

    def acceptance_time(self, now: float) -> float:
        """Return `now`, or a microsecond after the acceptance before: "newest" has one meaning."""
        self._latest = max(now, self._latest + 1e-6)
        return self._latest


@dataclass(slots=True)
class _Pending:
    """What is written at the end, one statement each."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)
    pauses: list[dict[str, Any]] = field(default_factory=list)
    moves: list[dict[str, Any]] = field(default_factory=list)
    voids: list[dict[str, Any]] = field(default_factory=list)
    """Questions, one by one."""
    voided: set[str] = field(default_factory=set)
    """Runs, with all their open questions."""
    intents: list[dict[str, Any]] = field(default_factory=list)
    holds: list[dict[str, Any]] = field(default_factory=list)
    aside: codec.Rows = field(default_factory=dict)


class _Batch:
    def __init__(self, batches: Batches, connection: sa.Connection, careful: bool) -> None:
        self.batches = batches
        self.connection = connection
        self.careful = careful
        self.pending = _Pending()
        self.locked: dict[str, _Locked] = {}
        self.accepted: dict[str, RunRecord] = {}
        self.claimed: set[str] = set()
        self.known_moment: tuple[float, str | None] | None = None

    def apply(self, requests: Sequence[Request]) -> Applied:
        self._lock(sorted({request.run_id for request in requests}))
        outcomes = [self._outcome(request) for request in requests]
        with self.batches.pipelined(self.connection):  # so nothing is read in there
            self._flush()
        return Applied(outcomes, self.moment[1] if self.batches.is_postgres else None)

    @cached_property
    def moment(self) -> tuple[float, str | None]:
        """The database's time in this transaction, and Postgres' name for it."""
        if self.known_moment is not None:
            return self.known_moment
        row = self.connection.execute(self.batches.statements.moment).mappings().one()
        return row["now"], row.get("transaction_id")

    def _lock(self, ids: list[str]) -> None:
        with self.batches.pipelined(self.connection):
            rows = self.batches.statements.lock(self.connection, ids)
        for row in rows:
            run_id, status, fence, owner, seals, left, now, *transaction_id = row
            self.known_moment = now, (transaction_id or [None])[0]
            self.locked[run_id] = _Locked(RunStatus(status), fence, owner, seals, left)

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
                case Answer():
                    return self._answer(request)
                case Expire():
                    return self._expire(request)
        except FlujoError as error:
            return error

    def _write(self, write: Write) -> Outcome:
        there = self.locked.get(write.run_id)
        if there is None:
            return judgement.no_run(write.run_id)
        refusal: FlujoError | None = judgement.write_refusal(
            write, there.fence, there.status, there.owner, self.batches.owner
        )
        if refusal is not None or (refusal := self.batches.holes.before(write)) is not None:
            return refusal
        pending = self.pending
        pending.aside.update((digest, codec.blob_row(digest, data)) for digest, data in write.blobs.items())
        entries = [codec.entry_row(write.run_id, entry, pending.aside) for entry in write.entries]
        pending.entries += self._fresh(write, entries) if self.careful else entries
        for pause in write.pauses:
            pending.pauses.append(codec.pause_row(write.run_id, pause, len(pending.pauses)))
        pending.intents += [
            {**codec.intent_row(write.run_id, intent, pending.aside), "fence": write.fence}
            for intent in write.intents
        ]
        pending.holds += [codec.hold_row(write.run_id, hold) for hold in write.holds]
        pending.voids += [{"of_run": write.run_id, "of_pause": pause_id} for pause_id in write.voids]
        if write.move is not None:
            self._move(write, there)
        return None

    def _fresh(self, write: Write, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the rows that are not there yet; raise `JournalConflict` when another is in the place."""
        if not entries:
            return entries
        places = {name: [row[name] for row in entries] for name in ("seq", "path")}
        asked = {"of_run": write.run_id, "seqs": places["seq"], "paths": places["path"]}
        found = self.connection.execute(statements.recorded, asked).all()
        by_seq = {row.seq: row.digest for row in found}
        by_key = {(row.path, row.kind, row.attempt): row.digest for row in found}
        fresh = []
        for entry, row in zip(write.entries, entries, strict=True):
            key = (row["path"], row["kind"], row["attempt"])
            there = by_seq.get(row["seq"], by_key.get(key))
            if there is None:
                fresh.append(row)
            elif there != row["digest"]:
                raise judgement.recorded_otherwise(write.run_id, entry)
        return fresh

    def _move(self, write: Write, there: _Locked) -> None:
        move = write.move
        assert move is not None  # noqa: S101 - for the type checker; the caller has looked
        values: dict[str, bytes | str | None] = {"output": move.output, "error": move.error}
        usage = None if move.usage is None else codec.usage_value(move.usage)
        kept_when_left_out = {"context_now": move.context, "usage": usage, "closure": move.closure}
        values |= {name: value for name, value in kept_when_left_out.items() if value is not None}
        stored, there.seals = codec.changed_values(write.run_id, there.seals, values, self.pending.aside)
        there.status = move.status
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
        if judgement.voids_pauses(move.status):
            self.pending.voided.add(write.run_id)

    def _accept(self, request: Accept) -> Outcome:
        run = request.run
        if run.run_id in self.accepted:
            return judgement.accept_twice(self.accepted[run.run_id], run)
        if run.run_id in self.locked:
            return judgement.accept_twice(queries.run(self.connection, run.run_id), run)
        aside: codec.Rows = {
            digest: codec.known_blob_row(digest, data) for digest, data in request.blobs.items()
        }
        row = codec.run_row(run, aside)
        created_at = self.batches.acceptance_time(self.moment[0])
        state: dict[str, Any] = {
            "status": RunStatus.RUNNING if request.claim else RunStatus.ACCEPTED,
            "owner": self.batches.owner if request.claim else None,
            "fence": int(request.claim),
            "claims": int(request.claim),
            "entries": 0,
            "created_at": created_at,
            "updated_at": created_at,
        }
        lease_s = self.batches.lease_s if request.claim else None
        self.pending.aside.update(aside)
        metadata = canonical.encode(row["metadata"], what="metadata").decode()
        self.pending.runs.append({**row, **state, "metadata": metadata, "lease_s": lease_s})
        record = RunRecord(
            run_id=run.run_id,
            pipeline=run.pipeline,
            closure=run.closure,
            input=run.input,
            context=run.context,
            metadata=row["metadata"],
            user_id=run.user_id,
            lock_digest=run.lock_digest,
            lease_left_s=lease_s,
            **state,
        )
        self.accepted[run.run_id] = record
        return record

    def _claim(self, request: Claim) -> Outcome:
        there = self.locked.get(request.run_id)
        if there is None:
            return judgement.no_run(request.run_id)
        gone = there.owner is not None and self.batches.is_gone(request.run_id, there.owner)
        gone = gone and request.run_id not in self.claimed  # held, as soon as this batch is committed
        owner = None if gone or request.forced else there.owner
        refusal = judgement.claim_refusal(
            request.run_id, there.status, request.statuses, owner, there.lease_left_s
        )
        if refusal is not None:
            return refusal
        cleared: dict[str, bytes | str | None] = {"output": None, "error": None}
        _, seals = codec.changed_values(request.run_id, there.seals, cleared, self.pending.aside)
        before = queries.standing(self.connection, request.run_id)
        values = {
            "new_recoveries": judgement.recoveries(
                before.recoveries,
                there.status,
                recovering=request.recovering,
                abandoned=there.owner is not None,
                grown=before.last_seq > before.entries,
            ),
            "new_entries": max(before.last_seq, before.entries),
            "of_run": request.run_id,
            "new_owner": self.batches.owner,
            "new_seals": seals,
            "lease_s": self.batches.lease_s,
        }
        record = queries.claimed(self.connection, values)
        # A second claim in this batch meets the first one.
        self.claimed.add(request.run_id)
        there.status, there.fence, there.seals = record.status, record.fence, seals
        there.owner, there.lease_left_s = record.owner, record.lease_left_s
        return record

    def _answer(self, request: Answer) -> Outcome:
        if request.run_id not in self.locked:
            return judgement.no_run(request.run_id)
        asked = queries.questions(self.connection, request.run_id)
        pause = judgement.answered(request.run_id, asked, request.pause_id, request.answer)
        if pause.answer is not None:
            return pause
        return self._settle(request.run_id, pause, request.answer)

    def _expire(self, request: Expire) -> Outcome:
        if request.run_id not in self.locked:
            return judgement.no_run(request.run_id)
        asked = queries.questions(self.connection, request.run_id)
        pause = judgement.asked(request.run_id, asked, request.pause_id)
        is_due = pause.is_open and pause.deadline_at is not None and pause.deadline_at <= self.moment[0]
        return self._settle(request.run_id, pause, None) if is_due else pause

    def _settle(self, run_id: RunId, pause: Pause, answer: bytes | None) -> Pause:
        pause = codec.settled(pause, answer, self.moment[0])
        values = {
            "of_run": run_id,
            "of_pause": pause.pause_id,
            "new_answer": pause.answer,
            "new_answered_at": pause.answered_at,
            "new_digest": codec.pause_digest(run_id, pause),
        }
        self.connection.execute(statements.answer, values)
        self.connection.execute(statements.note_answer, {"of_run": run_id})
        return pause

    def _flush(self) -> None:
        pending, connection, execute = self.pending, self.connection, self.connection.execute
        known = self.batches.statements
        if pending.aside:
            # In one order everywhere, so that two processes with the same content do not wait crosswise.
            known.keep_blobs(connection, [row for _, row in sorted(pending.aside.items())])
        if pending.runs:
            known.insert_runs(connection, pending.runs)
        if pending.entries:
            known.insert_entries(connection, pending.entries)
        if pending.intents:
            execute(known.keep_intents, pending.intents)
        if pending.holds:
            execute(known.keep_holds, pending.holds)
        if pending.pauses:
            execute(known.open_pauses, pending.pauses)
        if pending.voids:
            execute(statements.void_one, pending.voids)
        if pending.moves:
            known.move_runs(connection, pending.moves)
        if pending.voided:
            execute(statements.void, {"ids": sorted(pending.voided)})
