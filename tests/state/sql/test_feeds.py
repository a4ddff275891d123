"""Feeds in SQL: they belong to their runs, and no write of a run waits for one."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa

from flujo.domain.feed import KEPT_S, FeedKind, FeedLine, first_number
from flujo.domain.run import RunStatus
from flujo.exceptions import StateError
from flujo.services.admin.purge import purge
from flujo.state.sql import feeds
from flujo.state.sql.database import Database
from flujo.state.sql.tables import feed, runs
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import RUN, entry, move, new_run, writes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

LINE = FeedLine(at=0.0, kind=FeedKind.TEXT, text="said")


@pytest.fixture
async def store(store_uri: str) -> AsyncIterator[SqlStateStore]:
    async with aclosing(await SqlStateStore.open(store_uri)) as opened:
        yield opened


async def change(store: SqlStateStore, statement: Any) -> None:
    await store.write_apart(lambda connection: connection.execute(statement))


def test_numbers_grow_also_when_earlier_lines_are_gone() -> None:
    assert first_number(0, 2.5) == 2500
    assert first_number(2500, 2.5) == 2501
    assert first_number(9000, 2.5) == 9001


async def test_a_feed_is_deleted_with_its_run(store: SqlStateStore) -> None:
    run = await store.accept(new_run(), {})
    await store.add_to_feed(RUN, run.fence, [LINE])
    await store.write(move(run, RunStatus.COMPLETED, output=b"1"))
    assert (await purge(store, [RunStatus.COMPLETED], 3600.0)).runs == 0
    assert len(await store.feed(RUN)) == 1
    assert (await purge(store, [RunStatus.COMPLETED], 0.0)).runs == 1
    assert await store.feed(RUN) == []


async def test_a_feed_that_was_left_long_ago_is_deleted_also_by_a_purge(store: SqlStateStore) -> None:
    for run_id in ("ended", "executed"):
        run = await store.accept(new_run(run_id), {})
        await store.add_to_feed(run.run_id, run.fence, [LINE])
        if run_id == "ended":
            await store.write(move(run, RunStatus.PAUSED))
    await change(store, runs.update().values(updated_at=runs.c.updated_at - KEPT_S - 1))
    await purge(store, [RunStatus.COMPLETED], 0.0)

    def left(connection: sa.Connection) -> list[str]:
        return list(connection.scalars(sa.select(feed.c.run_id)))

    assert await store.read(left) == ["executed"]


async def test_a_line_of_a_later_version_is_left_out(store: SqlStateStore) -> None:
    run = await store.accept(new_run(), {})
    await store.add_to_feed(RUN, run.fence, [LINE, LINE])
    first, second = await store.feed(RUN)
    await change(store, feed.update().where(feed.c.number == first.number).values(kind="hologram"))
    assert await store.feed(RUN) == [second]


async def test_two_owners_at_the_moment_of_a_claim_never_have_the_same_number(store: SqlStateStore) -> None:
    run = await store.accept(new_run(), {})
    tries = [store.add_to_feed(RUN, run.fence, [LINE]) for _ in range(8)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert all(each is None or isinstance(each, StateError) for each in outcomes)
    numbers = [line.number for line in await store.feed(RUN)]
    assert len(set(numbers)) == len(numbers) == outcomes.count(None)


def watched(connection: sa.Connection) -> set[str]:
    return set(connection.scalars(sa.select(runs.c.run_id).where(runs.c.watched_until.is_not(None))))


async def test_runs_that_are_watched_at_once_are_noted_in_one_commit(
    store: SqlStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = [(await store.accept(new_run(f"run-{number}"), {})).run_id for number in range(20)]
    real, may_end, noted = feeds.watch, threading.Event(), list[int]()

    def counted(connection: sa.Connection, run_ids: Sequence[str]) -> None:
        may_end.wait()
        noted.append(len(run_ids))
        real(connection, run_ids)

    monkeypatch.setattr(feeds, "watch", counted)
    watching = [asyncio.ensure_future(store.watch(run_id)) for run_id in held]
    await asyncio.sleep(0)  # all of them wait
    may_end.set()
    await asyncio.gather(*watching)
    assert sum(noted) == 20
    assert len(noted) <= 2, "what came before the first commit, and the others"
    assert await store.read(watched) == set(held)


async def test_of_several_watched_runs_a_locked_one_is_noted_later_on_postgres(postgres_uri: str) -> None:
    async with aclosing(await SqlStateStore.open(postgres_uri)) as store:
        for run_id in ("free", "locked"):
            await store.accept(new_run(run_id), {})
        plain = postgres_uri.replace("postgresql+psycopg", "postgresql")
        with psycopg.connect(plain) as other:
            other.execute("SELECT 1 FROM flujo.runs WHERE run_id = 'locked' FOR NO KEY UPDATE")
            await store.write_apart(feeds.watch, ["free", "locked"])
            assert await store.read(watched) == {"free"}
            other.rollback()
        await store.write_apart(feeds.watch, ["free", "locked"])
        assert await store.read(watched) == {"free", "locked"}


async def test_a_run_and_its_feed_do_not_wait_for_each_other_on_postgres(postgres_uri: str) -> None:
    async with aclosing(await SqlStateStore.open(postgres_uri)) as store:
        run = await store.accept(new_run(), {})
        plain = postgres_uri.replace("postgresql+psycopg", "postgresql")
        with psycopg.connect(plain) as other:
            other.execute("SELECT 1 FROM flujo.runs FOR NO KEY UPDATE")  # as a batch locks it
            async with asyncio.timeout(30):
                await store.add_to_feed(RUN, run.fence, [LINE])
            other.rollback()
            other.execute("LOCK TABLE flujo.feed")
            writing = asyncio.create_task(store.add_to_feed(RUN, run.fence, [LINE]))
            async with asyncio.timeout(30):
                await store.write(writes(run, entry(1)))
                assert len(await store.entries(RUN)) == 1
                with pytest.raises(StateError):  # after two seconds
                    await writing


async def test_a_feed_is_not_in_the_log_of_postgres(postgres_uri: str) -> None:
    database = Database(postgres_uri)
    async with aclosing(await SqlStateStore.open(postgres_uri)):
        with database.connect() as connection:
            kept = sa.text("SELECT relpersistence FROM pg_class WHERE oid = 'flujo.feed'::regclass")
            assert connection.scalar(kept) in ("u", b"u")
    database.dispose()


async def test_the_query_for_watched_runs_reads_two_indexes_on_sqlite(sqlite_uri: str) -> None:
    async with aclosing(await SqlStateStore.open(sqlite_uri)) as store:
        text = store.writer._batches.statements._wishes
        plan = await store.read(
            lambda connection: [
                row[3]
                for row in connection.connection.dbapi_connection.execute(
                    f"EXPLAIN QUERY PLAN {text}", {"me": "x"}
                )
            ]
        )
    searches = [line for line in plan if line.startswith(("SEARCH", "SCAN"))]
    assert [line.split("USING ")[1].split(" (")[0] for line in searches] == [
        "INDEX runs_by_wish",
        "INDEX runs_by_watch",
    ]
