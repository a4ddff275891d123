"""A purge never removes a content that a run being written names: every order of statements, and under load."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from contextlib import aclosing, closing, nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa

import warm
from durability.purging_program import kept, writing
from durability.statement_turns import every_order, some_orders
from flujo.domain import canonical
from flujo.domain.journal import RunId
from flujo.domain.run import RunGroup, RunQuery, RunStatus
from flujo.exceptions import RunNotFound
from flujo.services.admin.purge import purge
from flujo.state import codec
from flujo.state.leases import Leases
from flujo.state.sql import queries, retention
from flujo.state.sql.database import Database, begin_write
from flujo.state.sql.tables import blob_refs, blobs, journal, runs
from flujo.state.store import SqlStateStore
from flujo.state.writer.batch import Batches
from flujo.state.writer.requests import Accept
from flujo.testing.store_suite import entry, move, new_run, writes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from durability.conftest import Evidence
    from durability.statement_turns import Work

PROGRAM = Path(__file__).with_name("purging_program.py")
RUNS = int(os.environ.get("FLUJO_RUNS", "120"))
"""How many runs are written while others purge."""
PURGERS = 2


@pytest.mark.guarantee("G24")
@pytest.mark.timeout(3600)
async def test_purges_remove_nothing_that_a_run_names_while_thousands_are_written(
    store_uri: str, evidence: Evidence
) -> None:
    async with aclosing(await SqlStateStore.open(store_uri)) as store:
        purgers = [_purging(store_uri) for _ in range(PURGERS)]
        try:
            for purger in purgers:
                assert purger.stdout is not None
                assert purger.stdout.readline() == "ready\n"
            await writing(store, RUNS)
        finally:
            gone = [int(purger.communicate("\n", timeout=60)[0]) for purger in purgers]
        lost = await _lost(store)
        evidence.add(faults=sum(gone), seeds=RUNS, violations=lost)
    assert lost == []
    assert sum(gone) > 0, "the purges deleted contents"


def _purging(uri: str) -> warm.Popen:
    command = [sys.executable, str(PROGRAM), uri]
    return warm.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def _lost(store: SqlStateStore) -> list[str]:
    """Return the runs with a content that cannot be read, and the contents that no run names after a purge."""
    found = []
    names = {record.run_id for record in await store.runs(RunQuery(limit=10_000))}
    for run_id in sorted(names):
        try:
            await kept(store, run_id)
        except Exception as error:  # noqa: BLE001 - each is a finding
            found.append(f"{run_id}: {error}")
    await purge(store, [RunStatus.COMPLETED], 0.0)

    def named(connection: sa.Connection) -> set[str]:
        return set(connection.scalars(sa.select(blob_refs.c.digest)))

    def there(connection: sa.Connection) -> set[str]:
        return set(connection.scalars(sa.select(blobs.c.digest)))

    odd = await store.read(named) ^ await store.read(there)
    return found + [f"content {digest} is named or there, not both" for digest in sorted(odd)]


PARTS = 3
"""The large run has so many entries that its purge takes this many transactions, and one for the run."""


@pytest.mark.guarantee("G24")
async def test_a_purge_that_is_killed_within_a_large_run_is_finished_by_the_next(store_uri: str) -> None:
    """The transactions are small; meanwhile no reader finds the run, nor can its id be taken."""
    value, file = canonical.encode("large " * 10_000), canonical.encode("a file")
    async with aclosing(await SqlStateStore.open(store_uri)) as store:
        record = await store.accept(new_run("large", closure=canonical.digest(file)), _blob(file))
        count = PARTS * retention.ENTRIES_OF_A_RUN
        await store.write(writes(record, *(entry(n, output=value) for n in range(1, count + 1))))
        await store.write(move(record, RunStatus.COMPLETED, entries=count))
        await store.accept(new_run("kept", closure=canonical.digest(file)), _blob(file))
        purger = warm.Popen(
            [sys.executable, str(PROGRAM), store_uri, "once"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert purger.stdout is not None
        assert purger.stdin is not None
        left = []
        for _ in range(2):  # it is marked, and a part is gone
            assert purger.stdout.readline() == "1\n"
            left.append(await _entries_left(store))
            if len(left) == 1:
                purger.stdin.write("\n")
                purger.stdin.flush()
        purger.kill()
        purger.communicate()
        assert left == [count, count - retention.ENTRIES_OF_A_RUN]
        for read in (store.run, store.entries):
            with pytest.raises(RunNotFound):
                await read(RunId("large"))
        with pytest.raises(RunNotFound, match="is being purged"):
            await store.accept(new_run("large", closure=canonical.digest(file)), {})
        assert [run.run_id for run in await store.runs(RunQuery())] == ["kept"]
        assert (await store.count_runs(RunQuery(), RunGroup.STATUS)).keys() == {"running"}
        gone = await purge(store, [RunStatus.FAILED], 3600.0)
        assert (gone.runs, gone.contents) == (0, 1), "it was counted when it was marked"
        assert await _entries_left(store) == 0
        assert (await store.accept(new_run("large", closure=canonical.digest(file)), {})).claims == 1


def _blob(content: bytes) -> dict[str, bytes]:
    return {canonical.digest(content): content}


async def _entries_left(store: SqlStateStore) -> int:
    counted = sa.select(sa.func.count()).select_from(journal)
    return int(await store.read(lambda connection: connection.scalar(counted)) or 0)


@pytest.mark.guarantee("G16")
async def test_a_purge_neither_waits_for_an_open_transaction_nor_stops_writers(postgres_uri: str) -> None:
    """Such a transaction is that of a frozen process, or a VACUUM of the table."""
    digest = canonical.digest(CONTENT)
    async with aclosing(await SqlStateStore.open(postgres_uri)) as store:
        await store.accept(new_run("old"), {digest: CONTENT})
        with store.database.writing() as connection:
            connection.execute(runs.delete())
        frozen = Database(postgres_uri)
        batches = Batches(frozen, Leases("frozen"))
        with closing(frozen.connect()) as connection, begin_write(connection) as transaction:
            batches.apply(connection, [Accept(new_run("frozen"), {digest: CONTENT}, claim=True)])
            async with asyncio.timeout(60):
                purging = asyncio.create_task(store.write_apart(retention.delete_blobs, [digest]))
                await asyncio.wait([purging], timeout=0.5)
                await store.accept(new_run("new"), {digest: CONTENT})
                assert await purging == 0
            transaction.commit()
        frozen.dispose()
        assert await store.blobs([digest])


# Every order of statements -------------------------------------------------------------------------------

WHOLE = os.environ.get("FLUJO_INTERLEAVE") == "all"
ORDERS = 1_000_000 if WHOLE else 25
"""How many orders of each race are executed: random ones, or in `make soak` all."""
CONTENT = canonical.encode("named anew " * 5_000)
DIGEST = canonical.digest(CONTENT)


class _Race:
    """A content that a purge may delete, and the transactions that name it meanwhile."""

    def __init__(self, uri: str) -> None:
        self.databases = [Database(uri) for _ in range(3)]
        self.number = 0
        self.named: list[str] = []
        """The runs whose write names the content."""

    def close(self) -> None:
        for database in self.databases:
            database.dispose()

    def begin(self) -> None:
        """Leave the content without a run that names it."""
        self.number += 1
        self.named = []
        with self.databases[0].writing() as connection:
            connection.execute(runs.delete())
            connection.execute(blobs.delete())
            row = codec.blob_row(DIGEST, CONTENT)
            connection.execute(blobs.insert().values(created_at=0.0, **row))

    def entry(self) -> Work:
        """Return the transaction of a running run that records the content."""
        batches, run_id = self._batches(), self._name("entry")
        with self.databases[0].writing() as connection:
            record = batches.apply(connection, [Accept(new_run(run_id), {}, claim=True)]).outcomes[0]
        write: Any = writes(record, entry(1, output=CONTENT))  # type: ignore[arg-type]
        return lambda connection: batches.apply(connection, [write]).outcomes

    def accepted(self) -> Work:
        """Return the transaction of a new run that is pinned to the content."""
        batches, run_id = self._batches(), self._name("accept")
        request = Accept(new_run(run_id, closure=DIGEST), {DIGEST: CONTENT}, claim=True)
        return lambda connection: batches.apply(connection, [request]).outcomes

    def accepted_anew(self) -> Sequence[Work]:
        """Return a purge of a run that is pinned to the content, and a transaction that accepts its id again."""
        batches, run_id = self._batches(), self._name("again")
        request = Accept(new_run(run_id, closure=DIGEST), {DIGEST: CONTENT}, claim=True)
        with self.databases[0].writing() as connection:
            record: Any = batches.apply(connection, [request]).outcomes[0]
            batches.apply(connection, [move(record, RunStatus.COMPLETED)])
            connection.execute(runs.update().values(created_at=0.0, updated_at=0.0))

        def purge_run(connection: sa.Connection) -> int:
            done = [RunStatus.COMPLETED]
            return retention.delete_runs(connection, done[0], done, 1.0, 5, 50, retention.Place()).runs

        return purge_run, lambda connection: batches.apply(connection, [request], careful=True).outcomes

    def purge(self) -> Work:
        """Return the transaction of a purge that has seen the content without a run."""
        return lambda connection: retention.delete_blobs(connection, [DIGEST])

    def lost(self) -> list[str]:
        """Return the runs that name the content although it is gone."""
        with self.databases[0].reading() as connection:
            named = set(connection.scalars(sa.select(blob_refs.c.run_id).where(blob_refs.c.digest == DIGEST)))
            alive = set(connection.scalars(sa.select(runs.c.run_id)))
            there = connection.scalars(sa.select(blobs.c.digest)).all()
            if there:
                queries.contents(connection, [DIGEST])
        missing = [f"{run_id} has no reference" for run_id in self.named if run_id in alive - named]
        return missing + ([f"{run_id} lost its content" for run_id in named] if not there else [])

    def _name(self, kind: str) -> RunId:
        self.named.append(f"{kind}-{self.number}")
        return RunId(self.named[-1])

    def _batches(self) -> Batches:
        batches = Batches(self.databases[0], Leases("me"))
        batches.pipelined = lambda connection: nullcontext()  # one statement a turn
        return batches


RACES: dict[str, Callable[[_Race], Sequence[Work]]] = {
    "a write against a purge": lambda race: (race.entry(), race.purge()),
    "an accept against a purge": lambda race: (race.accepted(), race.purge()),
    "two writes against a purge": lambda race: (race.entry(), race.accepted(), race.purge()),
    "a write against two purges": lambda race: (race.entry(), race.purge(), race.purge()),
    "an accept of a purged id": lambda race: (*race.accepted_anew(), race.purge()),
}


@pytest.fixture
def race(postgres_uri: str) -> Iterator[_Race]:
    with closing(_Race(postgres_uri)) as made:
        yield made


@pytest.mark.guarantee("G24")
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", RACES)
def test_no_order_of_statements_removes_a_content_that_is_named(
    race: _Race, postgres_uri: str, name: str, evidence: Evidence
) -> None:
    def begin() -> Sequence[Work]:
        race.begin()
        return RACES[name](race)

    lost, waits, orders = [], 0, 0
    with psycopg.connect(postgres_uri, autocommit=True) as watcher:
        databases = race.databases[: len(begin())]
        every = every_order(databases, watcher, begin)
        some = some_orders(databases, watcher, begin, random.Random(name))
        for schedule in islice(every if WHOLE else some, ORDERS):
            lost += [f"{[choice for choice, _ in schedule.taken]}: {one}" for one in race.lost()]
            waits, orders = waits + schedule.waits, orders + 1
    evidence.add(faults=waits, seeds=orders, violations=lost)
    assert lost == []
    assert orders > 20
