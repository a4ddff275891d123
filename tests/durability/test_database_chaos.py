"""Databases become full, read-only, closed or unavailable during runs: no run fails, and all of them complete."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event

from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.exceptions import RunNotFound, StateBackendFull, StateBackendUnavailable
from flujo.state.store import SqlStateStore
from support import PROGRAMS, World, call, pipeline, resume, start

if TYPE_CHECKING:
    from collections.abc import Iterator

    from durability.conftest import Evidence
    from flujo.domain.pipeline import Pipeline

EVERYTHING = PROGRAMS["everything"]
LIMITS = 50 if os.environ.get("FLUJO_CRASH_EVERY") == "1" else 8
RUNS = 200 if os.environ.get("FLUJO_CRASH_EVERY") == "1" else 16


LINE = "x" * 3_000
"""A value that fills most of a page of SQLite."""
BULKY_STEPS = LIMITS + 10


def bulky(world: World) -> Pipeline:
    """Return a pipeline whose steps each need their own page."""
    steps = [f"s{number}" for number in range(BULKY_STEPS)]
    return pipeline(*(call(name, world.add(name, lambda _: LINE)) for name in steps))


def page_count(store: SqlStateStore) -> int:
    """Return how many pages the database has."""
    with store.database.reading() as connection:
        return int(connection.exec_driver_sql("PRAGMA page_count").scalar_one())


@pytest.mark.guarantee("G14")
@pytest.mark.parametrize("room", range(LIMITS))
async def test_a_full_disk_at_any_write_interrupts_a_run_that_resumes_when_there_is_space(
    sqlite_uri: str, room: int, evidence: Evidence
) -> None:
    store, world = await SqlStateStore.open(sqlite_uri), World()
    limit = page_count(store) + room
    await store.aclose()
    store = SqlStateStore(sqlite_uri, lease_s=0.3, renew_s=0.1)

    @event.listens_for(store.database.engine, "connect")
    def no_more_than(connection: Any, _: Any) -> None:
        connection.execute(f"PRAGMA max_page_count = {limit}")

    with pytest.raises(StateBackendFull, match="no room"):
        await start(bulky(world), store, 1)
    evidence.add(faults=1)
    await store.aclose()
    await asyncio.sleep(0.4)  # the lease has to expire: there was no space to release it either
    store = SqlStateStore(sqlite_uri)
    try:
        assert (await store.run(RunId("run"))).status is RunStatus.RUNNING
        result = await resume(bulky(world), store)
    except RunNotFound:  # there was no space for the run itself, and it was not acknowledged
        assert world.calls == []
        result = await start(bulky(world), store, 1)
    assert (result.status, result.output) == (RunStatus.COMPLETED, LINE)
    assert (Counter(world.calls) - Counter(f"s{number}" for number in range(BULKY_STEPS))).total() <= 1
    await store.aclose()


@contextmanager
def trouble(uri: str, rounds: int) -> Iterator[list[str]]:
    """Terminate, lock out and refuse writes in turns, then stop; yield the injected faults."""
    url, done = sa.make_url(uri), list[str]()
    name = url.database
    admin = url.set(database="postgres").render_as_string(hide_password=False)
    turns = [
        "",
        f"ALTER DATABASE {name} SET default_transaction_read_only = on",
        f"ALTER DATABASE {name} RESET default_transaction_read_only",
        f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
        f"ALTER DATABASE {name} ALLOW_CONNECTIONS true",
    ]

    def turn(connection: psycopg.Connection[Any], statement: str) -> None:
        if statement:
            connection.execute(statement.encode())
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
        )
        done.append(statement)

    def storm() -> None:
        with psycopg.connect(admin, autocommit=True) as connection:
            for statement in turns * rounds:
                turn(connection, statement)
                time.sleep(0.05)

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        yield done
    finally:
        thread.join()


@pytest.mark.guarantee("G13")
async def test_runs_execute_each_step_once_while_their_database_is_terminated_closed_and_read_only(
    postgres_uri: str, evidence: Evidence
) -> None:
    store = await SqlStateStore.open(postgres_uri)

    async def whole(number: int) -> list[str]:
        world = World()
        result = await start(EVERYTHING.build(world), store, 1, run_id=f"run-{number}")
        assert result.output == EVERYTHING.output
        return world.calls

    with trouble(postgres_uri, rounds=RUNS // 8) as done:
        calls = await asyncio.gather(*(whole(number) for number in range(RUNS)))
    evidence.add(faults=len(done))
    assert all(Counter(each) == Counter(EVERYTHING.calls) for each in calls)
    await store.aclose()


@pytest.mark.guarantee("G13")
@pytest.mark.parametrize("wrong", [{"username": "nobody_of_that_name"}, {"database": "none_of_that_name"}])
async def test_a_refused_login_is_reported_at_once_without_the_password(
    postgres_uri: str, wrong: dict[str, Any]
) -> None:
    uri = sa.make_url(postgres_uri).set(password="s3cret", **wrong).render_as_string(hide_password=False)
    store, world = SqlStateStore(uri), World()
    with pytest.raises(StateBackendUnavailable) as caught:
        await start(EVERYTHING.build(world), store, 1)
    assert world.calls == []
    assert "s3cret" not in str(caught.value)
    assert "state_uri" in (caught.value.hint or "")
    await store.aclose()
