"""The writer: one commit for all who wait, one bad row for its own waiter, and no lost acknowledgement."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.exceptions import (
    JournalConflict,
)
from flujo.state.store import SqlStateStore
from flujo.state.tables import runs
from flujo.testing.store_suite import RUN, entry, move, new_run, writes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def sql(store_uri: str) -> AsyncIterator[SqlStateStore]:
    store = SqlStateStore(store_uri)
    yield store
    await store.aclose()


class Held:
    """Lets a transaction of another client stand in the way, so that writes gather behind it."""

    def __init__(self, store: SqlStateStore) -> None:
        self._connection = store.database.connect().execution_options(flujo_writes=True)

    def __enter__(self) -> None:
        self._connection.begin()
        self._connection.execute(sa.select(runs.c.run_id).with_for_update())

    def __exit__(self, *_: object) -> None:
        self._connection.close()


async def test_what_waits_becomes_one_commit(sql: SqlStateStore) -> None:
    held = [await sql.accept(new_run(f"run-{number}"), {}) for number in range(50)]
    before = sql.writer.commits
    with Held(sql):
        waiting = [asyncio.ensure_future(sql.write(writes(run, entry(1)))) for run in held]
        await asyncio.sleep(0.05)
        assert not any(future.done() for future in waiting[1:])
    await asyncio.gather(*waiting)
    assert sql.writer.commits - before <= 2  # the first may have gone alone


async def test_runs_that_start_and_end_at_once_share_commits(sql: SqlStateStore) -> None:
    async def walk(name: str) -> None:
        run = await sql.accept(new_run(name), {})
        for seq in (1, 2, 3):
            await sql.write(writes(run, entry(seq)))
        await sql.write(move(run, RunStatus.COMPLETED, entries=3))

    await walk("first")
    before = sql.writer.commits
    await asyncio.gather(*(walk(f"run-{number}") for number in range(100)))
    assert sql.writer.commits - before < 100  # of 500 requests


async def test_one_bad_row_fails_for_its_own_waiter_alone(sql: SqlStateStore) -> None:
    good, bad = await sql.accept(new_run("good"), {}), await sql.accept(new_run("bad"), {})
    await sql.write(writes(bad, entry(1)))
    with Held(sql):
        results = asyncio.gather(
            sql.write(writes(good, entry(1))),
            sql.write(writes(bad, entry(1, output=b'"other"'))),
            sql.write(writes(good, entry(2))),
            sql.write(writes(bad, entry(2))),
            return_exceptions=True,
        )
        await asyncio.sleep(0.05)
    outcomes = await results
    assert outcomes[0] is outcomes[2] is None
    assert isinstance(outcomes[1], JournalConflict)
    assert isinstance(outcomes[3], JournalConflict)  # behind the hole
    assert len(await sql.entries(RunId("good"))) == 2
    assert await sql.entries(RunId("bad")) == [entry(1)]


async def test_a_value_that_the_database_refuses_fails_for_its_own_waiter_alone(sql: SqlStateStore) -> None:
    good, bad = await sql.accept(new_run("good"), {}), await sql.accept(new_run("bad"), {})
    impossible: Any = entry(1, attempt="x" if sql.database.is_postgres else object())
    with Held(sql):
        results = asyncio.gather(
            sql.write(writes(good, entry(1))), sql.write(writes(bad, impossible)), return_exceptions=True
        )
        await asyncio.sleep(0.05)
    outcomes = await results
    assert outcomes[0] is None
    assert outcomes[1] is not None
    await sql.write(writes(good, entry(2)))


async def test_a_cancelled_waiter_does_not_cut_a_commit(sql: SqlStateStore) -> None:
    run = await sql.accept(new_run(), {})
    with Held(sql):
        waiting = [asyncio.ensure_future(sql.write(writes(run, entry(seq)))) for seq in range(1, 11)]
        await asyncio.sleep(0.05)
        for future in waiting[::2]:
            future.cancel()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(isinstance(result, asyncio.CancelledError) for result in results) == 5
    assert len(await sql.entries(RUN)) == 10


def test_a_store_serves_one_event_loop_after_another_and_two_at_once(store_uri: str) -> None:
    store = SqlStateStore(store_uri)

    async def walk(name: str) -> None:
        run = await store.accept(new_run(name), {})
        await asyncio.gather(*(store.write(writes(run, entry(seq))) for seq in range(1, 21)))

    asyncio.run(walk("one"))
    threads = [threading.Thread(target=asyncio.run, args=(walk(f"thread-{n}"),)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def count() -> list[int]:
        names = ("one", "thread-0", "thread-1")
        return [len(await store.entries(RunId(name))) for name in names]

    assert asyncio.run(count()) == [20, 20, 20]
    asyncio.run(store.aclose())
