"""The one writer of a database: all waiting requests become the next transaction, so one commit serves all.

There is no timer: the next batch gathers while a transaction is being committed. Cancelling a waiter does not
undo its request, because the commit does not happen in its task. When a batch fails, its requests are retried
one by one, so that a bad row fails for its own waiter alone. If the thread fails, so does every request.

A thread does the work, except for a lone step: when its event loop has nothing else to write and commits are
fast, the loop commits it at the end of its turn, which saves two switches of threads, and the next few lone
steps as they are submitted. `_is_lone` decides.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import sqlalchemy as sa
from sqlalchemy import exc

from flujo.domain.forks import renew_in_children
from flujo.domain.process_counts import COUNTS
from flujo.domain.run import Write
from flujo.exceptions import FlujoError, StateBackendUnavailable, StateError
from flujo.state import rules
from flujo.state.leases import elapsed_s
from flujo.state.sql import lost_commits, metadata_indexes, migrations
from flujo.state.sql.database import Database, begin_write
from flujo.state.sql.retry import OPENING_RETRY_S, RETRY_S, Backoff
from flujo.state.writer.batch import Applied
from flujo.state.writer.events import Send
from flujo.state.writer.requests import Accept, Claim, ClaimNext, Lend

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from flujo.domain.journal import RunId
    from flujo.state.leases import Leases
    from flujo.state.writer.batch import Batches
    from flujo.state.writer.requests import Outcome, Request

MAX_BATCH = 512
MAX_BACKLOG = 4 * MAX_BATCH
"""How many requests may wait to be written before new runs have to wait outside."""

FAST_S = 0.001
"""An event loop commits while a commit takes less than this on average: as long as it may stand still."""

AT_ONCE = 3
"""How many lone steps an event loop commits between two turns, beside the one at the end of a turn."""

_CLOSING_RETRY_S = 2.0


class Waiter(Protocol):
    """A task that waits in an event loop for the outcome of work in a thread."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the future."""
        ...

    @property
    def future(self) -> asyncio.Future[Any]:
        """Gets the outcome."""
        ...


def wake(settled: Iterable[tuple[Waiter, Any]]) -> None:
    """Set each waiter's outcome (an exception is raised there), with one call into each loop.

    Called from a thread, outside the loops.
    """
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Waiter, Any]]] = {}
    for waiter, outcome in settled:
        by_loop.setdefault(waiter.loop, []).append((waiter, outcome))
    for loop, mine in by_loop.items():
        try:
            loop.call_soon_threadsafe(_deliver, mine)
        except RuntimeError:
            continue  # the loop is closed, and its waiters with it


def _deliver(settled: Sequence[tuple[Waiter, Any]]) -> None:
    """Set the futures, in their own loop; a cancelled one is left alone."""
    for waiter, outcome in settled:
        if waiter.future.done():
            continue
        if isinstance(outcome, Exception):
            waiter.future.set_exception(outcome)
            waiter.future.exception()  # else asyncio logs it when the waiter is gone
        else:
            waiter.future.set_result(outcome)


@dataclass(slots=True)
class Job:
    """A request and its waiter."""

    request: Request
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    is_taken: bool = False
    """Whether it has left the queue."""


class Pace:
    """How long a commit takes: the moving average over about the last ten, wherever they were made.

    It begins where a single fast commit makes it fast.
    """

    def __init__(self) -> None:
        self.average_s = FAST_S

    @property
    def is_fast(self) -> bool:
        """Whether an event loop may wait for a commit.

        One commit of 100 ms makes this false until about twenty fast ones have followed it in the thread.
        """
        return self.average_s < FAST_S

    def took(self, seconds: float) -> None:
        """Count a commit."""
        self.average_s += 0.1 * (seconds - self.average_s)


class Writer:
    """Commits requests in the order in which they come.

    Args:
        database: which it opens, and migrates when it is a SQLite file.
        batches: what a batch does.
        leases: renewed and released by this thread.
        retry_s: how long it tries again when the database is away.
        on_queued: called after a commit with which a run has come into a queue.
        on_settled: called after a commit that has settled waits, with their runs.
    """

    def __init__(
        self,
        database: Database,
        batches: Batches,
        leases: Leases,
        *,
        retry_s: float = RETRY_S,
        on_queued: Callable[[], None] = lambda: None,
        on_settled: Callable[[Collection[RunId]], None] = lambda _: None,
    ) -> None:
        self.commits = 0
        """How many transactions of requests were committed: what group commit saves shows here."""
        self.lone_commits = 0
        """How many of them were lone steps, committed in their event loops."""
        self._database = database
        self._batches = batches
        self._leases = leases
        self._retry_s = retry_s
        self._on_queued = on_queued
        self._on_settled = on_settled
        self.max_backlog = MAX_BACKLOG
        self.pace = Pace()
        self._waiting: deque[Job] = deque()
        self._newest: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Future[Any]] = WeakKeyDictionary()
        self._at_work = threading.Lock()
        """Held by the thread or the event loop that uses the connection and the batch."""
        self._batch: list[Job] = []
        """The requests that are being committed."""
        self._at_once = 0
        """How many of the next steps are committed as they are submitted, while each of them is alone."""
        self._connection: sa.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._generation: object = None
        self._is_patient = True
        """Whether the connection waits for other processes; in an event loop it does not."""
        self._schema_checked = False
        self._since = elapsed_s()
        """When the newest try began: leases that it renews have been running for no longer."""
        self._unresolved: Applied | None = None
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        """Wakes the thread. An `Event` has a lock that the thread would wait for once more when it wakes."""
        self._is_idle = False
        """Whether the thread has nothing to do."""
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="flujo-writer", daemon=True)
        self._starting = threading.Lock()
        self._started = False
        self._ended = threading.Event()
        self._failure: BaseException | None = None
        """What ended the thread before it was closed."""
        renew_in_children(self, Writer._forget)

    def _forget(self) -> None:
        """Leave the waiting requests to the parent; in a forked child."""
        self._waiting.clear()
        self._batch.clear()

    def submit(self, request: Request, loop: asyncio.AbstractEventLoop) -> asyncio.Future[Any]:
        """Enqueue a request; the future gets its outcome after the commit. Called inside the loop.

        Raises:
            StateError: the store is closed, or the thread has stopped.
        """
        if self._closing.is_set() or self._ended.is_set():
            raise self._refusal()
        if not self._started:
            self._start()
        job = Job(request, loop, loop.create_future())
        self._waiting.append(job)
        self._newest[loop] = job.future
        if self._ended.is_set():  # since the check above, so the thread may not have seen the request
            self._refuse_waiting()
        elif not self._is_lone(job):
            self._at_once = 0
            self._ring()
        elif self._at_once:
            self._at_once -= 1
            self._commit_here(job)
        else:
            loop.call_soon(self._end_turn, job)  # behind all that may still be submitted in this turn
        return job.future

    def _is_lone(self, job: Job) -> bool:
        """Return whether a request may be committed in its event loop: here and nowhere else it is decided.

        It must be a step alone (entries, which may be written twice), on an open connection, in a database
        that was fast lately, and the thread must be idle. Everything else is left to the thread. Without the
        lock the answer is a guess, because the thread may take the request at any moment.
        """
        return (
            self._is_idle
            and len(self._waiting) == 1
            and not job.is_taken
            and self.pace.is_fast
            and isinstance(job.request, Write)
            and job.request.is_append
            and bool(job.request.entries)
            and self._connection is not None
            and self._generation is self._database.generation
            and self._unresolved is None
            and not self._database.use.is_paused
            and not self._closing.is_set()
        )

    def _end_turn(self, job: Job) -> None:
        """Commit the only request of this turn of an event loop, or wake the thread for what there is.

        The thread looks at the waiting requests each second while runs are executed, so it does not depend on
        the end of a turn.
        """
        if self._commit_here(job):
            self._at_once = AT_ONCE

    def _commit_here(self, job: Job) -> bool:
        """Commit a lone step in its event loop, and return whether it is settled; if not, wake the thread.

        The lock is never waited for, because it may be held by another loop.
        """
        is_settled = False
        if self._at_work.acquire(blocking=False):
            try:
                if self._is_lone(job) and not self._batch:
                    self._gather()
                    outcomes = self._attempt([job.request], careful=False, patient=False).outcomes
                    self.lone_commits += 1
                    self._settle(outcomes, _deliver)
                    is_settled = True
            except Exception:  # noqa: BLE001, S110 - the thread tries again, and reports what it meets
                pass
            finally:  # also when a signal's handler has raised
                self._at_work.release()
                self._ring()
        else:
            self._ring()
        return is_settled

    def _ring(self) -> None:
        """Wake the thread if there is something to do."""
        if (self._waiting or self._batch) and self._bell.empty():
            self._bell.put(None)

    def _start(self) -> None:
        with self._starting:  # two event loops may send their first requests at once
            if not self._started:
                self._started = True
                self._thread.start()

    @property
    def has_opened(self) -> bool:
        """Whether the database has answered, and has the schema that is needed."""
        return self._schema_checked

    @property
    def is_full(self) -> bool:
        """Whether too much is waiting to be written.

        Only who begins something asks. A run that is being executed waits for each of its writes anyway,
        and making it queue twice would only exchange its entries.
        """
        return len(self._waiting) >= self.max_backlog

    async def room(self) -> None:
        """Wait while too much is waiting to be written."""
        loop = asyncio.get_running_loop()
        while self.is_full:
            newest = self._newest.get(loop)
            if newest is None or newest.done():
                return
            await asyncio.wait([newest])

    def close(self) -> None:
        """Commit the enqueued writes, release the leases, and end the thread; blocks. Idempotent."""
        self._closing.set()
        if self._started:
            self._bell.put(None)
            self._thread.join()

    # The thread ------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._serve()
        except BaseException as error:  # noqa: BLE001 - whatever ended the loop, no waiter may hang
            self._failure = error
        self._ended.set()
        self._refuse_waiting()
        self._disconnect()

    def _serve(self) -> None:
        closed = False
        while not closed:
            self._sleep()
            with self._at_work:
                closed = self._take_turn()
        self._about_leases(self._leases.give_back, self._leases.end())

    def _sleep(self) -> None:
        """Wait for requests, no longer than until leases must be renewed or wishes looked for."""
        patience = min(self._leases.seconds_to_renewal(), self._leases.seconds_to_look())
        self._is_idle = not (self._waiting or self._batch)
        if self._is_idle:
            with suppress(queue.Empty):
                self._bell.get(timeout=patience)
        self._is_idle = False

    def _take_turn(self) -> bool:
        """Commit one batch of the waiting requests, and do what is due; return whether this was the end."""
        self._gather()
        if self._batch:
            self._settle(self._outcomes([job.request for job in self._batch]), wake)
        if not self._leases.seconds_to_renewal():
            self._renew()
        if not self._leases.seconds_to_look():
            self._look_for_wishes()
        return self._closing.is_set() and not self._waiting

    def _refuse_waiting(self) -> None:
        """Fail every request that the thread will not serve any more."""
        with self._at_work:
            unserved, self._batch = self._batch, []
            while self._waiting:
                unserved.append(self._waiting.popleft())
        wake((job, self._refusal()) for job in unserved)

    def _refusal(self) -> StateError:
        """Return why no request is accepted any more; one error for each waiter, which adds its traceback."""
        failure = self._failure
        if failure is None:
            return StateBackendUnavailable("the store is closed", hint="open another one")
        stopped = StateError(
            f"the writer has stopped: {type(failure).__name__}: {failure}",
            hint="restart this process and resume its runs; committed steps are not lost",
        )
        stopped.__cause__ = failure
        return stopped

    def _gather(self) -> None:
        """Fill the batch from the waiting requests.

        A batch holds requests of one kind for each run: a claim behind a write of the same run begins the
        next batch, so that the order within a run is kept. Some requests are a batch of their own.
        """
        kinds: dict[str, type] = {job.request.run_id: type(job.request) for job in self._batch}
        while self._waiting and len(self._batch) < MAX_BATCH:
            request = self._waiting[0].request
            if self._batch and (_is_apart(request) or _is_apart(self._batch[0].request)):
                return
            if kinds.setdefault(request.run_id, type(request)) is not type(request):
                return
            # In this order, so that a signal's handler that raises here leaves no request out.
            self._batch.append(self._waiting[0])
            self._waiting.popleft().is_taken = True

    def _settle(
        self, outcomes: Sequence[Outcome], deliver: Callable[[list[tuple[Job, Outcome]]], None]
    ) -> None:
        """Deliver the outcomes of the batch, and end it."""
        settled = list(zip(self._batch, outcomes, strict=True))
        for job, outcome in settled:
            self._note(job, outcome)
        COUNTS.requests += len(settled)
        COUNTS.commits += 1
        deliver(settled)
        self._batch = []

    def _outcomes(self, requests: Sequence[Request]) -> Sequence[Outcome]:
        if isinstance(requests[0], Lend):
            return [self._lent(requests[0])]
        try:
            return self._with_retries(requests, careful=False)
        except StateBackendUnavailable as error:
            return [error] * len(requests)
        except Exception:  # noqa: BLE001 - whatever one row can cause must not end the thread that serves all
            return [self._alone(request) for request in requests]

    def _lent(self, lend: Lend) -> Outcome:
        """Let a tool write in a transaction of this thread; its connection is not lent twice."""
        try:
            with self._database.use, self._database.errors():
                try:
                    connection = self._connected()
                    transaction = begin_write(connection)
                    lend.serve(connection, lambda write: self._commit_lent(connection, transaction, write))
                finally:
                    self._roll_back()
        except FlujoError as error:
            return error
        except Exception as error:  # noqa: BLE001 - no transaction may end the thread that serves all
            failed = StateError(f"the transaction of a tool of run {lend.run_id} failed: {error}")
            failed.__cause__ = error
            return failed
        return True

    def _commit_lent(self, connection: sa.Connection, transaction: sa.RootTransaction, write: Write) -> None:
        """Commit a write in the transaction that a tool has written in.

        Raises:
            Fenced: another process executes the run.
        """
        with self._database.errors():
            [outcome] = self._batches.apply(connection, [write]).outcomes
            if isinstance(outcome, FlujoError):
                raise outcome
            try:
                transaction.commit()
            except exc.IntegrityError as error:
                raise rules.refused_commit(error.orig) from error
        self._batches.holes.succeeded(write)
        self.commits += 1

    def _alone(self, request: Request) -> Outcome:
        try:
            outcome = self._with_retries([request], careful=True)[0]
        except FlujoError as error:
            outcome = error
        except Exception as error:  # noqa: BLE001 - as above
            outcome = StateError(f"the request for run {request.run_id} could not be written: {error}")
            outcome.__cause__ = error
        if isinstance(request, Write) and isinstance(outcome, FlujoError):
            self._batches.holes.failed(request, outcome)  # before the next of the batch is tried
        return outcome

    def _with_retries(self, requests: Sequence[Request], *, careful: bool) -> Sequence[Outcome]:
        """Return the outcomes of a committed batch; try again while the database is away."""
        patience = Backoff(self._retry_s if self._schema_checked else min(self._retry_s, OPENING_RETRY_S))
        while True:
            try:
                return self._attempt(requests, careful=careful).outcomes
            except StateBackendUnavailable as error:
                careful = True  # what was sent last may have been committed although the answer got lost
                if self._closing.is_set():
                    patience.shorten(_CLOSING_RETRY_S)
                delay = patience.next_delay(error)
                if delay is None:
                    self._unresolved = None
                    raise
            self._closing.wait(delay) if not self._closing.is_set() else time.sleep(delay)

    def _attempt(self, requests: Sequence[Request], *, careful: bool, patient: bool = True) -> Applied:
        """Commit a batch, in the thread or in an event loop, whichever holds the lock."""
        self._since = elapsed_s()
        with self._database.use, self._database.errors():
            began = 0.0
            try:
                connection = self._connected(patient=patient)
                if resolved := self._resolve(connection, requests):
                    return resolved
                began = time.monotonic()
                appended = None if careful else self._batches.append(connection, requests)
                if appended:
                    self.commits += 1
                    return Applied([False] * len(requests))
                transaction = begin_write(connection)
                careful = careful or appended is not None
                applied = self._batches.apply(connection, requests, careful=careful)
                self._commit(transaction, applied)
            except BaseException:
                self._roll_back()
                raise
            finally:
                if began:
                    self.pace.took(time.monotonic() - began)
            self.commits += 1
            return applied

    def _commit(self, transaction: sa.RootTransaction, applied: Applied) -> None:
        try:
            transaction.commit()
        except exc.DBAPIError as error:
            # Postgres may have committed before the connection broke; the next connection finds out.
            self._unresolved = applied if error.connection_invalidated and applied.transaction_id else None
            raise
        if applied.fills_queue:
            self._on_queued()
        if applied.settled:
            self._on_settled(applied.settled)

    def _resolve(self, connection: sa.Connection, requests: Sequence[Request]) -> Applied | None:
        """Return what a COMMIT whose answer got lost has applied; None when there is none."""
        unresolved = self._unresolved
        if unresolved is None:
            return None
        tables, run_ids = self._database.table_prefix, [each.run_id for each in requests]
        claimed = (each for each in unresolved.outcomes if isinstance(each, list))
        run_ids += [record.run_id for records in claimed for record in records]
        is_there = lost_commits.was_committed(connection, tables, unresolved.transaction_id, run_ids)
        self._unresolved = None
        return unresolved if is_there else None

    # Connections -----------------------------------------------------------------------------------------

    def _connected(self, *, patient: bool = True) -> sa.Connection:
        if not self._schema_checked:
            migrations.ensure_current(self._database)
            metadata_indexes.ensure(self._database)
            self._schema_checked = True
        if self._connection is not None and self._generation is not self._database.generation:
            self._connection.invalidate()  # this process has forked
            self._disconnect()
        if self._connection is None:
            self._generation = self._database.generation
            self._connection, self._is_patient = self._database.connect(), True
            self._file = self._database.file_id()
        elif self._database.file_id() != self._file:  # SQLite would write to a file without a name
            raise StateBackendUnavailable(
                f"the database {self._database.shown} was deleted or replaced while it was in use",
                hint="put the file back, then start again; steps recorded in the meantime are not in it",
                retryable=False,
            )
        if patient is not self._is_patient:
            self._database.set_patience(self._connection, patient=patient)
            self._is_patient = patient
        return self._connection

    def _roll_back(self) -> None:
        """Leave no transaction open; a connection that cannot even do that is dropped."""
        connection = self._connection
        if connection is None:
            return
        try:
            with self._database.errors():
                connection.rollback()
                connection.connection.rollback()  # of what was not begun through SQLAlchemy
        except (exc.SQLAlchemyError, StateError):
            connection.invalidate()
        if connection.invalidated:
            self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # a connection that cannot even be closed is gone already
                connection.close()

    def _renew(self) -> None:
        since, ids = elapsed_s(), self._leases.begin_renewal()
        if self._about_leases(self._leases.renew, ids):
            self._leases.renewed(ids, since)

    def _look_for_wishes(self) -> None:
        self._leases.begin_look()
        try:
            with self._database.use, self._database.errors():
                wished, watched = self._batches.statements.wishes(self._connected(), self._leases.owner)
        except StateError:
            self._roll_back()
            return
        self._leases.tell_wishes(wished)
        self._leases.tell_watched(watched)

    def _about_leases(self, work: Callable[[sa.Connection, list[str]], None], run_ids: list[str]) -> bool:
        """Renew leases or release them; return False on any failure: a lease then lapses by itself."""
        if not run_ids:
            return False
        try:
            with (
                self._database.use,
                self._database.errors(),
                begin_write(self._connected()),
            ):
                work(self._connected(), run_ids)
        except Exception:  # noqa: BLE001 - the writes of the runs meet the same failure, and report it
            self._roll_back()
            return False
        return True

    # Waiters ---------------------------------------------------------------------------------------------

    def _note(self, job: Job, outcome: Outcome) -> None:
        """Follow what a committed request means for the leases of this process."""
        request = job.request
        if isinstance(outcome, FlujoError):
            if isinstance(request, Write):
                self._batches.holes.failed(request, outcome)
            return
        if isinstance(request, Write):
            self._batches.holes.succeeded(request)
            for child in request.children:
                if child.is_owned:
                    self._leases.hold(child.run.run_id, job.loop, self._since)
        if isinstance(request, ClaimNext):
            for record in outcome if isinstance(outcome, list) else ():
                self._leases.hold(record.run_id, job.loop, self._since)
        elif _begins_lease(request):
            self._leases.hold(request.run_id, job.loop, self._since)
        elif isinstance(request, Write) and request.move is not None and request.move.release:
            self._leases.let_go(request.run_id)


def _is_apart(request: Request) -> bool:
    """Return whether a request is a batch of its own."""
    return isinstance(request, Lend) or (isinstance(request, Send) and request.is_apart)


def _begins_lease(request: Request) -> bool:
    """Return whether a committed request gives its run a lease that begins with it."""
    match request:
        case Claim():
            return True
        case Accept():
            return request.claim
        case Write():
            return request.is_empty
        case _:
            return False
