"""How long lists of runs take in a large database.

    python bench/listing.py sqlite 200000
    python bench/listing.py postgres 1000000

The runs are inserted by the database's own bulk load, with the rows that Flujo would have written. Each list
is timed 20 times; the figure is the median. The plan says which indexes it uses.
"""

import argparse
import asyncio
import json
import re
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from postgres import server

from flujo.domain.journal import RunId
from flujo.domain.run import NewRun, RunCursor, RunOrder, RunQuery, RunStatus
from flujo.services.runs.run_request import pinned_by_name
from flujo.state import codec
from flujo.state.sql import migrations
from flujo.state.sql.tables import runs
from flujo.state.store import SqlStateStore

CLOSURE, _ = pinned_by_name("order")
BEGUN = 1_700_000_000.0
STATUSES = ("completed",) * 90 + ("failed",) * 6 + ("paused",) * 3 + ("cancelled",)
ROUNDS = 20
INDEXED = ("customer", "order.total")
GOAL_MS, GOAL_FAR_MS = 50, 100

LISTS: dict[str, RunQuery] = {
    "the newest": RunQuery(),
    "by status": RunQuery(statuses=(RunStatus.PAUSED,)),
    "by user": RunQuery(user_id="user-17"),
    "by status and user": RunQuery(statuses=(RunStatus.COMPLETED,), user_id="user-17"),
    "by blueprint": RunQuery(pipeline="order"),
    "by metadata": RunQuery(metadata={"customer": "c-1234"}),
    "by metadata, any of three": RunQuery(metadata={"customer": ["c-1", "c-22", "c-333"]}),
    "by nested metadata": RunQuery(metadata={"order": {"total": 4321}}),
    "by metadata that no run has": RunQuery(metadata={"customer": "nobody"}),
}


def new_run(n: int, number: int = 0) -> NewRun:
    """Return a run; `number` decides its user and its metadata."""
    return NewRun(
        run_id=RunId(f"r-{n:09}"),
        pipeline="order",
        closure=CLOSURE,
        input=b'"tea"',
        context=b"{}",
        metadata={"customer": f"c-{number % 10_000}", "order": {"total": number % 50_000}},
        user_id=f"user-{number % 1000}",
    )


def rows(count: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of ended runs, as the writer makes them."""
    for n in range(count):
        number = n * 7919 % count  # neighbours in time share neither user nor customer
        row = codec.run_row(new_run(n, number), {})
        at = BEGUN + n / 10
        usual = {"fence": 1, "claims": 1, "entries": 0, "recoveries": 0, "suspicions": 0, "answered": False}
        yield {**row, **usual, "status": STATUSES[number % 100], "created_at": at, "updated_at": at}


def fill_sqlite(store: SqlStateStore, count: int) -> None:
    """Insert the runs in one transaction."""
    with store.database.writing() as connection:
        lot: list[dict[str, Any]] = []
        for row in rows(count):
            lot.append(row)
            if len(lot) == 10_000:
                connection.execute(runs.insert(), lot)
                lot = []
        if lot:
            connection.execute(runs.insert(), lot)


def fill_postgres(store: SqlStateStore, count: int) -> None:
    """Insert the runs with COPY."""
    names = [name for name in next(rows(1)) if name in runs.c]
    with store.database.writing() as connection:
        driver: Any = connection.connection.dbapi_connection
        columns = ", ".join(names)
        with driver.cursor() as cursor, cursor.copy(f"COPY flujo.runs ({columns}) FROM STDIN") as copy:
            for row in rows(count):
                metadata = json.dumps(row["metadata"])
                copy.write_row([metadata if name == "metadata" else row[name] for name in names])
        driver.execute("ANALYZE flujo.runs")


async def milliseconds(store: SqlStateStore, query: RunQuery) -> tuple[float, int]:
    """Return the median time of a list, and how many runs it has."""
    taken, found = [], 0
    for _ in range(ROUNDS):
        began = time.perf_counter()
        found = len(await store.runs(query))
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken), found


def plan(store: SqlStateStore, heard: Sequence[tuple[str, Any]]) -> str:
    """Return the indexes that the last statement of a list uses; `scan` where it reads the whole table."""
    statement, parameters = heard[-1]
    how = "EXPLAIN" if store.database.is_postgres else "EXPLAIN QUERY PLAN"
    with store.database.reading() as connection:
        found = connection.exec_driver_sql(f"{how} {statement}", parameters).all()
    text = "\n".join(str(line) for line in found)
    used = re.findall(
        r"(?:Index (?:Only )?Scan (?:Backward )?using|on|USING (?:COVERING )?INDEX) (runs_[\w.]+)", text
    )
    return ", ".join(dict.fromkeys(used)) or ("scan" if "SCAN runs" in text or "Seq Scan" in text else "key")


async def measure(store: SqlStateStore, count: int) -> None:
    """Print the time of each list."""
    heard: list[tuple[str, Any]] = []

    def hear(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if "FROM" in statement and ".status" in statement:
            heard.append((statement, parameters))

    sa.event.listen(store.database.engine, "before_cursor_execute", hear)
    far = BEGUN + (count - 100_000) / 10
    after = RunCursor(RunOrder.NEWEST, far, f"r-{count - 100_000:09}")
    pages = {f"{name}, page 1,000": replace(query, after=after) for name, query in list(LISTS.items())[:2]}
    print(f"{'list':34}{'runs':>6}{'ms':>9}  goal    index")
    for name, query in (LISTS | pages).items():
        took, found = await milliseconds(store, query)
        goal = GOAL_FAR_MS if "page" in name else GOAL_MS
        print(f"{name:34}{found:>6}{took:>9.1f}  {'met' if took < goal else 'missed':7} {plan(store, heard)}")


async def main() -> None:
    """Fill a new database, and measure."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("database", choices=["sqlite", "postgres"])
    asked.add_argument("count", type=int)
    asked.add_argument("--disk", default=None, help="where the database is made")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory(dir=given.disk) as folder:
        if given.database == "sqlite":
            await _in(f"sqlite:///{folder}/state.db", given.count, fill_sqlite)
        else:
            with server("", folder) as uri:
                await _in(uri, given.count, fill_postgres)


async def _in(uri: str, count: int, fill: Any) -> None:
    migrations.migrate(uri)
    store = SqlStateStore(uri, indexed_metadata=INDEXED)
    await store.accept(new_run(-1), {})  # the writer creates the indexes
    began = time.perf_counter()
    fill(store, count)
    print(f"{count:,} runs inserted in {time.perf_counter() - began:.0f} s")
    await measure(store, count)
    await store.aclose()


if __name__ == "__main__":
    asyncio.run(main())
