"""A silent Postgres: a query times out unless it may take long."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa

from flujo.domain.run import RunQuery
from flujo.exceptions import StateBackendUnavailable
from flujo.state.sql import postgres_connection
from flujo.state.sql.database import Database
from flujo.state.sql.retry import without_timeout
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import RUN, entry, new_run, writes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ANSWER_S = 0.5


@pytest.fixture
async def impatient(postgres_uri: str) -> AsyncIterator[SqlStateStore]:
    """A store with a short response timeout and one retry."""
    store = SqlStateStore(postgres_uri, answer_s=ANSWER_S, retry_s=0.1)
    yield store
    await store.aclose()


def long_silence(connection: sa.Connection) -> str:
    """Send a query that takes longer than the response timeout."""
    return str(connection.scalar(sa.text(f"SELECT 'done' FROM pg_sleep({4 * ANSWER_S})")))


def long_answer(connection: sa.Connection) -> int:
    """Send a query whose parts arrive in time, but together take longer than the response timeout."""
    parts = sa.text(f"SELECT repeat('x', 20000), pg_sleep({ANSWER_S / 4}) FROM generate_series(1, 8)")
    return len(connection.execute(parts).all())


async def test_a_query_without_a_response_ends_in_a_typed_error(impatient: SqlStateStore) -> None:
    with pytest.raises(StateBackendUnavailable, match=r"nothing was heard from the server for 0\.5 s"):
        await impatient.read(long_silence)
    assert await impatient.runs(RunQuery()) == []


async def test_queries_over_whole_tables_have_no_response_timeout(impatient: SqlStateStore) -> None:
    assert await impatient.read(without_timeout(long_silence)) == "done"
    with pytest.raises(StateBackendUnavailable):  # the next query on that connection may not
        await impatient.read(long_silence)


async def test_a_long_response_is_not_a_timeout(impatient: SqlStateStore) -> None:
    assert await impatient.read(long_answer) == 8


async def test_a_write_that_waits_too_long_for_a_lock_is_retried(postgres_uri: str) -> None:
    store = SqlStateStore(postgres_uri, answer_s=ANSWER_S)
    run = await store.accept(new_run(), {})
    engine = sa.create_engine(store.database.url)
    with engine.begin() as other:
        other.execute(sa.text("SELECT 1 FROM flujo.runs FOR UPDATE"))
        written = store.write(writes(run, entry(1)))
        await store.read(without_timeout(long_silence))
    await written
    engine.dispose()
    assert [each.seq for each in await store.entries(RUN)] == [1]
    await store.aclose()


async def test_a_server_that_never_completes_a_connection_is_unavailable_and_retried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        uri = f"postgresql://ann:invented@127.0.0.1:{deaf.getsockname()[1]}/runs?connect_timeout=2"
        with pytest.raises(StateBackendUnavailable, match="does not answer: connection timeout") as caught:
            await SqlStateStore.open(uri)
    assert caught.value.facts["retryable"]
    assert "invented" not in str(caught.value)


IDLE_S = 1.0


def is_alive_after_idling(database: Database, connection: sa.Connection, pipeline: Any) -> bool:
    """Return whether the server keeps a transaction that idles too long after a pipeline."""
    driver: Any = connection.connection.dbapi_connection
    connection.begin()
    with pipeline(driver):
        # Slow, so that its result is still to come at the end of the pipeline: only then does psycopg flush.
        driver.execute("SELECT pg_sleep(0.2)")
    time.sleep(3 * IDLE_S)
    try:
        with database.errors():
            driver.execute("SELECT 1")
    except StateBackendUnavailable:
        return False
    return True


def test_psycopg_3_3_needs_our_pipeline_for_the_server_to_end_an_idle_transaction(postgres_uri: str) -> None:
    """`Pipeline` overrides a private method of psycopg: review both before pinning another version."""
    assert psycopg.__version__.startswith("3.3.")
    for pipeline, survives in (
        (postgres_connection.Connection.pipelined, False),
        (psycopg.Connection.pipeline, True),  # when this fails, the override is no longer needed
    ):
        database = Database(postgres_uri, idle_s=IDLE_S)
        connection = database.connect()
        assert is_alive_after_idling(database, connection, pipeline) is survives, pipeline
        connection.invalidate()
        connection.close()
        database.dispose()
