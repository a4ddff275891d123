"""A run survives database faults: it never fails because of them, and can be resumed afterwards."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event

from conftest import own_server
from flujo.domain.journal import RunId
from flujo.domain.run import RunQuery, RunStatus
from flujo.exceptions import ResumeConflict, StateBackendFull, StateBackendUnavailable
from flujo.state.sql import migrations
from flujo.state.sql.database import Use
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import RUN, entry, new_run, writes
from support import PROGRAMS, World, resume, start

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Iterator

EVERYTHING = PROGRAMS["everything"]


@contextmanager
def before_each_entry(uri: str, body: str) -> Iterator[None]:
    """Make Postgres execute `body` before it inserts an entry."""
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(
            f"CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} RETURN NEW; END $$".encode()
        )
        connection.execute(
            b"CREATE TRIGGER trouble BEFORE INSERT ON flujo.journal FOR EACH ROW EXECUTE FUNCTION trouble()"
        )
        yield
        connection.execute(b"DROP FUNCTION trouble() CASCADE")


@pytest.mark.guarantee("G14")
@pytest.mark.parametrize("seq", [1, 4, 9])
async def test_a_full_disk_interrupts_a_run_that_resumes_when_there_is_space(
    postgres_uri: str, seq: int
) -> None:
    store, world = SqlStateStore(postgres_uri), World()
    full = f"IF NEW.seq >= {seq} THEN RAISE EXCEPTION 'no space left' USING ERRCODE = '53100'; END IF;"
    with before_each_entry(postgres_uri, full), pytest.raises(StateBackendFull, match="no room"):
        await start(EVERYTHING.build(world), store, 1)
    assert (await store.run(RunId("run"))).status is RunStatus.RUNNING
    assert len(await store.entries(RunId("run"))) < seq
    result = await resume(EVERYTHING.build(world), store)
    assert result.output == EVERYTHING.output
    await store.aclose()


@pytest.mark.guarantee("G16")
async def test_slow_commits_lose_no_lease_and_no_entry_is_written_twice(postgres_uri: str) -> None:
    store = SqlStateStore(postgres_uri, lease_s=1.5, renew_s=0.2)
    run = await store.accept(new_run(), {})
    with before_each_entry(postgres_uri, "PERFORM pg_sleep(0.3);"):
        for seq in range(1, 8):  # longer than a lease in total
            await store.write(writes(run, entry(seq)))
    assert [each.seq for each in await store.entries(RUN)] == list(range(1, 8))
    assert (await store.run(RUN)).fence == 1
    await store.aclose()


@pytest.mark.guarantee("G17")
@pytest.mark.parametrize("skew_s", [-86_400.0, 86_400.0])
async def test_a_wrong_clock_affects_neither_leases_nor_order(
    store_uri: str, skew_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = SqlStateStore(store_uri), SqlStateStore(store_uri)
    first = await mine.accept(new_run("first"), {})
    right = time.time
    monkeypatch.setattr(time, "time", lambda: right() + skew_s)
    second = await other.accept(new_run("second"), {})
    assert 0 <= second.created_at - first.created_at < 3600
    with pytest.raises(ResumeConflict) as refused:
        await other.claim(RunId("first"), statuses=[RunStatus.RUNNING])
    assert 0 < refused.value.facts["lease_left_s"] <= 30
    assert (await other.find("@last")).run_id == "second"
    await mine.write(writes(first, entry(1)))
    await mine.aclose()
    await other.aclose()


@pytest.mark.guarantee("G13")
def test_runs_survive_a_killed_and_restarted_server() -> None:
    with own_server() as (uri, restart):
        migrations.migrate(uri)
        asyncio.run(_walk_through(uri, restart))


async def _walk_through(uri: str, restart: Callable[[], None]) -> None:
    store = SqlStateStore(uri)

    def twice() -> None:
        restart()
        restart()

    chaos = threading.Thread(target=twice)
    chaos.start()
    finished = 0
    while chaos.is_alive() or finished < 10:
        world = World()
        result = await start(EVERYTHING.build(world), store, 1, run_id=f"run-{finished}")
        assert result.output == EVERYTHING.output
        assert sorted(world.calls) == sorted(EVERYTHING.calls)  # acknowledged steps do not run again
        finished += 1
    chaos.join()
    await store.aclose()


@pytest.fixture
def limited_uri(postgres_uri: str) -> Iterator[Callable[[int], str]]:
    """Yield a function that returns a URI for a role with this connection limit."""
    roles: list[str] = []

    def limited(connections: int) -> str:
        role = f"flujo_limited_{uuid4().hex[:12]}"
        roles.append(role)
        execute(
            postgres_uri,
            f"CREATE ROLE {role} LOGIN PASSWORD 'invented' CONNECTION LIMIT {connections}",
            f"GRANT USAGE ON SCHEMA flujo TO {role}",
            f"GRANT ALL ON ALL TABLES IN SCHEMA flujo TO {role}",
        )
        url = sa.make_url(postgres_uri).set(username=role, password="invented")
        return url.render_as_string(hide_password=False)

    yield limited
    for role in roles:
        execute(postgres_uri, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def execute(uri: str, *statements: str) -> None:
    with psycopg.connect(uri, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


async def walk_and_look(store: SqlStateStore) -> None:
    """Execute several runs at once, then send more queries than one connection can answer at a time."""
    jobs = [start(EVERYTHING.build(World()), store, 1, run_id=f"run-{each}") for each in range(4)]
    for result in await asyncio.gather(*jobs):
        assert result.output == EVERYTHING.output
    ids = [RunId(f"run-{each}") for each in range(4)]
    await asyncio.gather(*map(store.entries, ids), *map(store.run, ids), store.runs(RunQuery()))


@pytest.mark.parametrize("pool_max", [2, 10])
async def test_two_connections_are_enough(limited_uri: Callable[[int], str], pool_max: int) -> None:
    store = SqlStateStore(limited_uri(2), pool_max=pool_max)
    await walk_and_look(store)
    assert {run.status for run in await store.runs(RunQuery())} == {RunStatus.COMPLETED}
    await store.aclose()


async def test_an_error_about_too_few_connections_names_the_required_number(
    limited_uri: Callable[[int], str],
) -> None:
    store = SqlStateStore(limited_uri(1), retry_s=0.2)
    with pytest.raises(StateBackendUnavailable, match=r"takes no more connections: .*too many") as refused:
        await walk_and_look(store)
    assert "so 2 are the least" in str(refused.value.hint)
    assert "invented" not in str(refused.value)
    await store.aclose()


@pytest.mark.guarantee("G17")
@pytest.mark.parametrize("step_s", [-3_600.0, 3_600.0])
async def test_a_step_of_the_hosts_clock_takes_no_living_run_and_keeps_no_dead_one(
    sqlite_uri: str, step_s: float
) -> None:
    """SQLite's clock is the host's, so it is set as an administrator would: for every process at once."""
    mine, other = SqlStateStore(sqlite_uri, lease_s=1, renew_s=0.3), SqlStateStore(sqlite_uri)
    stepped = [0.0]
    for store in (mine, other):

        @event.listens_for(store.database.engine, "connect")
        def step(connection: sqlite3.Connection, _: object) -> None:
            def now(_: object) -> float:
                return (time.time() + stepped[0]) / 86_400 + 2_440_587.5

            connection.create_function("julianday", 1, now)

    await mine.accept(new_run("living"), {})
    stepped[0] = step_s
    for _ in range(15):  # renewals included
        assert (await other.due()).runs == ()
        with pytest.raises(ResumeConflict):
            await other.claim(RunId("living"), statuses=[RunStatus.RUNNING])
        await asyncio.sleep(0.1)
    mine.let_go(RunId("living"))  # as a frozen process does, it renews the lease no more
    await asyncio.sleep(1.5)
    assert (await other.due()).runs == ("living",)
    assert (await other.claim(RunId("living"), statuses=[RunStatus.RUNNING])).fence == 2
    await mine.aclose()
    await other.aclose()


def test_a_fork_waits_for_uses_and_holds_new_ones_back() -> None:
    use, order = Use(), []
    begun, may_end = threading.Event(), threading.Event()

    def work() -> None:
        with use:
            begun.set()
            may_end.wait(60)
            order.append("first use")

    def later() -> None:
        with use:
            order.append("second use")

    first = threading.Thread(target=work)
    first.start()
    begun.wait(60)
    assert not use.pause(0.01)
    may_end.set()
    assert use.pause(10)
    second = threading.Thread(target=later)
    second.start()
    order.append("fork")
    use.resume()
    use.resume()
    second.join(60)
    first.join(60)
    assert order == ["first use", "fork", "second use"]
