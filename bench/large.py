"""What a large database costs: the same operations on an empty Postgres and on a filled one.

    python bench/large.py                                     5 million entries in 100,000 runs
    python bench/large.py --runs 1000000 --entries 50         50 million; needs about 30 GB in `--disk`

The rows are those that Flujo would have written: runs of 100 days whose oldest day is purged, some paused or
waiting, and some in a queue. Runs come by COPY, their entries by INSERT ... SELECT. The steps of both
databases take turns, so that both meet the same load of the machine; only ratios mean anything.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import chain
from typing import Any

import psycopg
from postgres import server

from flujo import Flujo, Pipeline, Step
from flujo.domain import canonical
from flujo.domain.journal import Entry, EntryKind, RunId
from flujo.domain.paths import StepPath
from flujo.domain.queues import NO_LIMITS, ClaimOrder, Queued
from flujo.domain.run import NewRun, RunCursor, RunOrder, RunQuery, RunStatus
from flujo.domain.steps import CallableRef
from flujo.services.admin.purge import purge
from flujo.services.runs.run_request import pinned_by_name
from flujo.state import codec
from flujo.state.sql import migrations
from flujo.state.sql.tables import blob_refs, blobs, journal, runs
from flujo.state.store import SqlStateStore

DAYS, DAY_S = 100, 86_400.0
STATUSES = ("completed",) * 88 + ("failed",) * 6 + ("paused",) * 3 + ("waiting", "accepted", "cancelled")
STEPS, ROUNDS = 100, 15
VALUE = canonical.encode({"text": "a value of a step, as long as many are " * 4, "number": 7})
LARGE = canonical.encode("a value that stands aside " * 1000)
CLOSURE, PINNED = pinned_by_name("order")


def new_run(run_id: str, number: int, queued: Queued | None) -> NewRun:
    """Return a run; `number` decides its user and its metadata."""
    return NewRun(
        run_id=RunId(run_id),
        pipeline="order",
        closure=CLOSURE,
        input=VALUE,
        context=b"{}",
        metadata={"customer": f"c-{number % 10_000}"},
        user_id=f"user-{number % 1000}",
        queued=queued,
    )


def run_rows(count: int, entries: int, now: float) -> Iterator[dict[str, Any]]:
    """Yield the rows of runs, oldest first."""
    for n in range(count):
        status = STATUSES[n * 7919 % 100]
        new = new_run(
            f"r-{n:09}", n, Queued(queue="default", available_at=now) if status == "accepted" else None
        )
        at = now - (count - n) / count * DAYS * DAY_S
        usual = {"fence": 1, "claims": 1, "entries": entries, "recoveries": 0, "suspicions": 0}
        yield {
            **codec.run_row(new, {}),
            **usual,
            "answered": False,
            "status": status,
            "created_at": at,
            "updated_at": at,
        }


def templates(entries: int) -> list[dict[str, Any]]:
    """Return the entries of a run, of which one in the middle names a content."""
    made = []
    for seq in range(1, entries + 1):
        entry = Entry(
            path=StepPath(f"step_{seq}"),
            kind=EntryKind.WORK,
            seq=seq,
            input=VALUE,
            output=LARGE if seq == entries // 2 else VALUE,
            fingerprint="0" * 64,
            started_at=1.7e9,
            ended_at=1.7e9,
        )
        made.append(codec.entry_row(RunId("r"), entry, {}))
    return made


def copied(driver: psycopg.Connection[Any], table: str, rows: Iterator[dict[str, Any]]) -> None:
    """Insert rows with COPY."""
    first = next(rows)
    columns = ", ".join(first)
    with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
        for row in chain([first], rows):
            copy.write_row([json.dumps(row[name]) if name == "metadata" else row[name] for name in first])


def fill(uri: str, count: int, entries: int) -> None:
    """Insert the runs, and for each of them its entries, a content of its own and two that all share."""
    with psycopg.connect(uri, autocommit=True) as driver:
        began = time.perf_counter()
        copied(driver, "flujo.runs", run_rows(count, entries, time.time()))
        driver.execute("CREATE TEMP TABLE template (LIKE flujo.journal)")
        copied(driver, "template", iter(templates(entries)))
        names = [column.name for column in journal.c]
        values = ", ".join("r.run_id" if name == "run_id" else f"t.{name}" for name in names)
        driver.execute(
            f"INSERT INTO flujo.journal ({', '.join(names)}) SELECT {values} FROM flujo.runs r, template t"
        )
        blob = codec.blob_row(canonical.digest(LARGE), LARGE)
        own = "'r' || encode(sha256(run_id::bytea), 'hex')"
        driver.execute(
            f"INSERT INTO flujo.blobs SELECT {own}, %s, %s, %s, 0 FROM flujo.runs",
            [blob["encoding"], blob["size"], blob["data"]],
        )
        driver.execute(f"INSERT INTO flujo.blob_refs (digest, run_id) SELECT {own}, run_id FROM flujo.runs")
        for digest in PINNED:
            driver.execute(
                "INSERT INTO flujo.blob_refs (digest, run_id) SELECT %s, run_id FROM flujo.runs", [digest]
            )
        filled_s = time.perf_counter() - began
        driver.execute("VACUUM (ANALYZE)")
        took = time.perf_counter() - began - filled_s
        print(
            f"{count:,} runs, {count * entries:,} entries: {filled_s:.0f} s; vacuum {took:.1f} s", flush=True
        )


# The acts --------------------------------------------------------------------------------------------------


async def same(data: int) -> int:
    """Do nothing."""
    return data


TREE = Pipeline(
    tuple(Step(f"step_{n}", call=CallableRef("large:same", same)) for n in range(STEPS)), name="steps"
)


async def steps_s(store: SqlStateStore) -> float:
    """Execute a run of `STEPS` steps; return the seconds of one."""
    async with Flujo[Any, Any, Any](TREE, store=store, recovery=False) as runner:
        began = time.perf_counter()
        await runner.run_result_async(0)
        return (time.perf_counter() - began) / STEPS


async def resumed_s(store: SqlStateStore) -> float:
    """Resume a run whose steps have ended, except the last one."""
    is_first = True

    async def last(data: int) -> int:
        if is_first:
            raise ValueError("stop here")
        return data

    steps = (*TREE.steps, Step("last", call=CallableRef("large:last", last)))
    async with Flujo[Any, Any, Any](Pipeline(steps, name="resumed"), store=store, recovery=False) as runner:
        failed = await runner.run_result_async(0)
        is_first, began = False, time.perf_counter()
        await runner.resume_async(failed.run_id, retry_failed=True)
        return time.perf_counter() - began


async def claimed(store: SqlStateStore) -> Any:
    """Claim a run of a queue, as an idle worker does."""
    return await store.claim_next(ClaimOrder(queues=(("default", NO_LIMITS),), limit=1))


def page(**conditions: Any) -> Callable[[SqlStateStore], Awaitable[Any]]:
    """Return what lists a page of runs."""
    return lambda store: store.runs(RunQuery(**conditions))


LAST = RunCursor(RunOrder.NEWEST, time.time() - (DAYS - 0.5) * DAY_S, "r")
READS: dict[str, Callable[[SqlStateStore], Awaitable[Any]]] = {
    "list the newest": page(),
    "list the paused": page(statuses=(RunStatus.PAUSED,)),
    "list by user": page(user_id="user-17"),
    "list by metadata": page(metadata={"customer": "c-1234"}),
    "list the last page": page(after=LAST),
    "look for due runs": lambda store: store.due(),
    "claim of a queued run": claimed,
}


async def median_ms(act: Callable[[SqlStateStore], Awaitable[Any]], store: SqlStateStore) -> float:
    """Return the median time of an act in milliseconds."""
    taken = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await act(store)
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


async def compare(empty: SqlStateStore, large: SqlStateStore) -> None:
    """Print the cost of each act in both databases, which take turns."""
    steps: dict[int, list[float]] = {0: [], 1: []}
    for number in range(ROUNDS + 2):
        for place, store in enumerate((empty, large)):
            spent = await steps_s(store)
            if number >= 2:  # both are warm
                steps[place].append(spent * 1000)
    rows = {"commit of a step": (statistics.median(steps[0]), statistics.median(steps[1]))}
    both = [[await resumed_s(store) * 1000 for _ in range(5)] for store in (empty, large)]
    rows[f"resume of {STEPS} steps"] = (statistics.median(both[0]), statistics.median(both[1]))
    for name, act in READS.items():
        rows[name] = (await median_ms(act, empty), await median_ms(act, large))
    print(f"{'':26}{'empty, ms':>11}{'large, ms':>11}{'ratio':>7}")
    for name, (one, other) in rows.items():
        print(f"{name:26}{one:>11.2f}{other:>11.2f}{other / one:>7.2f}", flush=True)


async def huge(store: SqlStateStore, uri: str, entries: int) -> None:
    """Write an old run with so many entries, which end as those of another run."""
    await store.accept(new_run("huge", 0, None), PINNED, claim=False)
    special = {"run_id": "'huge'", "path": "'step_' || n", "seq": "n"}
    names = [column.name for column in journal.c]
    values = ", ".join(special.get(name, name) for name in names)
    with psycopg.connect(uri) as driver:
        driver.execute(
            f"INSERT INTO flujo.journal ({', '.join(names)}) SELECT {values} FROM flujo.journal, "
            "generate_series(1, %s) n WHERE run_id = 'r-000000000' AND seq = 1",
            [entries],
        )
        changed = "status = 'completed', entries = %s, created_at = 0, updated_at = 0"
        driver.execute(f"UPDATE flujo.runs SET {changed} WHERE run_id = 'huge'", [entries])


async def purged(store: SqlStateStore, what: str) -> None:
    """Purge a day, and print its transactions."""
    began = last = time.perf_counter()
    counted = await store.count_purgeable([RunStatus.COMPLETED], (DAYS - 1) * DAY_S)
    print(f"count what is old: {counted:,} runs, {(time.perf_counter() - began) * 1000:.0f} ms", flush=True)
    began = last = time.perf_counter()
    spans: list[float] = []

    def note(_: Any) -> None:
        nonlocal last
        now = time.perf_counter()
        spans.append(now - last)
        last = now

    gone = await purge(store, [RunStatus.COMPLETED], (DAYS - 1) * DAY_S, on_batch=note)
    print(
        f"purge of {what}: {gone.runs:,} runs and {gone.contents:,} contents in {last - began:.1f} s, "
        f"{len(spans)} transactions, the longest {max(spans) * 1000:.0f} ms"
    )


def sizes(uri: str) -> None:
    """Print the sizes of tables and of their indexes, and how long a vacuum takes."""
    with psycopg.connect(uri, autocommit=True) as driver:
        began = time.perf_counter()
        driver.execute("VACUUM")
        print(f"vacuum after the purge: {time.perf_counter() - began:.1f} s")
        for table in (runs, journal, blobs, blob_refs):
            name = f"flujo.{table.name}"
            query = "SELECT pg_table_size(%s::regclass), pg_indexes_size(%s::regclass), count(*) FROM " + name
            found = driver.execute(query, [name, name]).fetchone() or (0, 0, 1)
            heap, indexes, count = found[0] / 1e6, found[1] / 1e6, found[2]
            a_row = (heap + indexes) * 1e6 / max(1, count)
            print(
                f"{table.name:10} {count:>12,} rows {heap:>9,.0f} MB, indexes {indexes:>8,.0f} MB,"
                f" {a_row:,.0f} bytes a row"
            )
        query = (
            "SELECT indexrelname, pg_relation_size(indexrelid) FROM pg_stat_user_indexes "
            "WHERE schemaname = 'flujo' ORDER BY 2 DESC LIMIT 8"
        )
        for name, size in driver.execute(query).fetchall():
            print(f"  {name:24} {size / 1e6:>8,.0f} MB")


async def main() -> None:
    """Fill one of two databases, and compare them."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--runs", type=int, default=100_000)
    asked.add_argument("--entries", type=int, default=50, help="of each run")
    asked.add_argument(
        "--huge", type=int, default=1_000_000, help="entries of the run that is purged as well"
    )
    asked.add_argument("--pg", default="", help="a server whose databases it may make; default: its own")
    asked.add_argument("--disk", default="/var/tmp", help="folder for the data of the server")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory(dir=given.disk) as folder, server(given.pg, folder) as pg:
        uris = []
        for name in ("flujo_empty", "flujo_large"):
            with psycopg.connect(pg, autocommit=True) as driver:
                driver.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
                driver.execute(f'CREATE DATABASE "{name}"')
            uris.append(pg.rpartition("/")[0] + f"/{name}")
            migrations.migrate(uris[-1])
        stores = [await SqlStateStore.open(uri) for uri in uris]
        fill(uris[1], given.runs, given.entries)
        for store in stores:
            for n in range(2 * ROUNDS):
                new = new_run(f"s-{n}", n, Queued(queue="default"))
                await store.accept(new, PINNED, claim=False)
        await compare(*stores)
        await huge(stores[1], uris[1], given.huge)
        await purged(stores[1], "a huge run and a day")
        sizes(uris[1])
        for store in stores:
            await store.aclose()


if __name__ == "__main__":
    asyncio.run(main())
