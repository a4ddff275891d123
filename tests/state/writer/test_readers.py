"""One connection answers all waiting reads, and each read sees all writes committed before it was made."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa

from flujo.domain.run import RunQuery
from flujo.exceptions import StateBackendUnavailable
from flujo.state.sql import queries
from flujo.state.sql.tables import runs
from flujo.state.store import SqlStateStore
from flujo.state.writer import readers
from flujo.testing.store_suite.examples import RUN, new_run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@asynccontextmanager
async def busy(store: SqlStateStore) -> AsyncIterator[None]:
    """Occupy the one reader of the store, so that the reads begun in this block wait for the same turn."""
    reading, may_end = threading.Event(), threading.Event()

    def slow(connection: Any) -> None:
        connection.scalar(sa.select(sa.func.count()).select_from(runs))
        reading.set()
        may_end.wait()

    occupied = asyncio.ensure_future(store.read(slow))
    await asyncio.to_thread(reading.wait)
    try:
        yield
        await asyncio.sleep(0)  # the reads of this block begin
    finally:
        may_end.set()
    await occupied


async def test_a_read_sees_writes_committed_while_others_read(store_uri: str) -> None:
    store = await SqlStateStore.open(store_uri, pool_max=2)  # one connection reads
    async with busy(store):
        run = await store.accept(new_run(), {})
        reading = asyncio.ensure_future(store.runs(RunQuery()))
    assert [record.run_id for record in await reading] == [run.run_id]
    await store.aclose()


@pytest.mark.guarantee("G15")
async def test_waiting_reads_of_many_runs_are_one_query(
    store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await SqlStateStore.open(store_uri, pool_max=2)
    held = [await store.accept(new_run(f"run-{number}"), {}) for number in range(20)]
    real, queried = queries.records, list[int]()

    def counted(connection: sa.Connection, run_ids: Any) -> Any:
        queried.append(len(run_ids))
        return real(connection, run_ids)

    monkeypatch.setattr(queries, "records", counted)
    async with busy(store):
        reads = [asyncio.ensure_future(store.run(run.run_id)) for run in held]
    assert [record.run_id for record in await asyncio.gather(*reads)] == [run.run_id for run in held]
    assert queried == [20]
    await store.aclose()


@pytest.mark.guarantee("G13", "G15")
async def test_every_read_that_shared_a_lost_connection_is_answered(postgres_uri: str) -> None:
    store = await SqlStateStore.open(postgres_uri, pool_max=2)
    await store.accept(new_run(), {})
    async with busy(store):
        reads = [
            asyncio.ensure_future(store.read(lambda connection, n: connection.scalar(sa.select(n)), number))
            for number in range(3)
        ]
        with psycopg.connect(postgres_uri, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
    assert await asyncio.gather(*reads) == [0, 1, 2]
    await store.aclose()


async def test_a_closed_store_refuses_reads(store_uri: str) -> None:
    store = await SqlStateStore.open(store_uri)
    await store.aclose()
    for reading in (store.run(RUN), store.runs(RunQuery()), store.entries(RUN)):
        with pytest.raises(StateBackendUnavailable, match="the store is closed"):
            await reading


async def test_closing_waits_for_reads_in_progress_only(
    store_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "CLOSE_S", 100.0)
    store = await SqlStateStore.open(store_uri)
    await store.runs(RunQuery())
    await store.read(lambda _: None)
    async with asyncio.timeout(30):
        await store.aclose()
