"""The writer: one commit for all waiting requests, one failed request per bad row, and no lost acknowledgement."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa
import zstandard

from flujo.domain import canonical
from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.exceptions import JournalConflict, StateBackendUnavailable
from flujo.state.sql.tables import runs
from flujo.state.store import SqlStateStore
from flujo.state.writer.batch import Applied
from flujo.testing.store_suite import RUN, entry, move, new_run, writes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flujo.domain.store import StateStore


@pytest.fixture
async def sql(store_uri: str) -> AsyncIterator[SqlStateStore]:
    store = SqlStateStore(store_uri)
    yield store
    await store.aclose()


class Held:
    """Blocks the writer with a transaction of another client, so that writes queue up."""

    def __init__(self, store: SqlStateStore) -> None:
        self._connection = store.database.connect().execution_options(flujo_writes=True)

    def __enter__(self) -> None:
        self._connection.begin()
        self._connection.execute(sa.select(runs.c.run_id).with_for_update())

    def __exit__(self, *_: object) -> None:
        self._connection.close()


async def test_waiting_writes_become_one_commit(sql: SqlStateStore) -> None:
    held = [await sql.accept(new_run(f"run-{number}"), {}) for number in range(50)]
    before = sql.writer.commits
    with Held(sql):
        waiting = [asyncio.ensure_future(sql.write(writes(run, entry(1)))) for run in held]
        await asyncio.sleep(0.05)
        assert not any(future.done() for future in waiting[1:])
    await asyncio.gather(*waiting)
    assert sql.writer.commits - before <= 2  # the first may have had its own commit


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


async def test_one_bad_row_fails_only_its_own_request(sql: SqlStateStore) -> None:
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
    assert outcomes[0] is outcomes[2] is False
    assert isinstance(outcomes[1], JournalConflict)
    assert isinstance(outcomes[3], JournalConflict)  # after the gap
    assert len(await sql.entries(RunId("good"))) == 2
    assert await sql.entries(RunId("bad")) == [entry(1)]


@pytest.mark.guarantee("G8", "G14")
async def test_no_entry_follows_a_missing_one_until_that_is_written(store: StateStore) -> None:
    run, other = await store.accept(new_run(), {}), await store.accept(new_run("other"), {})
    await store.write(writes(run, entry(1)))
    with pytest.raises(JournalConflict):
        await store.write(writes(run, entry(1, output=b'"other"')))
    await store.write(writes(other, entry(1)))
    for _ in range(2):
        await store.write(writes(run))  # only renews the lease
        with pytest.raises(JournalConflict):
            await store.write(writes(run, entry(2)))
    assert await store.entries(RUN) == [entry(1)]
    await store.write(writes(run, entry(1)))  # the missing one
    await store.write(writes(run, entry(2)))
    assert [each.seq for each in await store.entries(RUN)] == [1, 2]


@pytest.mark.guarantee("G14")
async def test_a_run_that_is_claimed_again_has_no_missing_entry(store: StateStore) -> None:
    run = await store.accept(new_run(), {})
    await store.write(writes(run, entry(1)))
    with pytest.raises(JournalConflict):
        await store.write(writes(run, entry(1, output=b'"other"')))
    with pytest.raises(JournalConflict):
        await store.write(writes(run, entry(2)))
    await store.write(move(run, RunStatus.INTERRUPTED))
    again = await store.claim(RUN, statuses=[RunStatus.INTERRUPTED])
    await store.write(writes(again, entry(2)))
    assert [each.seq for each in await store.entries(RUN)] == [1, 2]


async def test_a_value_refused_by_the_database_fails_only_its_own_request(sql: SqlStateStore) -> None:
    good, bad = await sql.accept(new_run("good"), {}), await sql.accept(new_run("bad"), {})
    impossible: Any = entry(1, attempt="x" if sql.database.is_postgres else object())
    with Held(sql):
        results = asyncio.gather(
            sql.write(writes(good, entry(1))), sql.write(writes(bad, impossible)), return_exceptions=True
        )
        await asyncio.sleep(0.05)
    outcomes = await results
    assert outcomes[0] is False
    assert isinstance(outcomes[1], Exception)
    await sql.write(writes(good, entry(2)))


@pytest.mark.guarantee("G10")
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


async def test_new_runs_wait_while_the_write_queue_is_full(sql: SqlStateStore) -> None:
    run = await sql.accept(new_run(), {})
    sql.writer.max_backlog = 5
    queue = sql.writer._waiting  # pyright: ignore[reportPrivateUsage]
    with Held(sql):
        first = sql.write(writes(run, entry(1)))
        await asyncio.sleep(0.1)  # the writer is processing that one
        inside = [sql.write(writes(run, entry(seq))) for seq in range(2, 7)]
        outside = [asyncio.ensure_future(sql.accept(new_run(f"new-{n}"), {})) for n in range(20)]
        await asyncio.sleep(0.05)
        assert len(queue) <= 6
        outside[0].cancel()
    await asyncio.gather(first, *inside)
    accepted = await asyncio.gather(*outside[1:])
    assert [record.run_id for record in accepted] == [f"new-{n}" for n in range(1, 20)]
    assert len(await sql.entries(RUN)) == 6


async def test_a_step_is_one_statement(sqlite_uri: str) -> None:
    store = SqlStateStore(sqlite_uri)
    run = await store.accept(new_run(), {})
    seen = traced(store)
    for seq in range(1, 4):
        await store.write(writes(run, entry(seq)))
    assert [statement.split()[:3] for statement in without_polls(seen)] == [["INSERT", "INTO", "journal"]] * 3
    await store.aclose()


async def test_steps_of_many_runs_are_one_statement_each_and_one_commit(sqlite_uri: str) -> None:
    store = SqlStateStore(sqlite_uri)
    held = [await store.accept(new_run(f"run-{number}"), {}) for number in range(30)]
    store.writer.pace.average_s = 1.0  # slow, so that the loop does not try the first step by itself
    seen = traced(store)
    with Held(store):
        first = store.write(writes(held[0], entry(1)))
        await asyncio.sleep(0.1)
        rest = [store.write(writes(run, entry(1))) for run in held[1:]]
    await asyncio.gather(first, *rest)
    words = [statement.split()[0] for statement in without_polls(seen)]
    assert words.count("COMMIT") == 1
    assert words.count("INSERT") == 30
    assert len(words) == 32
    await store.aclose()


async def test_a_blueprint_pinned_by_every_run_is_hashed_and_compressed_once(
    sql: SqlStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"blueprint " * 1000
    digest = canonical.digest(content)
    await sql.accept(new_run("first"), {digest: content})
    monkeypatch.setattr(zstandard, "compress", None)
    await asyncio.gather(*(sql.accept(new_run(f"run-{n}"), {digest: content}) for n in range(10)))
    assert await sql.blobs([digest]) == {digest: content}


def traced(store: SqlStateStore) -> list[str]:
    """Return a list that gets each statement of the store's writer from now on."""
    seen: list[str] = []
    driver(store).set_trace_callback(seen.append)
    return seen


def without_polls(statements: list[str]) -> list[str]:
    """Return the statements but those that look for cancel requests, which come when a second is over.

    Steps beside them are committed by the thread, which waits longer for a file that is busy.
    """
    beside = ("runs.wish IS NOT NULL", "PRAGMA busy_timeout")
    return [each for each in statements if not any(part in each for part in beside)]


def driver(store: SqlStateStore) -> sqlite3.Connection:
    """Return the driver's connection of the store's writer."""
    connection = store.writer._connection  # pyright: ignore[reportPrivateUsage]
    assert connection is not None
    found: Any = connection.connection.dbapi_connection
    assert isinstance(found, sqlite3.Connection)
    return found


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


@pytest.mark.guarantee("G9")
@pytest.mark.parametrize("whose", ["nobody's", "somebody else's"])
async def test_a_commit_lost_by_a_killed_server_is_repeated(postgres_uri: str, whose: str) -> None:
    store = await SqlStateStore.open(postgres_uri)
    number = 2**30
    if whose == "somebody else's":  # which got its number again
        with psycopg.connect(postgres_uri) as connection:
            [(number,)] = connection.execute("SELECT CAST(CAST(pg_current_xact_id() AS text) AS bigint)")
    # The reply to a COMMIT is lost, and the server dies before the commit reaches its disk.
    store.writer._unresolved = Applied([True], transaction_id=str(number))
    accepted = await store.accept(new_run(), {})
    assert (await store.run(accepted.run_id)).status is RunStatus.RUNNING
    await store.aclose()


@pytest.mark.guarantee("G9")
async def test_a_commit_that_the_server_has_not_decided_is_waited_for(postgres_uri: str) -> None:
    store = await SqlStateStore.open(postgres_uri)
    with psycopg.connect(postgres_uri) as undecided:
        [[number]] = undecided.execute("SELECT CAST(pg_current_xact_id() AS text)").fetchall()
        store.writer._unresolved = Applied([True], transaction_id=number)
        accepting = asyncio.ensure_future(store.accept(new_run(), {}))
        await asyncio.sleep(0.3)
        assert not accepting.done()
        undecided.rollback()
        assert (await accepting).run_id == RUN
    assert (await store.run(RUN)).status is RunStatus.RUNNING
    await store.aclose()


@pytest.mark.guarantee("G9")
async def test_the_result_of_a_lost_commit_is_never_that_of_a_later_request(postgres_uri: str) -> None:
    store = await SqlStateStore.open(postgres_uri, retry_s=0.3)
    run = await store.accept(new_run(), {})
    url = store.database.url.set(drivername="postgresql")
    elsewhere = url.set(database="postgres").render_as_string(hide_password=False)
    writer: Any = store.writer
    dialect = writer._connection.engine.dialect
    real = dialect.do_commit

    def commit_and_vanish(connection: Any) -> None:
        real(connection)
        connections_are(False)
        connection.dbapi_connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    def connections_are(allowed: bool) -> None:
        with psycopg.connect(elsewhere, autocommit=True) as admin:
            admin.execute(f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS {allowed}".encode())

    dialect.do_commit = commit_and_vanish
    with pytest.raises(StateBackendUnavailable):
        await store.write(move(run, RunStatus.PAUSED))
    dialect.do_commit = real
    connections_are(True)
    claimed = await store.claim(RUN, statuses=[RunStatus.PAUSED])
    assert (claimed.run_id, claimed.fence) == (RUN, run.fence + 1)
    await store.write(writes(claimed, entry(1)))
    assert await store.entries(RUN) == [entry(1)]
    await store.aclose()
