"""Claims from queues by several stores at once: each run to one of them, within the limits."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa

from flujo.domain.queues import NO_LIMITS, ClaimOrder, Queued, QueueLimits, Rate
from flujo.domain.run import Move, RunStatus, Write
from flujo.state import owner_tokens
from flujo.state.sql import migrations, postgres_listener, queries, queue
from flujo.state.sql.tables import runs
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import new_run

if TYPE_CHECKING:
    from collections.abc import Collection
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


async def test_a_worker_that_was_killed_holds_no_place_although_its_lease_lasts(
    store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = ClaimOrder(queues=(("mail", QueueLimits(concurrency=1)),), limit=5)
    async with aclosing(SqlStateStore(store_uri)) as killed, aclosing(SqlStateStore(store_uri)) as other:
        for run_id in ("a", "b"):
            await killed.accept(new_run(run_id, queued=Queued(queue="mail")), {}, claim=False)
        assert [run.run_id for run in await killed.claim_next(one)] == ["a"]
        assert await other.claim_next(one) == []
        monkeypatch.setattr(owner_tokens, "is_provably_dead", killed.owner.__eq__)
        assert [run.run_id for run in await other.claim_next(one)] == ["a"]


def _plan(connection: sa.Connection) -> str:
    connection.exec_driver_sql("SET search_path = flujo")
    order = ClaimOrder(queues=(("mail", NO_LIMITS),), limit=5)
    statement = queue.candidates(connection, "mail", order, 2e9, queue.is_held_by_none, (), (), 5)
    text = statement.compile(connection, compile_kwargs={"literal_binds": True})
    return "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {text}"))


async def test_the_index_of_queues_serves_a_claim_in_its_order(postgres_uri: str) -> None:
    async with aclosing(SqlStateStore(postgres_uri)) as store:
        await _filled(store)
        plan = await store.read(_plan)
    assert "runs_to_claim" in plan
    assert "Sort" not in plan


def _plans(connection: sa.Connection) -> list[str]:
    """Return how SQLite reads runs for a claim and for a look at what it can resume, a text for each query."""
    asked: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, values: Any, *___: object) -> None:
        asked.append((statement, values))

    sa.event.listen(connection, "before_cursor_execute", note)
    order = ClaimOrder(queues=(("mail", QueueLimits(concurrency=9)),), limit=5)
    lapses = queue.Lapses(30.0, lambda: 0.0)
    queue.choose(connection, order, 2e9, lapses)
    lapses.note("mail", (), 0.0, 30.0)
    queue.choose(connection, order, 2e9, lapses)
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
        await store.claim_next(ClaimOrder(queues=(("mail", NO_LIMITS),), limit=1))
        plans = await store.write_apart(_plans)
    owners = ["runs_by_owner"] * 2  # the first one, and each following one
    first = [owners, ["runs_by_owner"], ["runs_to_go_on"], ["runs_by_owner"]]
    claim = [owners, ["runs_by_owner"], ["runs_to_claim"]]  # owners, executed runs, candidates
    look = [owners, ["runs_by_deadline"], ["runs_to_go_on"]]
    assert [re.findall(r"INDEX (\w+)", plan) for plan in plans] == first + claim + look


EXECUTED = 2000
OWNERS = 4


def _executed(connection: sa.Connection) -> None:
    """Make many executed runs of a few owners, before those that wait in a queue."""
    columns = [column.name for column in runs.c]
    special = {
        "run_id": "run_id || '-' || n",
        "status": "'running'",
        "owner": f"'owner-' || n % {OWNERS}",
        "lease_until": "4e9",
        "rank": "rank - 1000000 + n",
    }
    values = ", ".join(special.get(name, name) for name in columns)
    into = f"INSERT INTO {runs.name} ({', '.join(columns)})"
    numbers = f"WITH RECURSIVE up(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < {EXECUTED})"
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL search_path = flujo")
    connection.execute(sa.text(f"{into} {numbers} SELECT {values} FROM runs, up WHERE run_id = 'r000'"))


def _cost_on_sqlite(connection: sa.Connection, without: Collection[str] = ()) -> int:
    """Return how many hundreds of instructions of SQLite a claim takes when no lease can have ended."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    driver: Any = connection.connection.dbapi_connection
    order = ClaimOrder(queues=(("mail", NO_LIMITS),), limit=5, without=without)
    lapses = queue.Lapses(30.0, lambda: 0.0)
    assert queue.choose(connection, order, 2e9, lapses) == ["r000"]
    driver.set_progress_handler(count, 100)
    assert queue.choose(connection, order, 2e9, lapses) == ["r000"]
    driver.set_progress_handler(None, 100)
    return counted


async def test_a_claim_reads_owners_and_not_the_runs_that_they_execute(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'state.db'}"
    async with aclosing(await SqlStateStore.open(uri)) as store:
        await store.accept(new_run("r000", queued=Queued(queue="mail")), {}, claim=False)
        await store.write_apart(_executed)
        assert await store.write_apart(_cost_on_sqlite) <= 3 * OWNERS
        assert await store.next_available(["mail"]) == 0


def _excluded(connection: sa.Connection) -> None:
    """Let a process have died with a run that the claims of the test exclude."""
    lost = runs.c.run_id == "r000-1"
    connection.execute(runs.update().where(lost).values(owner="dead", closure="excluded"))


async def test_a_lost_run_that_a_worker_excludes_makes_no_claim_slower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner_tokens, "is_provably_dead", "dead".__eq__)
    async with aclosing(await SqlStateStore.open(f"sqlite:///{tmp_path / 'state.db'}")) as store:
        await store.accept(new_run("r000", queued=Queued(queue="mail")), {}, claim=False)
        await store.write_apart(_executed)
        await store.write_apart(_excluded)
        cost = await store.write_apart(partial(_cost_on_sqlite, without=["excluded"]))
        assert cost <= 3 * OWNERS
        assert await store.next_available(["mail"], without=["excluded"]) == 0


def _rows_on_postgres(connection: sa.Connection) -> tuple[int, int]:
    """Return how many rows of runs Postgres reads to know the owners, and for the candidates of a claim."""
    connection.exec_driver_sql("SET LOCAL search_path = flujo")
    known = queries.owners(connection)
    assert known.dead == ()
    assert known.others == tuple(f"owner-{n}" for n in range(OWNERS))
    order = ClaimOrder(queues=(("mail", NO_LIMITS),), limit=5)
    candidates = queue.candidates(connection, "mail", order, 2e9, queue.is_held_by_none, (), (), 5)
    texts = [
        (str(queries.EACH_OWNER.compile(connection)), "runs_by_owner"),
        (str(candidates.compile(connection, compile_kwargs={"literal_binds": True})), "runs_to_claim"),
    ]
    return tuple(_rows_read(connection, *each) for each in texts)  # type: ignore[return-value]  # of two


def _rows_read(connection: sa.Connection, text: str, index: str) -> int:
    """Return how many rows of runs a statement reads, all of them by an index."""
    [(plan,)] = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}")

    def read(node: dict[str, Any]) -> float:
        is_scan = node.get("Relation Name") == "runs"
        own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        assert not is_scan or node["Index Name"] == index
        return float(own * is_scan + sum(map(read, node.get("Plans", ()))))

    return round(read(plan[0]["Plan"]))


async def test_postgres_reads_a_row_for_each_owner_and_for_each_candidate(postgres_uri: str) -> None:
    async with aclosing(SqlStateStore(postgres_uri)) as store:
        await store.accept(new_run("r000", queued=Queued(queue="mail")), {}, claim=False)
        await store.write_apart(_executed)
        assert await store.write_apart(_rows_on_postgres) == (OWNERS, 1)


async def test_a_lease_that_ends_is_noticed_when_it_can_have_ended(store_uri: str) -> None:
    clock = 100.0
    lapses = queue.Lapses(30.0, lambda: clock)
    order = ClaimOrder(queues=(("mail", NO_LIMITS),), limit=5)

    def claimed(connection: sa.Connection) -> list[str]:
        return queue.choose(connection, order, 2e9, lapses)

    def end_leases(connection: sa.Connection) -> None:
        connection.execute(runs.update().values(lease_until=1.0))

    async with aclosing(SqlStateStore(store_uri)) as store:
        for run_id in ("a", "b"):
            await store.accept(new_run(run_id, queued=Queued(queue="mail")), {}, claim=False)
        assert [run.run_id for run in await store.claim_next(replace(order, limit=1))] == ["a"]
        assert await store.write_apart(claimed) == ["b"]
        await store.write_apart(end_leases)
        assert await store.write_apart(claimed) == ["b"], "no lease that was read can have ended yet"
        clock += 30.0
        assert await store.write_apart(claimed) == ["a", "b"]
        assert await store.write_apart(claimed) == ["a", "b"], "until it is claimed"
        assert await store.next_available(["mail"]) == 0


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
