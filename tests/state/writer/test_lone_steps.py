"""A lone step is committed by its event loop, which stands still for no other loop, process, server or disk."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from contextlib import closing, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from durability.interleaving import following
from durability.proxy import proxied
from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.exceptions import Fenced, StateBackendUnavailable
from flujo.state.sql import migrations
from flujo.state.sql.database import BUSY_S
from flujo.state.store import SqlStateStore
from flujo.state.writer.writer import AT_ONCE, FAST_S, Pace
from flujo.testing.store_suite import RUN, entry, move, new_run, writes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from flujo.domain.run import RunRecord


WHOLE = os.environ.get("FLUJO_INTERLEAVE") == "all"
"""Whether every schedule is run; `make test` takes the first ones."""


class AlwaysFast(Pace):
    """Lets loops commit however busy the machine is."""

    is_fast = True


class Committing:
    """Records which thread makes each attempt of a store's writer to commit entries.

    `before` and `after` are called around an attempt, in its thread.
    """

    def __init__(self, store: SqlStateStore, *, fast: bool = True) -> None:
        self.threads: list[int] = []
        self._mine = threading.get_ident()
        self.overlaps = 0
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None
        self._inside = 0
        writer: Any = store.writer
        if fast:
            writer.pace = AlwaysFast()
        self._append, writer._batches.append = writer._batches.append, self._watched

    def _watched(self, *arguments: Any) -> Any:
        self.threads.append(threading.get_ident())
        self._inside += 1
        self.overlaps += self._inside > 1
        try:
            self.before()
            done = self._append(*arguments)
            self.after()
        finally:
            self._inside -= 1
        return done

    @property
    def here(self) -> list[bool]:
        """Whether each attempt was made in the thread that made this object."""
        return [thread == self._mine for thread in self.threads]


@pytest.fixture
async def sql(store_uri: str) -> AsyncIterator[SqlStateStore]:
    store = SqlStateStore(store_uri)
    yield store
    await store.aclose()


async def idle(store: Any) -> None:
    """Return when the thread of a store's writer waits for work."""
    async with asyncio.timeout(60):
        while not store.writer._is_idle:  # noqa: ASYNC110 - nothing reports it
            await asyncio.sleep(0.001)


async def accepted(store: SqlStateStore, name: str = RUN) -> RunRecord:
    """Return a run of the store, whose thread is idle again."""
    run = await store.accept(new_run(name), {})
    await idle(store)
    return run


def stored(uri: str) -> list[int]:
    """Return the numbers of the entries that another connection sees."""
    query = "SELECT seq FROM {}journal ORDER BY seq"
    if uri.startswith("sqlite"):
        with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as file:
            return [seq for (seq,) in file.execute(query.format(""))]
    with psycopg.connect(uri) as server:
        return [seq for (seq,) in server.execute(query.format("flujo.").encode()).fetchall()]


async def test_a_lone_step_is_committed_by_its_loop(sql: SqlStateStore, store_uri: str) -> None:
    run = await accepted(sql)
    committing = Committing(sql)
    for seq in range(1, 6):
        await sql.write(writes(run, entry(seq)))
        assert stored(store_uri) == list(range(1, seq + 1))
    assert committing.here == [True] * 5


async def test_steps_of_one_turn_are_committed_together_by_the_thread(sql: SqlStateStore) -> None:
    runs = [await accepted(sql, name) for name in ("one", "other")]
    committing = Committing(sql)
    before = sql.writer.commits
    await asyncio.gather(*(sql.write(writes(run, entry(1))) for run in runs))
    assert not any(committing.here)
    assert sql.writer.commits - before <= 2


async def test_some_steps_after_a_lone_one_are_committed_as_they_are_submitted(
    sql: SqlStateStore, store_uri: str
) -> None:
    run = await accepted(sql)
    committing = Committing(sql)
    await sql.write(writes(run, entry(1)))
    for seq in range(2, AT_ONCE + 2):
        assert asyncio.ensure_future(sql.write(writes(run, entry(seq)))).done()
        assert stored(store_uri) == list(range(1, seq + 1))
    later = asyncio.ensure_future(sql.write(writes(run, entry(AT_ONCE + 2))))
    assert not later.done(), "the loop gets a turn"
    await later
    assert all(committing.here)


@pytest.mark.guarantee("G16")
async def test_a_loop_takes_turns_between_lone_steps(sqlite_uri: str) -> None:
    store = SqlStateStore(sqlite_uri)
    run = await accepted(store)
    committing = Committing(store)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    for seq in range(1, 41):
        await store.write(writes(run, entry(seq)))
    assert turns >= 40 / (AT_ONCE + 1)
    assert all(committing.here)
    counting.cancel()
    await store.aclose()


async def test_steps_that_come_together_are_committed_together_again_from_then_on(sqlite_uri: str) -> None:
    store = SqlStateStore(sqlite_uri)
    runs = [await accepted(store, str(number)) for number in range(2 * AT_ONCE + 3)]
    committing = Committing(store)
    await store.write(writes(runs[0], entry(1)))
    for seq in (2, 3):
        before = store.writer.commits
        await asyncio.gather(*(store.write(writes(run, entry(seq - (run is not runs[0])))) for run in runs))
        alone = AT_ONCE if seq == 2 else 0
        assert store.writer.commits - before <= alone + 2
    assert not any(committing.here[AT_ONCE + 1 :])
    await store.aclose()


async def test_other_requests_are_left_to_the_thread(sqlite_uri: str) -> None:
    store = SqlStateStore(sqlite_uri)
    run = await accepted(store)
    committing = Committing(store)
    await store.write(writes(run))  # renews the lease
    await store.write(move(run, RunStatus.PAUSED))
    await store.claim(RUN, statuses=[RunStatus.PAUSED])
    assert not any(committing.here)
    await store.aclose()


async def test_a_step_of_a_lost_run_is_refused_in_the_loop_too(sql: SqlStateStore, store_uri: str) -> None:
    run = await accepted(sql)
    other = SqlStateStore(store_uri)
    await sql.write(move(run, RunStatus.PAUSED))
    await other.claim(RUN, statuses=[RunStatus.PAUSED])
    await idle(sql)
    committing = Committing(sql)
    with pytest.raises(Fenced):
        await sql.write(writes(run, entry(1)))
    assert committing.here == [True]
    assert stored(store_uri) == []
    await other.aclose()


@pytest.mark.parametrize("error", [RuntimeError("odd"), StateBackendUnavailable("away")])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("at_once", [0, AT_ONCE])
@pytest.mark.guarantee("G9")
async def test_an_attempt_that_fails_in_the_loop_is_repeated_by_the_thread(
    sql: SqlStateStore, store_uri: str, error: Exception, when: str, at_once: int
) -> None:
    run = await accepted(sql)
    committing = Committing(sql)
    sql.writer._at_once = at_once
    failures = iter([error])

    def fail() -> None:
        for failure in failures:
            raise failure

    setattr(committing, when, fail)
    async with asyncio.timeout(60):
        await sql.write(writes(run, entry(1)))
    assert committing.here[:2] == [True, False]
    await sql.write(writes(run, entry(2)))
    assert stored(store_uri) == [1, 2]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_signal_in_the_middle_of_a_commit_neither_loses_nor_blocks_it(sqlite_uri: str, when: str) -> None:
    store = SqlStateStore(sqlite_uri)
    futures: list[asyncio.Future[bool]] = []

    async def step() -> None:
        run = await accepted(store)
        committing = Committing(store)

        def interrupt() -> None:
            if committing.here[-1]:
                raise KeyboardInterrupt

        setattr(committing, when, interrupt)
        futures.append(asyncio.ensure_future(store.write(writes(run, entry(1)))))
        await asyncio.sleep(10)

    loop = asyncio.new_event_loop()
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(step())
    loop.run_until_complete(asyncio.wait_for(futures[0], 10))
    loop.run_until_complete(store.aclose())
    loop.close()
    assert stored(sqlite_uri) == [1]


async def test_a_lone_step_is_acknowledged_after_its_commit_alone(sqlite_uri: str) -> None:
    store = SqlStateStore(sqlite_uri)
    run = await accepted(store)
    committing = Committing(store)
    with closing(sqlite3.connect(sqlite_uri.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        writing = asyncio.ensure_future(store.write(writes(run, entry(1))))
        await asyncio.sleep(0.05)
        assert time.monotonic() - began < BUSY_S / 2, "the loop waited for another process"
        assert not writing.done()
        other.execute("COMMIT")
    await writing
    assert committing.here == [True, False]
    assert stored(sqlite_uri) == [1]
    await store.aclose()


@pytest.mark.guarantee("G16")
async def test_a_silent_server_stops_the_loop_for_a_moment_once(postgres_uri: str) -> None:
    async with proxied(postgres_uri, "swallowed answer", 1_000_000) as (uri, proxy):
        # The proxy runs in this loop too, so it is silent while the loop commits.
        store = SqlStateStore(uri)
        run = await accepted(store)
        committing = Committing(store, fast=False)
        store.writer.pace.average_s = 0.0
        began = time.monotonic()
        await store.write(writes(run, entry(1)))
        await store.write(writes(run, entry(2)))
        assert committing.here[0]
        assert not any(committing.here[1:])
        assert time.monotonic() - began < 10
        assert stored(postgres_uri) == [1, 2]
        assert not proxy.has_struck
        await store.aclose()


def in_a_loop(work: Callable[[], Any]) -> threading.Thread:
    """Start a thread with an event loop that runs `work()`."""
    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    return thread


@pytest.mark.guarantee("G16")
async def test_a_loop_never_waits_for_the_commit_of_another_one(sqlite_uri: str) -> None:
    store = SqlStateStore(sqlite_uri)
    mine, theirs = [await accepted(store, name) for name in ("mine", "theirs")]
    committing = Committing(store)
    inside, go = threading.Event(), threading.Event()
    went: list[bool] = []
    errors: list[object] = []

    def hold() -> None:
        inside.set()
        went.append(go.wait(60))

    committing.before = hold

    async def other() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        await store.write(writes(theirs, entry(1)))

    thread = in_a_loop(other)
    assert await asyncio.to_thread(inside.wait, 60)
    committing.before = lambda: None
    writing = asyncio.ensure_future(store.write(writes(mine, entry(1))))
    for _ in range(5):
        await asyncio.sleep(0.01)  # if this loop stands still, `go` is not set in time
    assert not writing.done()
    go.set()
    await writing
    await asyncio.to_thread(thread.join)
    assert (went, errors) == ([True], [])
    assert committing.overlaps == 0
    assert [len(await store.entries(RunId(name))) for name in ("mine", "theirs")] == [1, 1]
    await store.aclose()


@pytest.mark.guarantee("G12")
def test_steps_of_several_loops_never_commit_at_once_and_stay_in_order(store_uri: str) -> None:
    store = SqlStateStore(store_uri)
    committing = Committing(store)

    async def walk(name: str) -> None:
        run = await store.accept(new_run(name), {})
        for seq in range(1, 31):
            await store.write(writes(run, entry(seq)))

    threads = [in_a_loop(lambda name=f"run-{number}": walk(name)) for number in range(3)]  # type: ignore[misc]
    for thread in threads:
        thread.join()

    async def numbers(name: str) -> list[int]:
        return [each.seq for each in await store.entries(RunId(name))]

    for number in range(3):
        assert asyncio.run(numbers(f"run-{number}")) == list(range(1, 31))
    assert committing.overlaps == 0
    asyncio.run(store.aclose())


class Unfair:
    """A lock that the thread of a writer does not get before `go`, while loops do."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self._lock = threading.Lock()

    def acquire(self, *, blocking: bool = True) -> bool:
        return self._lock.acquire(blocking=blocking)

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        assert self.go.wait(60)
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


async def test_a_thread_that_has_work_comes_before_the_next_lone_step(sqlite_uri: str) -> None:
    store: Any = SqlStateStore(sqlite_uri)
    run = await accepted(store)
    committing = Committing(store)
    store.writer._at_work = lock = Unfair()
    store.writer._bell.put(None)  # as it is when a lease must be renewed
    while store.writer._is_idle:  # noqa: ASYNC110 - nothing reports it
        await asyncio.sleep(0.001)
    writing = asyncio.ensure_future(store.write(writes(run, entry(1))))
    await asyncio.sleep(0.02)
    assert committing.threads == []
    lock.go.set()
    await writing
    assert committing.here == [False]
    await store.aclose()


async def test_a_slow_commit_leaves_the_next_ones_to_the_thread(sqlite_uri: str) -> None:
    store = SqlStateStore(sqlite_uri)
    run = await accepted(store)
    committing = Committing(store, fast=False)
    store.writer.pace.average_s = 0.0
    committing.before = lambda: time.sleep(0.1)
    await store.write(writes(run, entry(1)))
    await idle(store)
    await store.write(writes(run, entry(2)))
    assert committing.here == [True, False]
    await store.aclose()


def is_fast_after(pace: Pace, seconds: float, times: int = 1) -> bool:
    for _ in range(times):
        pace.took(seconds)
    return pace.is_fast


def test_the_pace_after_a_slow_commit_is_fast_again_after_about_twenty_fast_ones() -> None:
    pace = Pace()
    assert not is_fast_after(pace, 0.0, times=0), "nothing is known yet"
    assert is_fast_after(pace, FAST_S / 2), "the first one was fast"
    assert is_fast_after(pace, FAST_S / 5, times=30)
    assert is_fast_after(pace, 4 * FAST_S), "one tick of a busy machine"
    assert not is_fast_after(pace, 100 * FAST_S)
    assert not is_fast_after(pace, FAST_S / 5, times=15)
    assert is_fast_after(pace, FAST_S / 5, times=15)


async def test_the_thread_commits_the_step_of_a_loop_that_does_not_end_its_turn(sqlite_uri: str) -> None:
    store = SqlStateStore(sqlite_uri)
    run = await accepted(store)
    committing = Committing(store)
    writing = asyncio.ensure_future(store.write(writes(run, entry(1))))
    deadline = time.monotonic() + 60
    while not stored(sqlite_uri) and time.monotonic() < deadline:
        time.sleep(0.01)  # noqa: ASYNC251 - user code that blocks its loop
    assert stored(sqlite_uri) == [1]
    await writing
    assert committing.here == [False]
    await store.aclose()


async def test_a_step_is_committed_when_its_store_is_closed_in_the_same_turn(sql: SqlStateStore) -> None:
    run = await accepted(sql)
    Committing(sql)
    writing = asyncio.ensure_future(sql.write(writes(run, entry(1))))
    await sql.aclose()
    assert await asyncio.wait_for(writing, 10) is False


@pytest.mark.guarantee("G12")
async def test_a_loop_does_not_wait_for_a_fork_of_another_thread(sqlite_uri: str) -> None:
    store = SqlStateStore(sqlite_uri)
    run = await accepted(store)
    committing = Committing(store)
    assert await asyncio.to_thread(store.database.use.pause, 10)
    writing = asyncio.ensure_future(store.write(writes(run, entry(1))))
    await asyncio.sleep(0.05)
    assert not writing.done()
    store.database.use.resume()
    await writing
    assert committing.here == [False]
    await store.aclose()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
@pytest.mark.guarantee("G12")
async def test_a_forked_child_leaves_the_steps_of_its_parent_alone(sqlite_uri: str) -> None:
    store: Any = SqlStateStore(sqlite_uri)
    run = await accepted(store)
    writer = store.writer
    writing = asyncio.ensure_future(store.write(writes(run, entry(1))))
    assert writer._waiting
    child = os.fork()
    if not child:
        os._exit(len(writer._waiting) + len(writer._batch))
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    await writing
    assert stored(sqlite_uri) == [1]
    await store.aclose()


# Every order ---------------------------------------------------------------------------------------------


class Turns:
    """The loop of some runs, and a writer's thread: each takes a turn when a schedule chooses it.

    Nothing runs by itself, because the thread was not started: its turns are called here. An attempt in the
    loop succeeds, fails before the commit, or is interrupted after it.
    """

    def __init__(self, writer: Any, runs: Sequence[RunRecord], choose: Callable[[int], int]) -> None:
        self._writer = writer
        self._runs = runs
        self._choose = choose
        self._loop = asyncio.get_running_loop()
        self._ends: list[tuple[Callable[[Any], None], Any]] = []
        self._in_loop = False
        self.submitted: dict[str, list[asyncio.Future[bool]]] = {run.run_id: [] for run in runs}
        self.lone = 0
        """How many steps were committed in the loop."""

    # As an event loop of the writer

    def create_future(self) -> asyncio.Future[bool]:
        return self._loop.create_future()

    def call_soon(self, end: Callable[[Any], None], job: Any) -> None:
        self._ends.append((end, job))

    def call_soon_threadsafe(self, work: Callable[[Any], None], argument: Any) -> None:
        work(argument)

    # What the schedule chooses from

    def possible(self) -> Iterator[Callable[[], None]]:
        """Yield what may happen next; nothing when all is done."""
        for run in self._runs:
            submitted = self.submitted[run.run_id]
            if len(submitted) < 2 and all(future.done() for future in submitted):
                yield partial(self._submit, run)
        if self._ends:
            yield self._end_turn
        if self._writer._waiting or self._writer._batch:
            yield self.thread_turn

    def _submit(self, run: RunRecord) -> None:
        submitted = self.submitted[run.run_id]
        with self._inside():
            self._writer.submit(writes(run, entry(len(submitted) + 1)), self)
        submitted.append(self._writer._newest[self])  # also when a handler of a signal has raised

    def _end_turn(self) -> None:
        end, job = self._ends.pop(0)
        with self._inside():
            end(job)

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """Do something in the loop."""
        self._in_loop = True
        with suppress(KeyboardInterrupt):
            yield
        self._in_loop = False

    def thread_turn(self) -> None:
        """Do what the thread does between two sleeps."""
        self._writer._is_idle = False
        self._writer._take_turn()
        self._writer._is_idle = not (self._writer._waiting or self._writer._batch)

    def append(self, real: Callable[..., bool | None], *arguments: Any) -> bool | None:
        """Commit entries as `real` does, or fail."""
        way = self._choose(3) if self._in_loop else 0
        if way == 1:
            raise StateBackendUnavailable("before")
        done = real(*arguments)
        self.lone += self._in_loop
        if way == 2:
            raise KeyboardInterrupt
        return done


@pytest.mark.guarantee("G1", "G8", "G9")
async def test_in_every_order_each_step_is_written_once_before_it_is_acknowledged(sqlite_uri: str) -> None:
    store: Any = SqlStateStore(sqlite_uri, renew_s=3600)
    writer = store.writer
    writer.pace, writer._started = AlwaysFast(), True  # so that the thread is not started
    real = writer._batches.append
    migrations.migrate(sqlite_uri)
    schedules = lone = 0
    choices: list[int] | None = []
    with closing(sqlite3.connect(sqlite_uri.removeprefix("sqlite:///"))) as file:
        while choices is not None and schedules < (100_000 if WHOLE else 300):
            taken: list[tuple[int, int]] = []

            def choose(count: int, taken: Any = taken, choices: Any = choices) -> int:
                chosen = choices[len(taken)] if len(taken) < len(choices) else 0
                taken.append((chosen, count))
                return chosen

            accepting = [
                asyncio.ensure_future(store.accept(new_run(f"{schedules}{name}"), {})) for name in "ab"
            ]
            await asyncio.sleep(0)
            writer._take_turn()
            runs = await asyncio.gather(*accepting)
            writer._is_idle = True
            turns = Turns(writer, runs, choose)
            writer._batches.append = partial(turns.append, real)
            while possible := list(turns.possible()):
                possible[choose(len(possible))]()
                for run_id, submitted in turns.submitted.items():
                    found = file.execute("SELECT seq FROM journal WHERE run_id = ? ORDER BY seq", (run_id,))
                    numbers = [seq for (seq,) in found]
                    assert numbers == list(range(1, len(numbers) + 1)), taken
                    assert len(numbers) >= sum(future.done() for future in submitted), taken
            assert all(len(each) == 2 for each in turns.submitted.values())
            assert [future.result() for each in turns.submitted.values() for future in each] == [False] * 4
            schedules, lone, choices = schedules + 1, lone + turns.lone, following(taken)
    assert lone > schedules / 2
    writer._started = False
    writer._disconnect()
    await store.aclose()
