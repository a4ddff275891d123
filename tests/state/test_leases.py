"""Which process may execute a run: leases live with their event loop."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing, closing
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

import warm
from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.exceptions import (
    Fenced,
    ResumeConflict,
)
from flujo.state.leases import Heartbeat, Leases
from flujo.state.sql.database import Database, begin_write
from flujo.state.sql.tables import runs
from flujo.state.store import SqlStateStore
from flujo.state.writer.batch import Batches
from flujo.testing.store_suite import RUN, entry, new_run, writes

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.run import RunRecord


async def test_leases_are_renewed_while_the_event_loop_runs(store_uri: str) -> None:
    mine, other = SqlStateStore(store_uri, lease_s=0.6, renew_s=0.1), SqlStateStore(store_uri)
    run = await mine.accept(new_run(), {})
    for _ in range(4):
        await asyncio.sleep(0.3)
        with pytest.raises(ResumeConflict):
            await other.claim(RUN, statuses=[RunStatus.RUNNING])
    await mine.write(writes(run, entry(1)))
    await mine.aclose()
    await other.aclose()


@pytest.mark.guarantee("G16")
async def test_a_lease_begins_when_its_run_is_taken(store_uri: str) -> None:
    store = await SqlStateStore.open(store_uri, lease_s=0.5, renew_s=0.1)
    await asyncio.sleep(0.6)  # longer than a lease since the store was opened
    await store.accept(new_run(), {})
    assert store.may_begin(RUN)
    await store.aclose()


@pytest.mark.guarantee("G16")
@pytest.mark.parametrize("work", [Leases.renew, Leases.give_back])
async def test_leases_lock_rows_in_the_order_of_batches(
    postgres_uri: str, work: Callable[[Leases, sa.Connection, list[str]], None]
) -> None:
    names = ["run-b", "run-a"]  # stored in this order, in which a scan of the table finds them
    async with aclosing(await SqlStateStore.open(postgres_uri)) as store:
        [owner] = {(await store.accept(new_run(name), {})).owner for name in names}
        assert owner is not None
        database = Database(postgres_uri)
        batches = Batches(database, Leases(owner))

        def lease(connection: sa.Connection) -> None:
            connection.execute(sa.text("SET LOCAL enable_indexscan = off"))
            connection.execute(sa.text("SET LOCAL enable_bitmapscan = off"))
            work(Leases(owner), connection, names)

        def batch(connection: sa.Connection) -> None:
            batches.statements.lock(connection, sorted(names))

        with (
            closing(database.connect()) as blocker,
            closing(database.connect()) as first,
            closing(database.connect()) as second,
            ThreadPoolExecutor(2) as threads,
        ):

            def started(connection: sa.Connection, run: Callable[[sa.Connection], None]) -> Future[None]:
                def transact() -> None:
                    with begin_write(connection):
                        run(connection)

                pid = connection.scalar(sa.text("SELECT pg_backend_pid()"))
                connection.rollback()
                ended = threads.submit(transact)
                waits = sa.text("SELECT cardinality(pg_blocking_pids(:pid)) > 0")
                end = time.monotonic() + 60
                while not ended.done() and not blocker.scalar(waits, {"pid": pid}):
                    assert time.monotonic() < end
                return ended

            with begin_write(blocker):
                blocker.execute(sa.select(runs).where(runs.c.run_id == "run-a").with_for_update())
                both = [started(first, batch), started(second, lease)]
            for ended in both:
                ended.result(60)  # a victim of a deadlock raises
        database.dispose()


@pytest.mark.guarantee("G16")
async def test_more_leases_than_a_statement_has_parameters_are_renewed_and_released(store_uri: str) -> None:
    # Of these runs, all but three are gone from the database; a renewal forgets them.
    leases, ids = Leases("me", lease_s=500.0), [f"r{number:05}" for number in range(70_000)]
    there = ["r00000", "r40000", "r69999"]
    async with aclosing(await SqlStateStore.open(store_uri)) as store:
        for run_id in there:
            await store.accept(new_run(run_id), {}, claim=False)
        owned = runs.update().values(owner="me", lease_until=1.0)
        await store.write_apart(lambda connection: connection.execute(owned))
        leases.watch(asyncio.get_running_loop())
        for run_id in ids:
            leases.hold(run_id, asyncio.get_running_loop(), 0.0)
        await store.write_apart(leases.renew, ids)
        left = [(await store.run(RunId(each))).lease_left_s or 0.0 for each in there]
        assert all(400 < each <= 500 for each in left)
        assert leases.end() == there
        await store.write_apart(leases.give_back, ids)
        assert [(await store.run(RunId(each))).owner for each in there] == [None] * 3


@pytest.mark.guarantee("G5", "G16")
async def test_a_renewal_notices_that_another_process_executes_the_run(store_uri: str) -> None:
    mine, other = SqlStateStore(store_uri, renew_s=0.1), SqlStateStore(store_uri)
    await mine.accept(new_run(), {})
    assert mine.may_begin(RUN)
    await other.write_apart(
        lambda connection: connection.execute(runs.update().values(owner="other", fence=runs.c.fence + 1))
    )
    async with asyncio.timeout(20):  # less than a lease
        while mine.may_begin(RUN):  # noqa: ASYNC110 - the writer renews in its thread
            await asyncio.sleep(0.02)
    await mine.aclose()
    await other.aclose()


def test_leases_expire_after_their_event_loop_has_ended(store_uri: str) -> None:
    mine, other = SqlStateStore(store_uri, lease_s=0.3, renew_s=0.1), SqlStateStore(store_uri)

    async def start() -> RunRecord:
        return await mine.accept(new_run(), {})

    async def take_over() -> None:
        while True:
            try:
                await other.claim(RUN, statuses=[RunStatus.RUNNING])
                return
            except ResumeConflict:
                await asyncio.sleep(0.1)

    async def write_late(run: RunRecord) -> None:
        with pytest.raises(Fenced):
            await mine.write(writes(run, entry(1)))
        await mine.aclose()
        await other.aclose()

    run = asyncio.run(start())
    asyncio.run(take_over())
    asyncio.run(write_late(run))


HOLDER = """
import asyncio, sys
from flujo.state.writer.batch import Batches
from flujo.state.leases import Leases
from flujo.state.sql.database import begin_write
from flujo.state.store import SqlStateStore
from flujo.state.sql.tables import runs
from flujo.testing.store_suite import RUN, entry, new_run, writes

async def main():
    store = SqlStateStore(sys.argv[1])
    run = await store.accept(new_run(), {})
    for seq in range(1, 100_000):
        await store.write(writes(run, entry(seq)))
        print(seq, flush=True)

asyncio.run(main())
"""


def _holder(uri: str) -> warm.Popen:
    command = [sys.executable, "-c", HOLDER, uri]
    return warm.Popen(command, stdout=subprocess.PIPE)


@pytest.mark.guarantee("G2")
@pytest.mark.parametrize("acknowledged", [1, 17, 60])
async def test_kill_9_loses_no_acknowledged_entry_and_the_run_can_be_claimed_at_once(
    store_uri: str, acknowledged: int
) -> None:
    process = _holder(store_uri)
    assert process.stdout is not None
    seen = 0
    while seen < acknowledged:
        seen = int(process.stdout.readline())
    process.kill()
    seen = max([seen, *(int(line) for line in process.stdout.read().split("\n")[:-1])])
    process.wait()
    process.stdout.close()
    store = SqlStateStore(store_uri)
    run = await store.claim(RUN, statuses=[RunStatus.RUNNING])
    entries = await store.entries(RUN)
    assert len(entries) in (seen, seen + 1)  # the last commit may not have been acknowledged
    await store.write(writes(run, entry(len(entries) + 1)))
    await store.aclose()


async def test_the_run_of_a_live_owner_cannot_be_claimed(store_uri: str) -> None:
    process = _holder(store_uri)
    assert process.stdout is not None
    process.stdout.readline()
    store = SqlStateStore(store_uri)
    try:
        with pytest.raises(ResumeConflict) as caught:
            await store.claim(RUN, statuses=[RunStatus.RUNNING])
        assert caught.value.facts["lease_left_s"] > 20
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        await store.aclose()


@pytest.mark.guarantee("G5")
async def test_a_zombie_whose_write_waits_behind_a_claim_is_fenced_when_the_claim_commits(
    store_uri: str,
) -> None:
    store = SqlStateStore(store_uri)
    run = await store.accept(new_run(), {})
    other = store.database.connect().execution_options(flujo_writes=True)
    with other, other.begin():
        other.execute(runs.update().values(fence=runs.c.fence + 1))
        waiting = asyncio.ensure_future(store.write(writes(run, entry(1))))
        await asyncio.sleep(0.1)
        assert not waiting.done()
    with pytest.raises(Fenced):
        await waiting
    assert await store.entries(RUN) == []
    await store.aclose()


@pytest.mark.guarantee("G5")
async def test_a_claim_waits_for_a_write_that_is_being_committed(store_uri: str) -> None:
    mine, other = SqlStateStore(store_uri, lease_s=0.1, renew_s=1e6), SqlStateStore(store_uri)
    run = await mine.accept(new_run(), {})
    await other.run(RUN)
    await asyncio.sleep(0.2)  # the lease has expired, the write is in flight
    batches = Batches(mine.database, Leases(mine.owner))
    connection = mine.database.connect()
    with connection, begin_write(connection):
        batches.apply(connection, [writes(run, entry(1))])
        claiming = asyncio.ensure_future(other.claim(RUN, statuses=[RunStatus.RUNNING]))
        await asyncio.sleep(0.1)
        assert not claiming.done()
    claimed = await claiming
    assert claimed.fence == 2
    assert await other.entries(RUN) == [entry(1)]
    await mine.aclose()
    await other.aclose()


@pytest.mark.guarantee("G26")
@pytest.mark.usefixtures("own_objects")
def test_a_closed_store_leaves_no_timer_in_an_event_loop(store_uri: str) -> None:
    async def start() -> SqlStateStore:
        store = await SqlStateStore.open(store_uri)
        await store.accept(new_run(), {})
        return store

    others, loop = _heartbeats(), asyncio.new_event_loop()
    store = loop.run_until_complete(start())
    timers = [weakref.ref(each) for each in _heartbeats() if each not in others]
    assert timers
    asyncio.run(store.aclose())  # in another loop
    loop.run_until_complete(asyncio.sleep(0.01))  # the timer is stopped in its own loop
    del store
    gc.collect()
    assert not [each for each in timers if each() is not None]
    loop.close()


@pytest.mark.guarantee("G26")
@pytest.mark.usefixtures("own_objects")
def test_a_store_keeps_nothing_of_the_event_loops_that_have_ended(store_uri: str) -> None:
    others, store = len(_heartbeats()), SqlStateStore(store_uri)

    async def start(number: int) -> None:
        await store.accept(new_run(f"run-{number}"), {})

    for number in range(4):
        asyncio.run(start(number))
        gc.collect()
    assert len(_heartbeats()) - others <= 2, "those of the newest loop, and of the one before it"
    asyncio.run(store.aclose())


def _heartbeats() -> list[Heartbeat]:
    return [each for each in gc.get_objects() if type(each) is Heartbeat]
