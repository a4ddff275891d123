"""Runs and journals in SQLite or Postgres: each method is a request to the writer, or a read."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar
from weakref import WeakKeyDictionary

from flujo.domain.forks import renew_in_children
from flujo.domain.key_counts import Rotated
from flujo.domain.personal_data import Pseudonyms
from flujo.domain.questions import CLAIMED_S
from flujo.domain.run import GivenAnswer, Pause, Progress, Purged
from flujo.domain.sent_events import KEPT_S
from flujo.exceptions import FlujoError, ResumeConflict, RunConflict
from flujo.governance.key_ring import NO_KEYS, KeyRing
from flujo.state import owner_tokens, rules
from flujo.state.leases import LEASE_S, RENEW_S, Leases
from flujo.state.listener import Listener
from flujo.state.queue_bell import QueueBell
from flujo.state.sql import acts as act_rows
from flujo.state.sql import (
    arrivals,
    erasure,
    events,
    feeds,
    key_rotation,
    listing,
    migrations,
    outbox,
    overwriting,
    person_runs,
    queries,
    queue,
    requests,
    retention,
    shared_budgets,
    workers,
)
from flujo.state.sql import evaluations as evaluation_rows
from flujo.state.sql import figures as figure_rows
from flujo.state.sql import questions as question_rows
from flujo.state.sql import schedules as schedule_rows
from flujo.state.sql import sessions as session_rows
from flujo.state.sql import tokens as token_rows
from flujo.state.sql.database import Database, Synchronous, is_postgres
from flujo.state.sql.encryption import ENCRYPTED
from flujo.state.sql.retry import ANSWER_S, RETRY_S
from flujo.state.sql.tables import SCHEMA
from flujo.state.sql_cache import SqlCache
from flujo.state.transactions import ON_POSTGRES_S, ON_SQLITE_S, LentWriter, OwnConnection
from flujo.state.wakes import wakes_of
from flujo.state.writer.batch import Batches
from flujo.state.writer.events import Send
from flujo.state.writer.readers import Readers
from flujo.state.writer.requests import Accept, Answer, Cancel, Claim, ClaimNext, Expire, Reserve
from flujo.state.writer.writer import Writer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence

    import sqlalchemy as sa

    from flujo.domain.access import Session, Token
    from flujo.domain.acts import Act, Actor, ActQuery
    from flujo.domain.erasure import Family, Proof, Subject
    from flujo.domain.evaluations import Evaluation, EvaluationQuery
    from flujo.domain.feed import FeedLine
    from flujo.domain.figures import Figure, FigureQuery
    from flujo.domain.journal import Entry, RunId
    from flujo.domain.key_counts import KeyCounts
    from flujo.domain.ledger import Hold, Ledger
    from flujo.domain.outbox import Message, MessageState, Tried
    from flujo.domain.paths import StepPath
    from flujo.domain.providers import Admission, Allowed
    from flujo.domain.questions import OpenQuestion, QuestionClaim, QuestionQuery
    from flujo.domain.queues import ClaimOrder, QueueState, WorkerRecord, WorkerState
    from flujo.domain.recorded_run import RecordedRun
    from flujo.domain.run import Due, Intent, NewRun, RunGroup, RunQuery, RunRecord, RunStatus, Write
    from flujo.domain.schedule_records import Changed, ScheduleChange, Schedules
    from flujo.domain.sent_events import Delivery, NewEvent, SentEvent
    from flujo.domain.shared_budgets import Counted
    from flujo.domain.transactions import Transaction

T = TypeVar("T")

_HEAR_AFTER_S = 0.2
"""How long a process waits until it listens to others: a short run needs no connection for that."""

MAX_READERS = 16
FILE_READERS = 2
"""Of a SQLite file: reading it is this process's own work, so more threads only take it from each other."""


class SqlStateStore:
    """A `StateStore` in a database.

    Nothing is opened before it is needed; a SQLite file is made and migrated at the first request. One
    thread writes (`writer`), a few read, and a connection is held only while a statement runs.

    A store may serve several event loops, one after another or at once: each waiter is woken in the loop it
    waits in, and leases are renewed for the runs of the loops that are alive. In a forked child it opens the
    database anew, at the first request there.

    Args:
        uri: `sqlite:///path` or `postgresql://user:password@host/database`.
        schema: the Postgres schema of the tables; SQLite has none.
        pool_min: how many Postgres connections stay open while they are idle.
        pool_max: how many there are at most, the writer's included; at least 2.
        synchronous: SQLite's own word; NORMAL may lose the last commits in a power cut.
        lease_s: after how long without renewal another process may take a run over.
        renew_s: how often leases are renewed; at most a third of `lease_s`.
        retry_s: how long a database may be away before waiters get `StateBackendUnavailable`.
        answer_s: how long Postgres may be silent before its connection is given up, which is one such moment.
        indexed_metadata: keys of the metadata that get an index in a SQLite file; nested keys have dots.
        keys: the keys that encrypt and decrypt values; by default values are stored as they are.
        now: the time of day in SQLite, in seconds since the epoch, for tests; leases do not go by it.

    Raises:
        SettingsError: the URI is not that of SQLite or Postgres, or `now` is given for Postgres.
    """

    def __init__(
        self,
        uri: str,
        *,
        schema: str = SCHEMA,
        pool_min: int = 1,
        pool_max: int = 5,
        synchronous: Synchronous = "FULL",
        lease_s: float = LEASE_S,
        renew_s: float = RENEW_S,
        retry_s: float = RETRY_S,
        answer_s: float = ANSWER_S,
        indexed_metadata: Sequence[str] = (),
        keys: KeyRing = NO_KEYS,
        now: Callable[[], float] | None = None,
    ) -> None:
        readers = max(1, min(MAX_READERS if is_postgres(uri) else FILE_READERS, pool_max - 1))
        connections = (min(max(2, pool_min), readers + 1), readers + 1)
        self.database = Database(
            uri,
            schema=schema,
            connections=connections,
            synchronous=synchronous,
            idle_s=max(1.0, lease_s / 3),
            answer_s=answer_s,
            indexed_metadata=indexed_metadata,
            keys=keys,
            now=now,
        )
        self._most_lent = readers
        """How many tools of an event loop may write to Postgres at once, each on a connection of its own."""
        self._lent: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
        self._wakes = wakes_of(f"{uri} {schema}")
        self._lease_s, self._renew_s, self._retry_s = lease_s, renew_s, retry_s
        reading: Any = partial(Readers, self.database, self._open, retry_s=retry_s)
        self._readers: Readers = reading(threads=max(1, readers - 1))
        # One reader asks about all runs that wait at once; a second one would only halve what it finds.
        self._together: Readers = reading(threads=1) if readers > 1 else self._readers
        # A thread of its own, because a feed must delay no read of a run; and without retries.
        self._feeds = Readers(self.database, self._open, threads=1, retry_s=0.0)
        # Another one, because reads may wait for a database that is away.
        self._probes = Readers(self.database, self._open, threads=1, retry_s=0.0)
        self._closed = False
        self._bell = QueueBell()
        self._listener = Listener(self.database, self._bell.ring, self._heard)
        self._renew()
        renew_in_children(self, type(self)._renew)

    def _renew(self) -> None:
        """Begin as a new owner that holds no run; in a forked child, whose runs are the parent's."""
        self.owner = owner_tokens.new_token()
        self._wakes.join(self.owner)
        self._leases = Leases(self.owner, self._lease_s, self._renew_s)
        self._batches = Batches(self.database, self._leases)
        self.writer = Writer(
            self.database,
            self._batches,
            self._leases,
            retry_s=self._retry_s,
            on_queued=self._bell.ring,
            on_settled=self._wakes.tell,
        )
        self._opening = threading.Lock()
        self._opened = False

    @classmethod
    async def open(cls, uri: str, **options: Any) -> Self:
        """Return a store whose database answers and has the schema that this Flujo needs.

        Raises:
            SchemaOutdated | SchemaTooNew: see `migrations`.
            KeyMissing | WrongKey: the newest run is encrypted with a key that `keys` does not have.
            StateBackendUnavailable: the database does not answer.
        """
        store = cls(uri, **options)
        try:
            await store._readers.in_thread(store._open)
        except BaseException:
            await store.aclose()
            raise
        return store

    def accept(self, run: NewRun, blobs: Mapping[str, bytes], *, claim: bool = True) -> Awaitable[RunRecord]:
        """Record a run and the blobs it needs; see the port."""
        rules.check_run(run)
        return self._begin(Accept(run, blobs, claim))

    def claim(
        self,
        run_id: RunId,
        *,
        statuses: Sequence[RunStatus],
        recovering: bool = False,
        act: Act | None = None,
        answer: GivenAnswer | None = None,
    ) -> Awaitable[RunRecord]:
        """Take a run over; see the port."""
        return self._begin(Claim(run_id, tuple(statuses), recovering, act, answer))

    async def cancel(self, run_id: RunId, actor: Actor) -> RunRecord:
        """Record the wish that a run be cancelled; see the port."""
        record: RunRecord = await self.writer.submit(Cancel(run_id, actor), asyncio.get_running_loop())
        return record

    def on_wish(self, run_id: RunId, callback: Callable[[], None]) -> None:
        """Call `callback` once there is a wish for a run that this store owns; see the port."""
        self._leases.on_wish(run_id, asyncio.get_running_loop(), callback)

    def _begin(self, request: Accept | Claim) -> Awaitable[RunRecord]:
        """Enqueue a request that begins a run; while the queue is full, it waits outside."""
        if self.writer.is_full:
            return self._begin_later(request)
        loop = asyncio.get_running_loop()
        self._leases.watch(loop)
        return self.writer.submit(request, loop)

    async def _begin_later(self, request: Accept | Claim) -> RunRecord:
        await self.writer.room()
        return await self._begin(request)

    def write(self, write: Write) -> Awaitable[bool]:
        """Enqueue a write; the awaitable returns when it is committed; see the port."""
        return self.writer.submit(write, asyncio.get_running_loop())

    async def reserve(self, run_id: RunId, fence: int, hold: Hold) -> None:
        """Write the hold of a request in budgets of several runs; see the port."""
        await self.writer.submit(Reserve(run_id, fence, hold), asyncio.get_running_loop())

    async def budget_counters(self) -> list[Counted]:
        """Return every counter of budgets that several runs share; see the port."""
        return await self.read(shared_budgets.counters)

    async def now(self) -> float:
        """Return the time of the database; see the port."""
        return await self.read(shared_budgets.now)

    async def probe(self) -> None:
        """Return when the database answers, without trying again; see the port."""
        await self._probes.answer(shared_budgets.now)

    def may_begin(self, run_id: RunId) -> bool:
        """Return whether the run's lease still lasts by this machine's clock; see the port."""
        return self._leases.lasts(run_id, asyncio.get_running_loop())

    def let_go(self, run_id: RunId) -> None:
        """Stop renewing the run's lease; see the port."""
        self._leases.let_go(run_id)

    @property
    def lends_writer(self) -> bool:
        """Whether a transaction of a tool keeps all other writes waiting: on SQLite."""
        return not self.database.is_postgres

    async def begin(self, run_id: RunId, timeout_s: float | None) -> Transaction:
        """Begin a transaction for one tool call; see the port."""
        if self.lends_writer:
            lent = LentWriter(self.writer, run_id, min(timeout_s or ON_SQLITE_S, ON_SQLITE_S))
            await lent.begun()
            return lent
        places = self._lent.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(self._most_lent))
        await places.acquire()
        own = OwnConnection(
            self.database,
            self._batches,
            self._readers.in_thread,
            timeout_s or ON_POSTGRES_S,
            places.release,
        )
        await own.begun()
        return own

    async def answer(
        self,
        run_id: RunId,
        pause_id: StepPath,
        answer: bytes,
        *,
        actor: Actor | None = None,
        seen: str | None = None,
    ) -> Pause:
        """Record an answer; the first one wins."""
        request = Answer(run_id, GivenAnswer(pause_id=pause_id, value=answer, actor=actor, seen=seen))
        pause: Pause = await self.writer.submit(request, asyncio.get_running_loop())
        return pause

    async def answer_all(self, answers: Sequence[tuple[RunId, GivenAnswer]]) -> list[Pause]:
        """Record the answers to questions of several runs in one commit; see the port."""
        return await self.write_apart(self._answer_all, [Answer(*each) for each in answers])

    def _answer_all(self, connection: sa.Connection, requests: Sequence[Answer]) -> list[Pause]:
        """Record answers inside a transaction, which ends without any of them when one is refused."""
        pauses = []
        for outcome in self._batches.apply(connection, requests).outcomes:
            if isinstance(outcome, FlujoError):
                raise outcome
            if isinstance(outcome, Pause):
                pauses.append(outcome)
        return pauses

    async def open_questions(self, query: QuestionQuery) -> list[OpenQuestion]:
        """Return the open questions of all runs; see the port."""
        rules.check_questions(query)
        return await self.read(question_rows.open_questions, query)

    async def claim_question(
        self, run_id: RunId, pause_id: StepPath, by: str, *, lives_s: float = CLAIMED_S, take: bool = False
    ) -> QuestionClaim:
        """Claim a question for a person; see the port."""
        claiming = partial(question_rows.claim, take=take)
        return await self.write_apart(claiming, run_id, pause_id, by, lives_s)

    async def release_question(self, run_id: RunId, pause_id: StepPath, by: str) -> bool:
        """End the claim of this person; see the port."""
        return await self.write_apart(question_rows.release, run_id, pause_id, by)

    async def escalate_question(self, run_id: RunId, pause_id: StepPath, by: str, reason: str) -> None:
        """Put a question before all others; see the port."""
        await self.write_apart(question_rows.escalate, run_id, pause_id, by, reason)

    async def send_event(self, event: NewEvent) -> Delivery:
        """Give an event to the wait that it is for, or keep it; see the port."""
        delivery: Delivery = await self.writer.submit(Send(event), asyncio.get_running_loop())
        return delivery

    async def kept_events(self, run_id: RunId, *, limit: int = 100) -> list[SentEvent]:
        """Return the events that are kept for a run; see the port."""
        waits = [pause for pause in await self.pauses(run_id) if pause.is_open and pause.event is not None]
        return await self.read(events.kept, run_id, waits, limit)

    async def event_waits(self, name: str, key: str, *, limit: int = 100) -> list[tuple[RunId, Pause]]:
        """Return the open waits for a name and a key; see the port."""
        return await self.read(events.waits, name, key, limit)

    async def delete_old_events(self, older_than_s: float, *, limit: int) -> int:
        """Delete events that no run has taken; see the port."""
        return await self.write_apart(events.delete_old, older_than_s, limit)

    def on_settled(self, callback: Callable[[RunId], None]) -> Callable[[], None]:
        """Call `callback` when a wait is settled; see the port."""
        end = self._wakes.on_settled(callback)
        if not self.database.is_postgres:
            return end
        hearing = asyncio.get_running_loop().call_later(_HEAR_AFTER_S, self._listener.begin)

        def ended() -> None:
            hearing.cancel()
            end()

        return ended

    def _heard(self, owner: str, run_id: RunId) -> None:
        if not self._wakes.has(owner):  # those of this process have woken what they should
            self._wakes.tell([run_id])

    async def watch(self, run_id: RunId) -> None:
        """Ask the owner of a run to write its feed; see the port."""
        await self._feeds.gathered(self.database.writing, feeds.watch, run_id)

    def on_watched(self, run_id: RunId, callback: Callable[[bool], None]) -> None:
        """Call `callback` when a run that this store owns becomes watched, or no longer is; see the port."""
        self._leases.on_watched(run_id, asyncio.get_running_loop(), callback)

    async def add_to_feed(self, run_id: RunId, fence: int, lines: Sequence[FeedLine]) -> None:
        """Add lines to the feed of a run; see the port."""
        await self._feeds.alone(self.database.writing, feeds.add, run_id, fence, lines)

    async def feed(self, run_id: RunId, *, after: int = 0) -> list[FeedLine]:
        """Return the feed of a run behind a number; see the port."""
        last = await self._feeds.together(feeds.last_numbers, run_id)
        if last is None or last <= after:
            return []
        return await self._feeds.alone(self.database.reading, feeds.lines_after, run_id, after)

    async def delete_old_feeds(self) -> None:
        """Delete the feeds of runs that their owners have left; see the port."""
        await self._feeds.alone(self.database.writing, feeds.delete_old)

    async def expire(self, run_id: RunId, pause_id: StepPath) -> Pause:
        """Settle a question whose deadline has passed; see the port."""
        request = Expire(run_id, pause_id)
        pause: Pause = await self.writer.submit(request, asyncio.get_running_loop())
        return pause

    async def due(
        self, *, pipeline: str | None = None, without: Collection[str] = (), limit: int = 100
    ) -> Due:
        """Return expired questions and runs without a living owner; see the port."""
        return await self.read(queries.due, pipeline, without, limit)

    async def claim_next(self, order: ClaimOrder) -> list[RunRecord]:
        """Claim the next runs of queues; see the port."""
        loop = asyncio.get_running_loop()
        self._leases.watch(loop)
        claimed: list[RunRecord] = await self.writer.submit(ClaimNext(order), loop)
        return claimed

    async def next_available(
        self, queues: Sequence[str], *, without: Collection[str] = (), suspects: bool | None = None
    ) -> float | None:
        """Return when the next run of queues can be claimed; see the port."""
        return await self.read(queue.next_available, queues, without, suspects, self._batches.lapses)

    def on_queued(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when a run has come into a queue; see the port."""
        end = self._bell.add(callback)
        self._listener.begin()  # it calls everything that is there once it listens
        return end

    async def queue_states(self) -> list[QueueState]:
        """Return the queues that have runs which have not ended."""
        return await self.read(queue.states)

    async def report_worker(self, worker: WorkerRecord) -> WorkerState:
        """Record a sign of life of a worker; see the port."""
        return await self.write_apart(workers.report, replace(worker, owner=self.owner))

    async def set_worker_state(self, owner: str, state: WorkerState) -> bool:
        """Set the state of a worker; see the port."""
        return await self.write_apart(workers.set_state, owner, state)

    async def forget_worker(self) -> None:
        """Remove this store's worker from the list."""
        await self.write_apart(workers.forget, self.owner)

    async def workers(self) -> list[WorkerRecord]:
        """Return the living workers; see the port."""
        return await self.read(workers.living)

    async def run(self, run_id: RunId) -> RunRecord:
        """Return a run."""
        found = await self._together.together(queries.records, run_id)
        if found is None:
            raise rules.no_run(run_id)
        return found

    async def find(self, text: str) -> RunRecord:
        """Return the run that a user means: an id, a unique prefix of one, or `@last`."""
        return await self._found(queries.records, text)

    async def find_with_progress(self, text: str) -> tuple[RunRecord, Progress | None]:
        """Return the run that a user means, and its progress; see the port."""
        return await self._found(queries.with_progress, text)

    async def _found(self, ask: Callable[[sa.Connection, Sequence[str]], Mapping[str, T]], text: str) -> T:
        """Return what `ask` gives for the run that a user means."""
        if not text or "\x00" in text:
            raise rules.no_run(text)
        run_id = await self.read(queries.newest) if text == queries.LAST else text
        found = await self._together.together(ask, run_id)
        if found is None:
            run_id = await self.read(queries.beginning_with, text)
            found = await self._together.together(ask, run_id)
        if found is None:
            raise rules.no_run(text)
        return found

    async def runs(self, query: RunQuery) -> list[RunRecord]:
        """Return the runs that match; see the port."""
        rules.check_query(query)
        return await self.read(listing.matching, query)

    async def count_runs(self, query: RunQuery, by: RunGroup) -> dict[str | None, int]:
        """Return how many runs match, in each group; see the port."""
        rules.check_query(query)
        return await self.read(listing.counted, query, by)

    async def entries(
        self,
        run_id: RunId,
        *,
        parent: StepPath | None = None,
        paths: Collection[StepPath] | None = None,
        after: int = 0,
    ) -> list[Entry]:
        """Return the journal in order: all of it, a part, a level, or some paths; see the port."""
        if paths is not None:
            return await self.read(queries.entries_at, run_id, paths)
        if parent is not None:
            return await self.read(queries.entries, run_id, parent, after)
        lend = partial(self.database.reading, moment=True)
        return await self._readers.alone(lend, queries.entries, run_id, parent, after)

    async def progress(self, run_id: RunId) -> Progress:
        """Return how far the run's journal goes, and the usage summed over its entries."""
        return await self._together.together(queries.progress, run_id) or Progress()

    async def ledger(self, run_id: RunId) -> Ledger:
        """Return what each attempt used and when, and what is held back of the run's budget."""
        return await self.read(queries.ledger, run_id)

    async def pauses(self, run_id: RunId) -> list[Pause]:
        """Return the questions of a run, in the order in which they were opened."""
        return await self._together.together(queries.questions, run_id) or []

    async def open_pauses(self, run_id: RunId) -> list[Pause]:
        """Return the questions and waits of a run that are open; see the port."""
        return await self._together.together(queries.open_questions, run_id) or []

    async def intents(self, run_id: RunId) -> list[Intent]:
        """Return the calls that a run has announced."""
        return await self.read(queries.calls, run_id)

    async def acts(self, run_id: RunId) -> list[Act]:
        """Return who changed a run, in order."""
        return await self.read(queries.acts_of, run_id)

    async def blobs(self, digests: Sequence[str]) -> dict[str, bytes]:
        """Return content-addressed blobs."""
        return await self.read(queries.contents, digests)

    async def import_runs(self, runs: Sequence[RecordedRun], *, actor: Actor, origin: str) -> list[RunId]:
        """Take over runs of another database; see the port."""
        return await self.write_apart(arrivals.take_over, runs, actor, origin)

    async def schedules(self) -> Schedules:
        """Return every schedule, and the database's time."""
        return await self.read(schedule_rows.all_schedules)

    async def change_schedule(self, change: ScheduleChange) -> Changed:
        """Make a change of one schedule; see the port."""
        if change.run is not None:
            rules.check_run(change.run)
        return await self.write_apart(schedule_rows.change, change, self._accept_scheduled)

    def _accept_scheduled(self, connection: sa.Connection, change: ScheduleChange) -> bool:
        """Accept the run of a change inside its transaction; return whether its id was free."""
        assert change.run is not None  # noqa: S101 - for the type checker; the caller has looked
        [outcome] = self._batches.apply(connection, [Accept(change.run, change.blobs, claim=False)]).outcomes
        if isinstance(outcome, FlujoError) and not isinstance(outcome, ResumeConflict | RunConflict):
            raise outcome
        return not isinstance(outcome, FlujoError)

    def cache(self) -> SqlCache:
        """Return a cache in the same database."""
        return SqlCache(self.database, self._readers)

    async def admit_request(
        self, provider: str, tokens: int, allowed: Allowed, *, span_s: float = 60.0
    ) -> Admission:
        """Count a request to a provider if its limits allow it; see the port."""
        return await self.write_apart(requests.admit, provider, tokens, allowed, span_s)

    async def settle_request(self, provider: str, ticket: int, tokens: int | None) -> None:
        """Replace the tokens of a counted request; see the port."""
        await self.write_apart(requests.settle, provider, ticket, tokens)

    async def take_turn(self, duty: str, every_s: float) -> bool:
        """Return whether this store does a duty of all processes now; see the port."""
        return await self.write_apart(retention.take_turn, duty, every_s)

    async def count_purgeable(self, statuses: Sequence[RunStatus], older_than_s: float) -> int:
        """Return how many runs `purge` would delete."""
        return await self.read(retention.count_runs, statuses, older_than_s)

    async def purge(
        self, statuses: Sequence[RunStatus], older_than_s: float, *, batch: int, actor: Actor | None = None
    ) -> AsyncIterator[Purged]:
        """Delete what is old, and yield the totals after each batch; see the port."""
        gone = Purged()
        async for count in self._purge_runs(statuses, older_than_s, batch, actor):
            yield (gone := replace(gone, runs=gone.runs + count))
        while count := await self.write_apart(retention.delete_stale_answers, batch):
            yield (gone := replace(gone, answers=gone.answers + count))
        while count := await self.write_apart(retention.delete_messages, batch):
            yield (gone := replace(gone, messages=gone.messages + count))
        while count := await self.delete_old_events(KEPT_S, limit=batch):
            yield (gone := replace(gone, events=gone.events + count))
        await self.delete_old_feeds()
        while await self.write_apart(session_rows.delete_expired, batch):
            pass
        while await self.write_apart(retention.delete_logins, batch):
            pass
        unnamed = await self.read(retention.unnamed_blobs)
        for start in range(0, len(unnamed), batch):
            count = await self.write_apart(retention.delete_blobs, unnamed[start : start + batch])
            yield (gone := replace(gone, contents=gone.contents + count))

    async def _purge_runs(
        self, statuses: Sequence[RunStatus], older_than_s: float, batch: int, actor: Actor | None
    ) -> AsyncIterator[int]:
        """Delete old runs; yield after each transaction how many of them no reader finds any more."""
        entries = batch * retention.ENTRIES_OF_A_RUN
        while await self.write_apart(retention.delete_part, entries):  # what an interrupted purge has left
            yield 0
        for status in statuses:
            place: retention.Place | None = retention.Place()
            while place is not None:
                deleted = await self.write_apart(
                    retention.delete_runs, status, statuses, older_than_s, batch, entries, place, actor
                )
                if deleted.runs:
                    yield deleted.runs
                while deleted.are_in_parts and await self.write_apart(retention.delete_part, entries):
                    yield 0
                place = deleted.place

    async def families_of(self, subject: Subject) -> list[Family]:
        """Return the runs of a person, by families; see the port."""
        return await self.read(person_runs.families, subject)

    async def erase_runs(
        self, subject: Subject, run_ids: Sequence[RunId], *, actor: Actor, cancel_paused: bool
    ) -> int:
        """Delete runs of a person; see the port."""
        left, gone, most = list(run_ids), 0, erasure.ENTRIES
        while left:
            erased = await self.write_apart(erasure.erase_runs, subject, left, actor, cancel_paused, most)
            left, gone = left[erased.taken :], gone + erased.runs
            for run_id in erased.in_parts:
                while await self.write_apart(erasure.erase_part, subject, run_id, actor, most):
                    pass
        return gone

    async def finish_erasure(self, subject: Subject, *, actor: Actor, vacuum_full: bool) -> Proof:
        """Delete the rest, overwrite freed space, and record the proof; see the port."""
        unnamed = await self.read(retention.unnamed_blobs)
        for start in range(0, len(unnamed), person_runs.CHUNK):
            await self.write_apart(retention.delete_blobs, unnamed[start : start + person_runs.CHUNK])
        await self.write_apart(erasure.erase_rest, subject, actor)
        is_overwritten = await self.overwrite_freed_space(vacuum_full=vacuum_full)
        return await self.write_apart(erasure.prove, subject, actor, is_overwritten)

    async def overwrite_freed_space(self, *, vacuum_full: bool) -> bool:
        """Rewrite the files; see the port."""
        lend, schema = self.database.reading, self.database.schema
        if schema is None:
            await self._readers.alone(lend, overwriting.rewrite_file)
            await self._readers.alone(lend, overwriting.empty_log)
        elif vacuum_full:
            await self._readers.alone(lend, overwriting.rewrite_tables, schema)
        return schema is None or vacuum_full

    def pseudonyms(self, run_id: RunId) -> Pseudonyms | None:
        """Return what makes the pseudonyms of a run, by the key that encrypts; see `PseudonymStore`."""
        secret = self.database.keys.derived(f"pseudonyms {run_id}")
        return None if secret is None else Pseudonyms(secret)

    async def values_by_key(self) -> KeyCounts:
        """Count the values of the database by their keys; see the port."""
        return await self.read(key_rotation.count)

    async def rotate_keys(self, *, batch: int, actor: Actor) -> AsyncIterator[Rotated]:
        """Encrypt each value with the first key; see the port."""
        done = Rotated()
        for of in ENCRYPTED.values():
            after: tuple[Any, ...] | None = None
            while True:
                rows = await self.read(key_rotation.old_rows, of, after, batch)
                if not rows:
                    break
                after = rows[-1]
                yield (done := done + await self.write_apart(key_rotation.rotate, of, rows))
        await self.write_apart(key_rotation.record, done, actor)

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
        return await self.read(outbox.messages, states, target, run_id, ids, limit)

    async def take_messages(self, targets: Collection[str], *, lease_s: float, limit: int) -> list[Message]:
        """Take due messages; see the port."""
        if not await self.read(outbox.is_due, targets):
            return []
        return await self.write_apart(outbox.take, targets, self.owner, lease_s, limit)

    async def settle_message(self, message: Message, tried: Tried) -> bool:
        """Record the result of a try; see the port."""
        return await self.write_apart(outbox.settle, message, tried)

    async def redeliver(self, ids: Collection[int]) -> int:
        """Make messages due at once; see the port."""
        return await self.write_apart(outbox.redeliver, ids)

    async def add_evaluations(self, evaluations: Sequence[Evaluation], *, acts: Sequence[Act] = ()) -> None:
        """Record scores and the acts that lead to them; see the port."""
        await self.write_apart(evaluation_rows.add, self._batches.statements, evaluations, acts)

    async def evaluations(self, query: EvaluationQuery) -> list[Evaluation]:
        """Return the evaluations that match, the newest first; see the port."""
        return await self.read(evaluation_rows.matching, query)

    async def figures(self, query: FigureQuery) -> list[Figure]:
        """Return the figures, by period and then by name; see the port."""
        return await self.read(figure_rows.found, query)

    async def recorded_acts(self, query: ActQuery) -> list[Act]:
        """Return the acts that match, the newest first; see the port."""
        return await self.read(act_rows.matching, query)

    async def record_act(self, act: Act) -> None:
        """Record an act that changes nothing else; see the port."""
        await self.write_apart(act_rows.add, act)

    async def add_token(self, token: Token, actor: Actor, *, lives_s: float | None = None) -> Token:
        """Record a token and the act; see the port."""
        return await self.write_apart(token_rows.add, token, actor, lives_s)

    async def revoke_token(self, name: str, actor: Actor) -> Token:
        """Revoke a token and record the act; see the port."""
        return await self.write_apart(token_rows.revoke, name, actor)

    async def token(self, digest: bytes) -> Token | None:
        """Return the token with this digest if it is valid now; see the port."""
        return await self.read(token_rows.valid, digest)

    async def tokens(self) -> list[Token]:
        """Return every token by name; see the port."""
        return await self.read(token_rows.all_tokens)

    async def begin_session(
        self, session: Session, actor: Actor, *, lives_s: float, details: bytes | None = None
    ) -> Session:
        """Record a login and the act; see the port."""
        return await self.write_apart(session_rows.begin, session, actor, lives_s, details)

    async def session(self, digest: bytes) -> Session | None:
        """Return the session with this digest if it is valid now; see the port."""
        return await self.read(session_rows.valid, digest)

    async def end_session(self, digest: bytes, actor: Actor) -> None:
        """Delete a session and record the act; see the port."""
        await self.write_apart(session_rows.end, digest, actor)

    async def aclose(self) -> None:
        """Commit the enqueued writes, release every lease, and close. Idempotent."""
        loop = asyncio.get_running_loop()
        self._leases.stop_watching(loop)
        if not self._closed:
            self._closed = True
            # Shielded: a cancelled caller stops waiting, while the thread still finishes its commit.
            await asyncio.shield(asyncio.ensure_future(self._readers.in_thread(self._close)))

    def _close(self) -> None:
        self._listener.close()
        self.writer.close()
        self._readers.close()
        self._together.close()
        self._feeds.close()
        self._probes.close()
        self.database.dispose()

    async def read(self, question: Callable[..., T], *arguments: Any) -> T:
        """Return what `question(connection, *arguments)` gives, on a connection for reading."""
        return await self._readers.answer(question, *arguments)

    async def write_apart(self, change: Callable[..., T], *arguments: Any) -> T:
        """Return what `change(connection, *arguments)` gives, in a transaction apart from runs and journals.

        It must be safe to make twice: it is tried again when a connection has died.
        """
        return await self._readers.alone(self.database.writing, change, *arguments)

    def _open(self) -> None:
        with self._opening:
            # The writer has connected before, so the database exists: wait for it when it is away.
            if not self._opened and not self.writer.has_opened:
                migrations.ensure_current(self.database)
                with self.database.reading() as connection:
                    key_rotation.check_newest(connection)
            self._opened = True
