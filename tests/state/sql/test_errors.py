"""Databases that fail: full, unavailable, restarted, locked, silent during the commit."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from typing import Any

import psycopg
import pytest

from flujo.domain.run import RunStatus
from flujo.exceptions import CorruptState, StateBackendFull, StateBackendUnavailable, StateError
from flujo.state.sql import errors
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import RUN, entry, move, new_run, writes


@pytest.mark.guarantee("G14")
async def test_a_full_disk_is_a_typed_error_and_the_run_resumes_when_there_is_space(sqlite_uri: str) -> None:
    store = SqlStateStore(sqlite_uri)
    run = await store.accept(new_run(), {})
    writer: Any = store.writer
    limit = writer._connection.exec_driver_sql("PRAGMA page_count").scalar() + 20
    writer._connection.exec_driver_sql(f"PRAGMA max_page_count = {limit}")
    writer._connection.rollback()
    written = 0

    async def fill() -> None:
        nonlocal written
        for seq in range(1, 100):
            await store.write(writes(run, entry(seq, output=b'"' + b"x" * 9_000 + b'"')))
            written = seq

    with pytest.raises(StateBackendFull, match="no room"):
        await fill()
    assert 0 < written < 99
    assert len(await store.entries(RUN)) == written
    with pytest.raises(StateBackendFull):  # no entry after the missing one
        await store.write(writes(run, entry(written + 2)))
    writer._connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    writer._connection.rollback()
    await store.write(writes(run, entry(written + 1)))
    await store.write(writes(run, entry(written + 2)))
    assert len(await store.entries(RUN)) == written + 2
    await store.aclose()


OTHERS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def _sessions(uri: str, state: str = "%") -> int:
    with psycopg.connect(uri, autocommit=True) as connection:
        found = connection.execute(f"SELECT count(*) {OTHERS} AND state LIKE '{state}'".encode()).fetchone()
    assert found is not None
    return int(found[0])


def _wait_until_all_have_ended(uri: str) -> None:
    """The server ends a session a moment after its connection is closed."""
    while _sessions(uri):
        time.sleep(0.02)


@pytest.mark.guarantee("G13")
async def test_a_terminated_connection_is_replaced_and_no_write_is_lost_or_repeated(
    postgres_uri: str,
) -> None:
    store = SqlStateStore(postgres_uri)
    run = await store.accept(new_run(), {})
    stopped = threading.Event()

    def storm() -> None:
        with psycopg.connect(postgres_uri, autocommit=True) as connection:
            seen = 0
            while not stopped.wait(0.02):
                if store.writer.commits == seen:
                    continue  # on a busy machine, the run needs time to progress between two faults
                seen = store.writer.commits
                connection.execute(f"SELECT pg_terminate_backend(pid) {OTHERS}".encode())

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        for start in range(1, 301, 10):
            waiting = [store.write(writes(run, entry(seq))) for seq in range(start, start + 10)]
            await asyncio.gather(*waiting)
    finally:
        stopped.set()
        thread.join()
    assert [each.seq for each in await store.entries(RUN)] == list(range(1, 301))
    await store.aclose()


@pytest.mark.guarantee("G9")
@pytest.mark.parametrize("committed", [True, False])
async def test_a_commit_without_a_reply_is_looked_up_not_guessed(postgres_uri: str, committed: bool) -> None:
    store = SqlStateStore(postgres_uri)
    run = await store.accept(new_run(), {})
    writer: Any = store.writer
    real = writer._connection.engine.dialect.do_commit
    lost: list[bool] = []

    def lose_the_answer(connection: Any) -> None:
        if lost:
            real(connection)
            return
        lost.append(True)
        if committed:
            real(connection)
        connection.dbapi_connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    writer._connection.engine.dialect.do_commit = lose_the_answer
    await store.write(move(run, RunStatus.COMPLETED, output=b"1"))
    assert (await store.run(RUN)).status is RunStatus.COMPLETED
    assert lost
    await store.aclose()


@pytest.mark.guarantee("G13")
async def test_an_unavailable_database_is_reported_after_the_retries_and_the_run_survives(
    postgres_uri: str,
) -> None:
    store = SqlStateStore(postgres_uri, retry_s=0.3)
    run = await store.accept(new_run(), {})
    url = store.database.url.set(drivername="postgresql")
    elsewhere = url.set(database="postgres").render_as_string(hide_password=False)
    with psycopg.connect(elsewhere, autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS false".encode())
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (url.database,)
        )
        with pytest.raises(StateBackendUnavailable):
            await store.write(writes(run, entry(1)))
        admin.execute(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS true".encode())
    await store.write(writes(run, entry(1)))
    assert len(await store.entries(RUN)) == 1
    await store.aclose()


@pytest.mark.guarantee("G16")
@pytest.mark.guarantee("G13")
async def test_a_sqlite_file_deleted_during_a_run_accepts_no_more_writes(sqlite_uri: str) -> None:
    store = SqlStateStore(sqlite_uri)
    run = await store.accept(new_run(), {})
    os.unlink(str(store.database.url.database))  # noqa: PTH108 - in an async function
    with pytest.raises(StateBackendUnavailable, match="deleted or replaced"):
        await store.write(writes(run, entry(1)))
    await store.aclose()


async def test_a_locked_sqlite_file_is_waited_for(sqlite_uri: str) -> None:
    store = SqlStateStore(sqlite_uri)
    run = await store.accept(new_run(), {})
    other = sqlite3.connect(str(store.database.url.database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.ensure_future(store.write(writes(run, entry(1))))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    other.execute("COMMIT")
    other.close()
    await waiting
    await store.aclose()


@pytest.mark.guarantee("G13")
async def test_a_locked_sqlite_file_is_reported_and_written_once_it_is_free(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flujo.state.sql.database.BUSY_S", 0.05)
    store = SqlStateStore(sqlite_uri, retry_s=0.2)
    run = await store.accept(new_run(), {})
    other = sqlite3.connect(str(store.database.url.database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StateBackendUnavailable, match="locked") as caught:
        await store.write(writes(run, entry(1)))
    assert "no other program" in (caught.value.hint or "")
    other.execute("ROLLBACK")
    other.close()
    await store.write(writes(run, entry(1)))
    assert (await store.run(RUN)).status is RunStatus.RUNNING
    await store.aclose()


@pytest.mark.guarantee("G10", "G15")
async def test_no_connection_stays_in_a_transaction_after_work_or_cancellation(postgres_uri: str) -> None:
    store = SqlStateStore(postgres_uri)
    run = await store.accept(new_run(), {})
    tasks: list[asyncio.Future[Any]] = [asyncio.create_task(store.run(RUN)) for _ in range(20)]
    tasks += [asyncio.ensure_future(store.write(writes(run, entry(seq)))) for seq in range(1, 21)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await store.progress(RUN)
    await store.write(writes(run, entry(21)))
    assert _sessions(postgres_uri, "idle in%") == 0
    await store.aclose()
    _wait_until_all_have_ended(postgres_uri)


@pytest.mark.guarantee("G15")
async def test_no_connection_stays_in_a_transaction_after_a_look_for_cancel_requests(
    postgres_uri: str,
) -> None:
    store = SqlStateStore(postgres_uri)
    await store.accept(new_run(), {})
    wished = asyncio.Event()
    store.on_wish(RUN, wished.set)
    with psycopg.connect(postgres_uri, autocommit=True) as connection:
        connection.execute("UPDATE flujo.runs SET wish = 'cancel'")
    await wished.wait()
    assert _sessions(postgres_uri, "idle in%") == 0
    await store.aclose()


@pytest.mark.guarantee("G15")
@pytest.mark.parametrize("pool_max", [1, 2, 3])
async def test_a_small_pool_serves_every_caller(postgres_uri: str, pool_max: int) -> None:
    store = SqlStateStore(postgres_uri, pool_max=pool_max)
    held = [await store.accept(new_run(f"run-{number}"), {}) for number in range(20)]
    await asyncio.gather(
        *(store.write(writes(run, entry(1))) for run in held),
        *(store.run(run.run_id) for run in held),
        *(store.intents(run.run_id) for run in held),
    )
    assert _sessions(postgres_uri) <= max(2, pool_max), "one connection writes, and one at least reads"
    await store.aclose()


class Refusal(psycopg.Error):
    """A Postgres error with a given SQLSTATE."""

    def __init__(self, state: str | None) -> None:
        super().__init__("because")
        self.sqlstate = state


@pytest.mark.parametrize(
    ("state", "error", "is_retried"),
    [
        ("53100", StateBackendFull, None),  # disk_full
        ("53200", StateBackendFull, None),  # out_of_memory
        ("53300", StateBackendUnavailable, True),  # too_many_connections
        ("08006", StateBackendUnavailable, True),  # connection_failure
        ("40001", StateBackendUnavailable, True),  # serialization_failure
        ("57P01", StateBackendUnavailable, True),  # admin_shutdown
        ("25P03", StateBackendUnavailable, True),  # idle_in_transaction_session_timeout
        ("25006", StateBackendUnavailable, True),  # read_only_sql_transaction: a standby
        ("28P01", StateBackendUnavailable, False),  # invalid_password
        ("3D000", StateBackendUnavailable, False),  # invalid_catalog_name
        ("23505", StateError, None),  # unique_violation
        ("42601", StateError, None),  # syntax_error
    ],
)
def test_postgres_errors_are_retried_only_when_that_can_help(
    state: str, error: type[StateError], is_retried: bool | None
) -> None:
    found = errors.of_postgres("host/runs", Refusal(state), "because", lost=False)
    assert type(found) is error
    assert "host/runs" in str(found)
    assert "because" in str(found)
    if is_retried is not None:
        assert found.retryable is is_retried


@pytest.mark.parametrize(
    "reason", ["FATAL: sorry, too many clients already", "FATAL: no more connections allowed"]
)
def test_an_error_about_exhausted_connections_names_the_setting(reason: str) -> None:
    found = errors.of_postgres("host/runs", Refusal(None), reason, lost=True)
    assert "takes no more connections" in str(found)
    assert "postgres_pool_max" in (found.hint or "")


@pytest.mark.parametrize(
    ("code", "error", "is_retried"),
    [
        (sqlite3.SQLITE_FULL, StateBackendFull, None),
        (sqlite3.SQLITE_BUSY, StateBackendUnavailable, True),
        (sqlite3.SQLITE_BUSY | 2 << 8, StateBackendUnavailable, True),  # an extended code
        (sqlite3.SQLITE_READONLY, StateBackendUnavailable, False),
        (sqlite3.SQLITE_CANTOPEN, StateBackendUnavailable, False),
        (sqlite3.SQLITE_IOERR, StateBackendUnavailable, False),
        (sqlite3.SQLITE_CORRUPT, CorruptState, None),
        (sqlite3.SQLITE_NOTADB, StateError, None),
        (sqlite3.SQLITE_CONSTRAINT, StateError, None),
    ],
)
def test_sqlite_errors_are_retried_only_when_that_can_help(
    code: int, error: type[StateError], is_retried: bool | None
) -> None:
    refused = sqlite3.OperationalError("because")
    refused.sqlite_errorcode = code
    found = errors.of_sqlite("state.db", refused, "because")
    assert type(found) is error
    assert "state.db" in str(found).partition(":")[0]
    if is_retried is not None:
        assert found.retryable is is_retried


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("foo=1", "foo"),
        ("sslmode=often", "sslmode"),
        ("connect_timeout=soon", "connect_timeout"),
        ("options=-c%20work_memory%3D1", "work_memory"),
        ("options=-c%20work_mem%3Dmany", "work_mem"),
    ],
)
async def test_a_refused_parameter_of_the_url_is_named_in_the_hint(
    postgres_uri: str, query: str, parameter: str
) -> None:
    uri = f"{postgres_uri}{'&' if '?' in postgres_uri else '?'}{query}"
    with pytest.raises(StateError) as caught:
        await SqlStateStore.open(uri)
    assert f"the parameter `{parameter}` in `state_uri`" in str(caught.value.hint)


@pytest.mark.parametrize("kind", [psycopg.OperationalError, psycopg.DatabaseError])
def test_what_libpq_says_of_a_lost_connection_is_retried(kind: type[psycopg.Error]) -> None:
    told = errors.of_postgres("here", kind("invalid socket"), "invalid socket", lost=False)
    assert isinstance(told, StateBackendUnavailable)
    assert told.facts["retryable"]
