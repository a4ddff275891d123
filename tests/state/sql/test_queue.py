"""Claims from queues by several stores at once: each run to one of them, within the limits."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa

from flujo.domain.queues import NO_LIMITS, ClaimOrder, Queued, QueueLimits, Rate
from flujo.domain.run import Move, RunStatus, Write
from flujo.state.sql import migrations, postgres_listener, queries, queue
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import new_run

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.domain.run import RunRecord

RUNS = 120
STORES = 4


async def _filled(store: SqlStateStore) -> None:
    placed = (
        new_run(f"r{number:03}", queued=Queued(queue="mail", key=f"k{number % 7}")) for number in range(RUNS)
    )
    await asyncio.gather(*(store.accept(run, {}, claim=False) for run in placed))


class Race:
    """Stores that claim and end runs until there are none, and what they have held at once."""

    def __init__(self, limits: QueueLimits) -> None:
        self.order = ClaimOrder(queues=(("mail", limits),), limit=5)
        self.held: dict[str, RunRecord] = {}
        self.most = 0
        self.most_of_a_key = 0
        self.claims: Counter[str] = Counter()

    async def work(self, store: SqlStateStore) -> None:
        while sum(self.claims.values()) < RUNS:
            claimed = await store.claim_next(self.order)
            self.held |= {each.run_id: each for each in claimed}
            self.claims.update(each.run_id for each in claimed)
            self.most = max(self.most, len(self.held))
            keys = Counter(each.queued.key for each in self.held.values() if each.queued is not None)
            self.most_of_a_key = max(self.most_of_a_key, *keys.values(), 0)
            await asyncio.sleep(0.001)
            for each in claimed:
                del self.held[each.run_id]  # before the commit that frees the place
            done = Move(status=RunStatus.COMPLETED)
            await asyncio.gather(
                *(store.write(Write(run_id=each.run_id, fence=each.fence, move=done)) for each in claimed)
            )


@pytest.mark.parametrize(
    "limits",
    [NO_LIMITS, QueueLimits(concurrency=3), QueueLimits(concurrency=6, one_per_key=True)],
    ids=["no limits", "concurrency", "one per key"],
)
async def test_stores_that_race_never_claim_one_run_twice_nor_exceed_a_limit(
    store_uri: str, limits: QueueLimits
) -> None:
    async with AsyncExitStack() as opened:
        stores = [await opened.enter_async_context(aclosing(SqlStateStore(store_uri))) for _ in range(STORES)]
        await _filled(stores[0])
        race = Race(limits)
        await asyncio.gather(*map(race.work, stores))
        assert len(race.claims) == RUNS
        assert set(race.claims.values()) == {1}
        assert race.most <= (limits.concurrency or RUNS)
        assert race.most_of_a_key == 1 or not limits.one_per_key
        assert await stores[0].queue_states() == []


async def test_stores_that_race_start_no_more_runs_than_a_rate_allows(store_uri: str) -> None:
    order = ClaimOrder(queues=(("mail", QueueLimits(rate=Rate(7, per_s=1e6))),), limit=3)
    async with AsyncExitStack() as opened:
        stores = [await opened.enter_async_context(aclosing(SqlStateStore(store_uri))) for _ in range(STORES)]
        await _filled(stores[0])
        claimed = await asyncio.gather(*(store.claim_next(order) for store in stores * 3))
        assert sum(map(len, claimed)) == 7


async def test_claims_from_several_queues_in_any_order_do_not_wait_for_each_other(postgres_uri: str) -> None:
    one = QueueLimits(concurrency=50)
    names = [("a", one), ("b", one), ("mail", one)]
    async with AsyncExitStack() as opened:
        stores = [await opened.enter_async_context(aclosing(SqlStateStore(postgres_uri))) for _ in range(2)]
        await _filled(stores[0])
        orders = (
            ClaimOrder(queues=tuple(names), limit=2),
            ClaimOrder(queues=tuple(reversed(names)), limit=2),
        )
        for _ in range(12):
            got = await asyncio.gather(
                *(store.claim_next(order) for store, order in zip(stores, orders, strict=True))
            )
            assert [len(each) for each in got] == [2, 2]


def _plan(connection: sa.Connection) -> str:
    connection.exec_driver_sql("SET search_path = flujo")
    order = ClaimOrder(queues=(("mail", NO_LIMITS),), limit=5)
    statement = queue.candidates(connection, "mail", order, 2e9, (), (), (), 5)
    text = statement.compile(connection, compile_kwargs={"literal_binds": True})
    return "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {text}"))


async def test_the_index_of_queues_serves_a_claim_in_its_order(postgres_uri: str) -> None:
    async with aclosing(SqlStateStore(postgres_uri)) as store:
        await _filled(store)
        plan = await store.read(_plan)
    assert "runs_to_go_on" in plan
    assert "Sort" not in plan


def _plans(connection: sa.Connection) -> list[str]:
    """Return how SQLite reads runs for a claim and for a look at what it can resume, a text for each query."""
    asked: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, values: Any, *___: object) -> None:
        asked.append((statement, values))

    sa.event.listen(connection, "before_cursor_execute", note)
    queue.choose(connection, ClaimOrder(queues=(("mail", QueueLimits(concurrency=9)),), limit=5), 2e9)
    queries.due(connection, None, (), 5)
    sa.event.remove(connection, "before_cursor_execute", note)
    cursor = connection.connection.cursor()
    reading = [each for each in asked if "FROM runs" in each[0]]
    return [
        " ".join(row[-1] for row in cursor.execute(f"EXPLAIN QUERY PLAN {statement}", values))
        for statement, values in reading
    ]


async def test_a_long_queue_makes_neither_a_claim_nor_a_look_slower(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'state.db'}"
    migrations.migrate(uri)
    async with aclosing(SqlStateStore(uri)) as store:
        await _filled(store)
        plans = await store.write_apart(_plans)
    claim = ["runs_by_status", "runs_by_status", "runs_to_go_on"]  # owners, running runs, candidates
    look = ["runs_by_status", "runs_by_deadline", "runs_to_go_on"]
    assert [re.findall(r"INDEX (\w+)", plan) for plan in plans] == [[name] for name in claim + look]


async def test_another_process_is_heard_on_postgres(postgres_uri: str) -> None:
    called = asyncio.Event()
    async with aclosing(SqlStateStore(postgres_uri)) as mine, aclosing(SqlStateStore(postgres_uri)) as other:
        end = mine.on_queued(called.set)
        async with asyncio.timeout(30):
            await called.wait()  # it listens now
            called.clear()
            await other.accept(new_run("a", queued=Queued(queue="mail")), {}, claim=False)
            await called.wait()
        end()


async def test_a_listener_whose_connection_was_ended_listens_again(
    postgres_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_listener, "_RETRY_S", 0.05)
    called = asyncio.Event()
    async with aclosing(SqlStateStore(postgres_uri)) as store:
        store.on_queued(called.set)
        async with asyncio.timeout(30):
            await called.wait()
            called.clear()
            with psycopg.connect(postgres_uri, autocommit=True) as server:
                server.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE query LIKE 'LISTEN%' AND datname = current_database()"
                )
            await called.wait()
