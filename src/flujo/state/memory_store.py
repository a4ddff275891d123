"""Runs and journals in this process's memory: the same rules as a database, lost when the process ends."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

from flujo.domain import canonical, chains
from flujo.domain.acts import STEERING, Act, Verb
from flujo.domain.feed import KEPT_S
from flujo.domain.journal import Entry, EntryKind, RunId
from flujo.domain.ledger import OF_TASKS, Hold, HoldState, Ledger, Spending
from flujo.domain.paths import ROOT, StepPath
from flujo.domain.queues import RunKind
from flujo.domain.run import (
    AT_A_PAUSE,
    ENDS_OF_TASKS,
    UNENDED,
    Due,
    GivenAnswer,
    Intent,
    IntentState,
    Move,
    NewRun,
    Progress,
    RunGroup,
    RunQuery,
    RunRecord,
    RunStatus,
    Wish,
    Write,
)
from flujo.domain.schedule_records import Changed, ScheduleOutcome, Schedules
from flujo.domain.usage import NOTHING
from flujo.exceptions import CorruptState, FlujoError, ResumeConflict, RunConflict, StateBackendUnavailable
from flujo.state import codec, owner_tokens, rules, schedule_rules
from flujo.state.memory_questions import MemoryQuestions
from flujo.state.memory_queues import MemoryQueues
from flujo.state.memory_runs import MemoryDatabase, StoredRun
from flujo.state.tally import Tally, group_of, status_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from flujo.domain.access import Session, Token
    from flujo.domain.acts import Actor, ActQuery
    from flujo.domain.evaluations import Evaluation, EvaluationQuery
    from flujo.domain.feed import FeedLine
    from flujo.domain.figures import Figure, FigureQuery
    from flujo.domain.outbox import Message, MessageState, Tried
    from flujo.domain.providers import Admission, Allowed
    from flujo.domain.recorded_run import RecordedRun
    from flujo.domain.run import Child
    from flujo.domain.schedule_records import ScheduleChange
    from flujo.domain.shared_budgets import Counted


class MemoryStateStore(MemoryQueues, MemoryQuestions):
    """A `StateStore` for tests and for `persist_state=False`.

    A lease lasts until it is released, unless `lease_s` bounds it; then it is renewed when a step begins
    after its end and no other store has claimed the run.

    Args:
        database: shared with other stores; a new one when left out.
        lease_s: how long a lease lasts; None for as long as this store is open.
        now: seconds since the epoch.
    """

    def __init__(
        self,
        database: MemoryDatabase | None = None,
        *,
        lease_s: float | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.database = database or MemoryDatabase()
        self._tables = self.database
        self.owner = owner_tokens.new_token()
        self._lease_s = float("inf") if lease_s is None else lease_s
        self._now = now
        self._holes = rules.GapTracker()
        self._closed = False

    async def accept(self, run: NewRun, blobs: Mapping[str, bytes], *, claim: bool = True) -> RunRecord:
        """Record a run; see the port."""
        self._check_open()
        rules.check_run(run)
        there = self.database.runs.get(run.run_id)
        if there is not None:
            raise rules.accept_twice(self._record(there), run)
        for act in run.acts:
            if act.run_id is not None and act.run_id != run.run_id:
                self._stored(act.run_id)
        return self._record(self._insert(run, blobs, claim=claim))

    def _insert(self, run: NewRun, blobs: Mapping[str, bytes], *, claim: bool) -> StoredRun:
        now = self._now()
        record = RunRecord(
            run_id=run.run_id,
            pipeline=run.pipeline,
            status=RunStatus.RUNNING if claim else RunStatus.ACCEPTED,
            closure=run.closure,
            input=run.input,
            context=run.context,
            metadata=canonical.normalise(dict(run.metadata)),
            user_id=run.user_id,
            lock_digest=run.lock_digest,
            fence=int(claim),
            owner=self.owner if claim else None,
            lease_left_s=self._lease_s if claim else None,
            claims=int(claim),
            entries=len(run.entries),
            created_at=now,
            updated_at=now,
            parent=run.parent,
            is_case=run.is_case,
            queued=None if run.queued is None else rules.in_queue(run.queued, now),
            ends_by=None if run.life_s is None else now + run.life_s,
        )
        stored = StoredRun(record, next(self.database.ordinals), now + self._lease_s if claim else None)
        self.database.blobs.update(blobs)
        self.database.runs[run.run_id] = stored
        for entry in run.entries:
            stored.add(entry)
        for act in run.acts:
            self._act(self._stored(act.run_id or run.run_id), act)
        if record.queued is not None:
            stored.rank_at = record.queued.available_at or now
            self.database.queues.ring()
        return stored

    async def claim(
        self,
        run_id: RunId,
        *,
        statuses: Sequence[RunStatus],
        recovering: bool = False,
        act: Act | None = None,
        answer: GivenAnswer | None = None,
    ) -> RunRecord:
        """Take a run over; see the port."""
        return self._claimed(run_id, statuses=statuses, recovering=recovering, act=act, answer=answer)

    def _claimed(
        self,
        run_id: RunId,
        *,
        statuses: Sequence[RunStatus],
        recovering: bool = False,
        act: Act | None = None,
        answer: GivenAnswer | None = None,
    ) -> RunRecord:
        self._check_open()
        stored = self._stored(run_id)
        if answer is not None:
            self._answer(stored, answer)
        there = self._record(stored)
        gone = there.owner is not None and owner_tokens.is_provably_dead(there.owner)
        owner = None if gone else there.owner
        refusal = rules.claim_refusal(run_id, there.status, statuses, owner, there.lease_left_s)
        if refusal is not None:
            raise refusal
        now = self._now()
        last_seq = stored.last_seq
        dead = there.owner if there.status is RunStatus.RUNNING else None
        together = dead is not None and self._executed_by(dead) > 1
        recoveries, suspicions = rules.blame(
            there, recovering=recovering, together=together, grown=last_seq > there.entries
        )
        if dead is not None:
            stored.end_times(min(now, stored.lease_until or now))
        stored.taken_from = rules.taken_from(dead, stored.taken_from, together=together)
        stored.lease_until, stored.answered = now + self._lease_s, False
        stored.record = replace(
            stored.record,
            status=RunStatus.RUNNING,
            owner=self.owner,
            lease_left_s=self._lease_s,
            fence=there.fence + 1,
            claims=there.claims + 1,
            recoveries=recoveries,
            suspicions=suspicions,
            entries=max(last_seq, there.entries),
            output=None,
            error=None,
            updated_at=now,
        )
        stored.on_wish = None
        if act is not None:
            self._act(stored, act)
        claimed = self._record(stored)
        return claimed if answer is None else replace(claimed, pauses=tuple(stored.pauses.values()))

    async def cancel(self, run_id: RunId, actor: Actor) -> RunRecord:
        """Record the wish that a run be cancelled; see the port."""
        self._check_open()
        stored = self._stored(run_id)
        refusal = rules.cancel_refusal(run_id, stored.record.status)
        if refusal is not None:
            raise refusal
        if stored.record.wish is None:
            now = self._now()
            stored.record = replace(stored.record, wish=Wish(rules.CANCEL, actor.by, now), updated_at=now)
            self._act(stored, Act(verb=Verb.CANCEL, actor=actor, run_id=run_id))
            self._tell(stored)
        return self._record(stored)

    def on_wish(self, run_id: RunId, callback: Callable[[], None]) -> None:
        """Call `callback` once there is a wish for a run that this store owns; see the port."""
        stored = self.database.runs.get(run_id)
        if stored is not None and stored.record.owner == self.owner:
            stored.on_wish = asyncio.get_running_loop(), callback
            if stored.record.wish is not None:
                self._tell(stored)

    @staticmethod
    def _tell(stored: StoredRun) -> None:
        waiting, stored.on_wish = stored.on_wish, None
        if waiting is not None:
            loop, callback = waiting
            loop.call_soon_threadsafe(callback)

    async def watch(self, run_id: RunId) -> None:
        """Ask the owner of a run to write its feed; see the port."""
        stored = self.database.runs.get(run_id)
        if stored is not None and stored.record.status not in ENDS_OF_TASKS:
            self.database.feeds.watch(run_id, self._now)

    def on_watched(self, run_id: RunId, callback: Callable[[bool], None]) -> None:
        """Call `callback` when a run that this store owns becomes watched, or no longer is; see the port."""
        stored = self.database.runs.get(run_id)
        if stored is not None and stored.record.owner == self.owner:
            self.database.feeds.on_watched(run_id, callback, self._now)

    async def add_to_feed(self, run_id: RunId, fence: int, lines: Sequence[FeedLine]) -> None:
        """Add lines to the feed of a run; see the port."""
        self._check_open()
        stored = self.database.runs.get(run_id)
        if stored is not None and stored.record.fence == fence:
            self.database.feeds.add(run_id, lines, self._now())

    async def feed(self, run_id: RunId, *, after: int = 0) -> list[FeedLine]:
        """Return the feed of a run behind a number; see the port."""
        return self.database.feeds.after(run_id, after)

    async def delete_old_feeds(self) -> None:
        """Delete the feeds of runs that their owners have left; see the port."""
        for run_id in list(self.database.feeds.by_run):
            stored = self.database.runs.get(run_id)
            if stored is None or (
                self._is_unattended(stored) and stored.record.updated_at < self._now() - KEPT_S
            ):
                del self.database.feeds.by_run[run_id]

    def write(self, write: Write) -> Awaitable[bool]:
        """Apply a write at once; the awaitable has its result."""
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        try:
            self._check_open()
            answered = self._write(write)
            self._holes.succeeded(write)
        except FlujoError as error:
            self._holes.failed(write, error)
            done.set_exception(error)
        else:
            done.set_result(answered)
        return done

    def may_begin(self, run_id: RunId) -> bool:
        """Return whether the run is this store's, and its lease lasts; see the port."""
        stored = self.database.runs.get(run_id)
        if stored is None or stored.record.owner != self.owner:
            return False
        return stored.lease_until is None or self._now() < stored.lease_until

    def let_go(self, run_id: RunId) -> None:
        """Release the run; see the port."""
        stored = self.database.runs.get(run_id)
        if stored is not None and stored.record.owner == self.owner:
            self._release(stored)

    async def reserve(self, run_id: RunId, fence: int, hold: Hold) -> None:
        """Write the hold of a request in budgets of several runs; see the port."""
        self._check_open()
        stored, write = self._stored(run_id), Write(run_id=run_id, fence=fence, holds=(hold,))
        record = stored.record
        refusal = rules.write_refusal(write, record.fence, record.status, record.owner, self.owner)
        if refusal is not None:
            raise refusal
        exceeded = self.database.budgets.reserve(run_id, hold, self._now())
        if exceeded is not None:
            raise exceeded
        self._hold(stored, [hold])

    async def budget_counters(self) -> list[Counted]:
        """Return every counter of budgets that several runs share."""
        return self.database.budgets.counted()

    async def now(self) -> float:
        """Return the time that was given to the store, or that of this machine."""
        return self._now()

    async def probe(self) -> None:
        """Return at once."""

    async def run(self, run_id: RunId) -> RunRecord:
        """Return a run."""
        return self._listed(self._stored(run_id))

    async def find(self, text: str) -> RunRecord:
        """Return the run that a user means: an id, a unique prefix of one, or `@last`."""
        runs = self.database.runs
        started = [stored for stored in runs.values() if stored.record.kind is RunKind.RUN]
        if text == "@last" and started:
            return self._listed(max(started, key=lambda stored: stored.ordinal))
        if (exact := runs.get(RunId(text))) is not None:
            return self._listed(exact)
        beginning = sorted(run_id for run_id in runs if text and run_id.startswith(text))
        firsts = sorted({chains.first_of(run_id) for run_id in beginning})
        if not firsts:
            raise rules.no_run(text)
        if len(firsts) > 1 and text not in firsts:
            raise rules.several_runs(text, firsts[:5])
        meant = text if text in firsts else firsts[0]
        chain = [run_id for run_id in beginning if chains.first_of(run_id) == meant]
        return self._listed(runs[min(chain, key=chains.number_of)])

    async def find_with_progress(self, text: str) -> tuple[RunRecord, Progress | None]:
        """Return the run that a user means, and its progress; see the port."""
        found = await self.find(text)
        return found, await self.progress(found.run_id) if found.owner is None else None

    async def runs(self, query: RunQuery) -> list[RunRecord]:
        """Return the runs that match; see the port."""
        found = [self._listed(stored) for stored in self._matching(query)]
        return sorted(found, key=lambda record: rules.place(record, query.order))[: query.limit]

    async def count_runs(self, query: RunQuery, by: RunGroup) -> dict[str | None, int]:
        """Return how many runs match, in each group; see the port."""
        found = [stored.record for stored in self._matching(query)]
        return dict(Counter(_group(record, by) for record in found))

    def _matching(self, query: RunQuery) -> list[StoredRun]:
        rules.check_query(query)
        return [
            stored
            for stored in self.database.runs.values()
            if rules.fits(
                stored.record, [*stored.pauses.values()], query, unattended=self._is_unattended(stored)
            )
        ]

    async def entries(
        self,
        run_id: RunId,
        *,
        parent: StepPath | None = None,
        paths: Collection[StepPath] | None = None,
        after: int = 0,
    ) -> list[Entry]:
        """Return the journal in order: all of it, a part, a level, or some paths; see the port."""
        stored = self.database.runs.get(run_id)
        if parent is not None:
            return stored.level(parent, after) if stored else []
        entries = [stored.by_seq[seq] for seq in sorted(stored.by_seq) if seq > after] if stored else []
        if paths is not None:
            wanted = frozenset(paths)
            return [entry for entry in entries if entry.path in wanted]
        return entries

    async def progress(self, run_id: RunId) -> Progress:
        """Return how far the run is; see the port."""
        stored = self.database.runs.get(run_id)
        return Progress(
            last_seq=0 if stored is None else stored.last_seq,
            usage=NOTHING if stored is None else sum((entry.usage for entry in stored.spent), NOTHING),
            first=() if stored is None else tuple(stored.level(ROOT, 0)),
            pauses=tuple(await self.pauses(run_id)),
            acts=tuple(act for act in await self.acts(run_id) if act.verb in STEERING),
        )

    async def ledger(self, run_id: RunId) -> Ledger:
        """Return what each attempt used and when, and what is held back of the run's budget."""
        return self._ledger(run_id)

    def _ledger(self, run_id: RunId) -> Ledger:
        stored = self.database.runs.get(run_id)
        if stored is None:
            return Ledger()
        entries = [stored.by_seq[seq] for seq in sorted(stored.by_seq)]
        return Ledger(
            tuple(
                Spending(entry.path, entry.usage, entry.started_at, entry.ended_at)
                for entry in entries
                if entry.kind is EntryKind.WORK or entry.usage
            )
            + stored.ended_times(),
            tuple(stored.open_holds()),
            tuple(stored.holds[key] for key in sorted(stored.holds) if stored.holds[key].state in OF_TASKS),
        )

    def on_settled(self, callback: Callable[[RunId], None]) -> Callable[[], None]:
        """Call `callback` when a wait is settled; see the port."""
        return self.database.wakes.on_settled(callback)

    async def due(
        self, *, pipeline: str | None = None, without: Collection[str] = (), limit: int = 100
    ) -> Due:
        """Return expired questions and runs without a living owner; see the port."""
        self._check_open()
        runs = self.database.runs.values()
        overdue = [
            (pause.deadline_at or 0, stored.record.run_id, pause.pause_id)
            for stored in runs
            for pause in stored.pauses.values()
            if self._is_overdue(pause)
        ]
        waiting = [
            stored.record
            for stored in runs
            if self._can_go_on(stored)
            and stored.record.queued is None
            and stored.record.closure not in without
            and (pipeline is None or stored.record.pipeline == pipeline)
        ]
        waiting.sort(key=lambda record: (record.updated_at, record.run_id))
        late = [
            (stored.record.ends_by, stored.record.run_id)
            for stored in runs
            if stored.record.ends_by is not None
            and stored.record.ends_by <= self._now()
            and stored.record.status in UNENDED
            and self._is_unattended(stored)
            and (pipeline is None or stored.record.pipeline == pipeline)
        ]
        return Due(
            questions=tuple((run_id, pause_id) for _, run_id, pause_id in sorted(overdue)[:limit]),
            runs=tuple(record.run_id for record in waiting[:limit]),
            suspects=frozenset(
                record.run_id
                for record in waiting[:limit]
                if record.owner is not None and record.suspicions > 0
            ),
            overdue=tuple(run_id for _, run_id in sorted(late)[:limit]),
        )

    async def intents(self, run_id: RunId) -> list[Intent]:
        """Return the calls that a run has announced."""
        stored = self.database.runs.get(run_id)
        return stored.calls() if stored else []

    async def acts(self, run_id: RunId) -> list[Act]:
        """Return who changed a run, in order."""
        stored = self.database.runs.get(run_id)
        return list(stored.acts) if stored else []

    async def blobs(self, digests: Sequence[str]) -> dict[str, bytes]:
        """Return content-addressed blobs."""
        missing = [digest for digest in digests if digest not in self.database.blobs]
        if missing:
            raise CorruptState(f"the content {missing[0]} is missing from the store")
        return {digest: self.database.blobs[digest] for digest in digests}

    async def messages(
        self,
        *,
        states: Collection[MessageState] = (),
        target: str | None = None,
        run_id: RunId | None = None,
        ids: Collection[int] | None = None,
        limit: int = 100,
    ) -> list[Message]:
        """Return the messages that match, the newest first; see the port."""
        return self.database.outbox.matching(states, target, run_id, ids, limit)

    async def take_messages(self, targets: Collection[str], *, lease_s: float, limit: int) -> list[Message]:
        """Take due messages; see the port."""
        self._check_open()
        return self.database.outbox.take(targets, self.owner, lease_s, limit, self._now())

    async def settle_message(self, message: Message, tried: Tried) -> bool:
        """Record the result of a try; see the port."""
        self._check_open()
        return self.database.outbox.settle(message, tried, self._now())

    async def redeliver(self, ids: Collection[int]) -> int:
        """Make messages due at once; see the port."""
        self._check_open()
        return self.database.outbox.redeliver(ids, self._now())

    async def import_runs(self, runs: Sequence[RecordedRun], *, actor: Actor, origin: str) -> list[RunId]:
        """Take over runs of another database; see the port."""
        self._check_open()
        taken = []
        for run in runs:
            for digest, data in run.blobs.items():
                codec.blob_row(digest, data)  # raises for damaged bytes
            there = self.database.runs.get(run.run_id)
            if there is None:
                taken.append(run)
            elif refusal := rules.import_refusal(there.recorded(), run.pulled()):
                raise refusal
        for run in taken:
            stored = StoredRun.arrived(run.pulled(), next(self.database.ordinals))
            self.database.blobs.update(run.blobs)
            self.database.runs[run.run_id] = stored
            self._act(stored, rules.pull_act(run.run_id, run.record.status, actor, origin))
        return sorted(run.run_id for run in taken)

    async def admit_request(
        self, provider: str, tokens: int, allowed: Allowed, *, span_s: float = 60.0
    ) -> Admission:
        """Count a request to a provider if its limits allow it; see the port."""
        self._check_open()
        return self.database.requests.admit(provider, tokens, allowed, span_s, self._now())

    async def settle_request(self, provider: str, ticket: int, tokens: int | None) -> None:
        """Replace the tokens of a counted request; see the port."""
        self._check_open()
        self.database.requests.settle(provider, ticket, tokens)

    async def schedules(self) -> Schedules:
        """Return every schedule, and the time."""
        return Schedules(self._now(), [record for _, record in sorted(self.database.schedules.items())])

    async def change_schedule(self, change: ScheduleChange) -> Changed:
        """Make a change of one schedule; see the port."""
        self._check_open()
        database, now = self.database, self._now()
        runs = ((run_id, stored.record.status) for run_id, stored in database.runs.items())
        blocker = schedule_rules.blocker(change, runs)
        found = schedule_rules.judged(change, database.schedules.get(change.name), blocker)
        if found.outcome in (ScheduleOutcome.LOST, ScheduleOutcome.BLOCKED):
            return found
        if change.run is not None and found.outcome is ScheduleOutcome.DONE:
            try:
                await self.accept(change.run, change.blobs, claim=False)
            except (ResumeConflict, RunConflict):
                found = Changed(ScheduleOutcome.EXISTED)
        after = schedule_rules.written(change, found.outcome)
        if after is None:
            del database.schedules[change.name]
        else:
            database.schedules[change.name] = replace(after, updated_at=now)
        if change.act is not None and found.outcome is not ScheduleOutcome.EXISTED:
            database.acts.append(replace(change.act, at=now))
        return found

    async def add_evaluations(self, evaluations: Sequence[Evaluation], *, acts: Sequence[Act] = ()) -> None:
        """Record scores and the acts that lead to them; see the port."""
        self._check_open()
        on = [self._stored(act.run_id) for act in acts if act.run_id is not None]
        if self.database.evaluations.keep(evaluations, self._now()):
            for stored, act in zip(on, acts, strict=True):
                self._act(stored, act)

    async def evaluations(self, query: EvaluationQuery) -> list[Evaluation]:
        """Return the evaluations that match, the newest first; see the port."""
        return self.database.evaluations.matching(query)

    async def figures(self, query: FigureQuery) -> list[Figure]:
        """Return the figures, by period and then by name; see the port."""
        tally = Tally(query)
        for stored in self._matching(query.runs):
            run = stored.record
            if query.by.counts_runs:
                took = run.updated_at - run.created_at
                tally.add(run.created_at, run.pipeline, str(run.status), took, run.usage)
                continue
            for call in filter(lambda entry: entry.usage, stored.journal.values()):
                name, status = group_of(query.by, call.detail), status_of(str(call.status), call.fingerprint)
                tally.add(run.created_at, name, status, call.ended_at - call.started_at, call.usage)
        return tally.figures()

    async def recorded_acts(self, query: ActQuery) -> list[Act]:
        """Return the acts that match, the newest first; see the port."""
        recorded = [*self.database.acts, *(act for run in self.database.runs.values() for act in run.acts)]
        recorded.sort(key=lambda act: -(act.at or 0.0))
        return [act for act in recorded if query.fits(act)][: query.limit]

    async def add_token(self, token: Token, actor: Actor, *, lives_s: float | None = None) -> Token:
        """Record a token and the act; see the port."""
        stored, is_new = self.database.tokens.add(token, self._now(), lives_s)
        if is_new:
            await self.record_act(Act(verb=Verb.ISSUE, actor=actor, object=token.name))
        return stored

    async def revoke_token(self, name: str, actor: Actor) -> Token:
        """Revoke a token and record the act; see the port."""
        stored, is_new = self.database.tokens.revoke(name, self._now())
        if is_new:
            await self.record_act(Act(verb=Verb.REVOKE, actor=actor, object=name))
        return stored

    async def record_act(self, act: Act) -> None:
        """Record an act that changes nothing else; see the port."""
        if act.run_id is not None:
            self._act(self._stored(act.run_id), act)
            return
        self.database.acts.append(replace(act, at=self._now()))

    async def token(self, digest: bytes) -> Token | None:
        """Return the token with this digest if it is valid now; see the port."""
        return self.database.tokens.valid(digest, self._now())

    async def tokens(self) -> list[Token]:
        """Return every token by name; see the port."""
        return self.database.tokens.all()

    async def begin_session(
        self, session: Session, actor: Actor, *, lives_s: float, details: bytes | None = None
    ) -> Session:
        """Record a login and the act; see the port."""
        stored, is_new = self.database.sessions.begin(session, self._now(), lives_s)
        if is_new:
            act = Act(verb=Verb.LOG_IN, actor=actor, object=session.name, after=details)
            await self.record_act(act)
        return stored

    async def session(self, digest: bytes) -> Session | None:
        """Return the session with this digest if it is valid now; see the port."""
        return self.database.sessions.valid(digest, self._now())

    async def end_session(self, digest: bytes, actor: Actor) -> None:
        """Delete a session and record the act; see the port."""
        if (name := self.database.sessions.end(digest)) is not None:
            await self.record_act(Act(verb=Verb.LOG_OUT, actor=actor, object=name))

    async def aclose(self) -> None:
        """Release every lease. Idempotent."""
        self._closed = True
        for stored in self.database.runs.values():
            if stored.record.owner == self.owner:
                self._release(stored)

    # What a write does -----------------------------------------------------------------------------------

    def _write(self, write: Write) -> bool:
        stored = self._stored(write.run_id)
        record = stored.record
        refusal: FlujoError | None = rules.write_refusal(
            write, record.fence, record.status, record.owner, self.owner
        )
        if refusal is not None or (refusal := self._holes.before(write)) is not None:
            raise refusal
        for entry in stored.new_of(write.entries):
            stored.add(entry)
        if not write.is_append:
            self._apply_rest(stored, write)
        elif not write.entries:
            stored.lease_until = self._now() + self._lease_s
        return stored.answered

    def _apply_rest(self, stored: StoredRun, write: Write) -> None:
        """Apply everything but the entries of a write."""
        self.database.blobs.update(write.blobs)
        for intent in write.intents:
            before = stored.intents.pop(intent.key, intent)
            sent_at = self._now() if intent.state is IntentState.SENT else before.sent_at
            stored.intents[intent.key] = replace(intent, sent_at=sent_at)
        self.database.budgets.settle(write.run_id, write.holds, self._now())
        self._hold(stored, write.holds)
        for pause in write.pauses:
            self._open(stored, pause)
        for pause_id in write.voids:
            if pause_id in stored.pauses and stored.pauses[pause_id].is_open:
                stored.pauses[pause_id] = replace(stored.pauses[pause_id], void=True)
        for act in write.acts:
            self._act(stored, act)
        for child in write.children:
            self._launch(stored, child)
        if write.move is not None:
            self._move(stored, write.move)
        if any(pause.awaits_tasks for pause in write.pauses):
            self._wake(stored)

    def _launch(self, stored: StoredRun, child: Child) -> None:
        """Insert a background task, or a run that continues another one and gets what was meant for it."""
        run = child.run
        if run.run_id not in self.database.runs:
            self._insert(run, child.blobs, claim=child.is_owned)
        if chains.predecessor_of(run.run_id) == stored.record.run_id:
            self.database.events.pass_on(stored.record.run_id, run.run_id)
            following = self._stored(run.run_id)
            following.record = replace(following.record, wish=following.record.wish or stored.record.wish)

    def _hold(self, stored: StoredRun, holds: Sequence[Hold]) -> None:
        for hold in holds:
            key = hold.path, hold.number
            if hold.state is HoldState.TIMED:
                stored.times.setdefault(key, Spending(hold.path, NOTHING, self._now(), inf))
            elif key not in stored.holds or stored.holds[key].state is not HoldState.SPENT:
                stored.holds[key] = replace(hold, shares=(), used=NOTHING, is_shared=hold.is_counted)

    def _act(self, stored: StoredRun, act: Act) -> None:
        stored.acts.append(replace(act, at=self._now()))

    def _can_go_on(self, stored: StoredRun) -> bool:
        """Return whether a run that is accepted, cut off or answered has no living owner."""
        record = stored.record
        waits = record.status in (RunStatus.ACCEPTED, RunStatus.RUNNING) or (
            record.status in AT_A_PAUSE
            and (stored.answered or (record.wish is not None and record.parent is not None))
        )
        return waits and self._is_unattended(stored)

    def _is_unattended(self, stored: StoredRun) -> bool:
        owner = stored.record.owner
        lapsed = stored.lease_until is None or stored.lease_until <= self._now()
        return owner is None or lapsed or owner_tokens.is_provably_dead(owner)

    def _executed_by(self, owner: str) -> int:
        """Return how many runs an owner executed, those that were taken from it included."""
        return sum(
            stored.taken_from == owner
            or (stored.record.owner == owner and stored.record.status is RunStatus.RUNNING)
            for stored in self.database.runs.values()
        )

    def _move(self, stored: StoredRun, move: Move) -> None:
        record = stored.record
        stored.record = replace(
            record,
            status=move.status,
            output=move.output,
            error=move.error,
            context_now=record.context_now if move.context is None else move.context,
            closure=record.closure if move.closure is None else move.closure,
            usage=record.usage if move.usage is None else move.usage,
            entries=record.entries if move.entries is None else move.entries,
            updated_at=self._now(),
        )
        self.database.outbox.add(record.run_id, move.notices, self._now())
        self.database.evaluations.keep(move.evaluations, self._now())
        if move.release:
            self._release(stored)
        if move.rest_s is not None and record.queued is not None:
            rested = replace(
                record.queued,
                available_at=self._now() + move.rest_s,
                tries=record.queued.tries + 1,
            )
            stored.record = replace(stored.record, queued=rested)
        if rules.voids_pauses(move.status):
            for pause_id, pause in stored.pauses.items():
                if pause.is_open:
                    stored.pauses[pause_id] = replace(pause, void=True)
        self._tell_family(record, move.status)

    def _tell_family(self, record: RunRecord, status: RunStatus) -> None:
        """Leave wishes for the tasks of a cancelled run, and settle the waits for a task that has ended."""
        if status is RunStatus.CANCELLED:
            for task in self._tasks_of(record.run_id):
                if task.record.status not in ENDS_OF_TASKS and task.record.wish is None:
                    wish = Wish(rules.CANCEL, rules.CANCELLED_WITH, self._now())
                    task.record = replace(task.record, wish=wish, updated_at=self._now())
                    self._tell(task)
        if status in ENDS_OF_TASKS and record.parent is not None:
            parent = self.database.runs.get(record.parent.run_id)
            if parent is not None:
                if status.is_settled:
                    self._settle_budget(record, parent, record.parent.path)
                self._wake(parent)

    def _settle_budget(self, task: RunRecord, parent: StoredRun, launch: StepPath) -> None:
        """Replace what was lent to a task by what it has used."""
        hold = parent.holds.get((launch, 1))
        if hold is not None and hold.state is HoldState.LENT:
            used = self._ledger(task.run_id).most
            parent.holds[launch, 1] = replace(hold, state=HoldState.SPENT, usage=used)

    def _wake(self, stored: StoredRun) -> None:
        """Settle the waits of a run whose background tasks have all ended."""
        for pause in list(stored.pauses.values()):
            if pause.awaits_tasks and pause.is_open and all(map(self._has_ended, pause.tasks)):
                self._settle(stored, pause, None)

    def _has_ended(self, task: str) -> bool:
        there = self.database.runs.get(RunId(task))
        return there is not None and there.record.status in ENDS_OF_TASKS

    def _tasks_of(self, run_id: RunId) -> list[StoredRun]:
        """Return the background tasks that a run has launched."""
        return [
            each
            for each in self.database.runs.values()
            if each.record.parent is not None and each.record.parent.run_id == run_id
        ]

    # Small things ----------------------------------------------------------------------------------------

    def _release(self, stored: StoredRun) -> None:
        stored.on_wish = None
        self.database.feeds.owners.pop(stored.record.run_id, None)
        stored.end_times(self._now())
        stored.record = replace(stored.record, owner=None)
        stored.lease_until = None

    def _record(self, stored: StoredRun) -> RunRecord:
        left = None if stored.lease_until is None else stored.lease_until - self._now()
        if left == stored.record.lease_left_s and stored.answered == stored.record.is_answered:
            return stored.record  # a lease without an end: one record for a run that waits, not two
        return replace(stored.record, lease_left_s=left, is_answered=stored.answered)

    def _listed(self, stored: StoredRun) -> RunRecord:
        """Return a run as a reader sees it, with its earliest deadline."""
        return replace(self._record(stored), deadline_at=stored.earliest_deadline())

    def _stored(self, run_id: RunId) -> StoredRun:
        stored = self.database.runs.get(run_id)
        if stored is None:
            raise rules.no_run(run_id)
        return stored

    def _check_open(self) -> None:
        if self._closed:
            raise StateBackendUnavailable("the store is closed")


def _group(record: RunRecord, by: RunGroup) -> str | None:
    match by:
        case RunGroup.STATUS:
            return str(record.status)
        case RunGroup.BLUEPRINT:
            return record.pipeline
        case RunGroup.USER:
            return record.user_id
