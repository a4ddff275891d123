"""The constants by which a deployment on one Postgres is sized; `docs/scaling.md` computes with them.

    python bench/sizing.py               all of them
    python bench/sizing.py processes     1, 2 and 4 processes: steps and jobs a second, CPU of both sides
    python bench/sizing.py live          1,000 to 100,000 live runs: renewals, claims, looks for due runs

    python bench/sizing.py lanes         1, 2 and 4 writers in one process, while each commit takes 2 ms more

`processes` executes runs of three steps, 50 at a time in each process, then as many jobs of a queue. The CPU
is what /proc says of the server with its backends, and of the processes.
"""

import argparse
import asyncio
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, aclosing
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import psycopg
from postgres import server

from flujo import Flujo, Pipeline, Step
from flujo.domain.queues import NO_LIMITS, ClaimOrder, QueueLimits
from flujo.domain.steps import CallableRef
from flujo.state.leases import RENEW_S, Leases
from flujo.state.sql import migrations
from flujo.state.sql.tables import runs
from flujo.state.store import SqlStateStore

sys.path.insert(0, str(Path(__file__).parent / "peers"))

from flujo_queue import bench as queue
from workers import drained_s

AT_ONCE, RUNS, STEPS = 50, 1500, 3
TICKS = os.sysconf("SC_CLK_TCK")
LIVE = (1_000, 10_000, 100_000)
HELD = 1_000
"""How many live runs one process holds."""


async def same(data: int) -> int:
    """Do nothing."""
    return data


TREE = Pipeline(
    tuple(Step(f"step_{n}", call=CallableRef("sizing:same", same)) for n in range(STEPS)), name="sizing"
)


async def executed(uri: str, many: int, barrier: Barrier) -> None:
    """Execute runs, from the moment at which all processes are ready."""
    async with (
        aclosing(await SqlStateStore.open(uri)) as store,
        Flujo[Any, Any, Any](TREE, store=store, recovery=False) as runner,
    ):
        await asyncio.to_thread(barrier.wait, 60)
        for start in range(0, many, AT_ONCE):
            count = min(AT_ONCE, many - start)
            await asyncio.gather(*(runner.run_result_async(0) for _ in range(count)))


def execute(uri: str, many: int, barrier: Barrier) -> None:
    """Be a process that executes runs."""
    asyncio.run(executed(uri, many, barrier))


def of_server(uri: str) -> float:
    """Return the CPU seconds of the server and all its backends, also those that have ended."""
    with psycopg.connect(uri) as connection:
        [folder] = connection.execute("SHOW data_directory").fetchone() or [""]
    main = int(Path(folder, "postmaster.pid").read_text("ascii").split()[0])
    spent = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text("ascii").rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if int(stat.parent.name) == main:
            spent += sum(map(int, words[11:15]))
        elif int(words[1]) == main:
            spent += sum(map(int, words[11:13]))
    return spent / TICKS


def of_ours() -> float:
    """Return the CPU seconds of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def processes(uris: Iterator[str]) -> None:
    """Print the throughput and the CPU for each number of processes."""
    print(f"{'':28}{'a second':>9}{'Postgres, cores':>17}{'ours, cores':>13}")
    for count in (1, 2, 4):
        for name, unit in (("steps", RUNS * STEPS), ("jobs of a queue", RUNS)):
            uri = next(uris)
            if name == "steps":
                work: tuple[Any, ...] = (execute, count, uri, RUNS // count)
            else:
                asyncio.run(queue.filled(uri, RUNS))
                work = (queue.work, count, uri, AT_ONCE)
            server_s, ours_s = of_server(uri), of_ours()
            took = drained_s(*work)
            share = (of_server(uri) - server_s) / took
            ours = (of_ours() - ours_s) / took
            print(
                f"{name + f', {count} processes':28}{unit / took:>9,.0f}{share:>17.2f}{ours:>13.2f}",
                flush=True,
            )


def live(uris: Iterator[str]) -> None:
    """Print what live runs cost, for each number of them."""
    uri = next(uris)
    heads = ("renewal of 1,000, ms", "all, cores", "claim, ms", "with limits, ms", "due, ms")
    print(f"{'live runs':>10}" + "".join(f"{head:>22}" for head in heads))
    asyncio.run(queue.filled(uri, 1))
    for count in LIVE:
        with psycopg.connect(uri, autocommit=True) as driver:
            columns = [column.name for column in runs.c]
            special = {
                "run_id": f"'live-{count}-' || n",
                "status": "'running'",
                "owner": f"'owner-' || n / {HELD}",
                "lease_until": "extract(epoch FROM now()) + 3600",
                "queue": "'default'",
            }
            values = ", ".join(special.get(name, name) for name in columns)
            driver.execute("DELETE FROM flujo.runs WHERE status = 'running'")
            driver.execute(
                f"INSERT INTO flujo.runs ({', '.join(columns)}) SELECT {values} FROM flujo.runs, "
                "generate_series(0, %s) n WHERE status = 'accepted' LIMIT %s",
                [count - 1, count],
            )
            driver.execute("VACUUM ANALYZE flujo.runs")
        asyncio.run(_cost(uri, count))


async def _cost(uri: str, count: int) -> None:
    async with aclosing(await SqlStateStore.open(uri)) as store:
        leases = Leases("owner-0", lease_s=3600.0)
        ids = [f"live-{count}-{n}" for n in range(HELD)]
        figures = [
            await _median(lambda: store.write_apart(leases.renew, ids)),
            await _median(lambda: store.claim_next(ClaimOrder(queues=(("none", NO_LIMITS),), limit=1))),
            await _median(
                lambda: store.claim_next(ClaimOrder(queues=(("none", QueueLimits(concurrency=10)),), limit=1))
            ),
            await _median(store.due),
        ]
    renewal, claim, limited, due = figures
    cores = renewal / 1000 * count / HELD / RENEW_S
    row = (f"{renewal:.1f}", f"{cores:.3f}", f"{claim:.1f}", f"{limited:.1f}", f"{due:.1f}")
    print(f"{count:>10,}" + "".join(f"{cell:>22}" for cell in row), flush=True)


SLOW_COMMIT = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('bench.slept', true) IS DISTINCT FROM pg_current_xact_id()::text THEN
        PERFORM set_config('bench.slept', pg_current_xact_id()::text, true), pg_sleep(0.002);
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON flujo.journal DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION slow();
"""
"""Let each commit with entries sleep for 2 ms once, as a slow sync does."""


def lanes(uris: Iterator[str]) -> None:
    """Print the steps a second of one process with 1, 2 and 4 stores, each of which has a writer."""
    uri = next(uris)
    with psycopg.connect(uri, autocommit=True) as driver:
        driver.execute(SLOW_COMMIT)
    measured: dict[int, list[float]] = {1: [], 2: [], 4: []}
    for _ in range(5):
        for count, found in measured.items():
            found.append(asyncio.run(_in_lanes(uri, count)))
    for count, found in measured.items():
        low, middle, high = min(found), statistics.median(found), max(found)
        print(f"{count} writers: {middle:,.0f} steps a second ({low:,.0f} to {high:,.0f})", flush=True)


async def _in_lanes(uri: str, count: int) -> float:
    async with AsyncExitStack() as stack:
        runners = []
        for _ in range(count):
            store = await stack.enter_async_context(aclosing(await SqlStateStore.open(uri)))
            runner = Flujo[Any, Any, Any](TREE, store=store, recovery=False)
            runners.append(await stack.enter_async_context(runner))
        began = time.perf_counter()
        for _ in range(6):
            running = (runners[n % count].run_result_async(0) for n in range(AT_ONCE))
            await asyncio.gather(*running)
        return 6 * AT_ONCE * STEPS / (time.perf_counter() - began)


async def _median(act: Callable[[], Any]) -> float:
    """Return the median time in milliseconds."""
    taken = []
    for _ in range(7):
        began = time.perf_counter()
        await act()
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


PARTS = {"processes": processes, "live": live, "lanes": lanes}


def main() -> None:
    """Measure what the command line says."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("part", nargs="?", choices=PARTS)
    asked.add_argument("--disk", default="/var/tmp", help="folder for the data of the server")
    given = asked.parse_args()
    with tempfile.TemporaryDirectory(dir=given.disk) as folder, server("", folder) as pg:

        def fresh() -> Iterator[str]:
            number = 0
            while True:
                number += 1
                with psycopg.connect(pg, autocommit=True) as driver:
                    driver.execute(f"CREATE DATABASE sizing_{number}")
                uri = pg.rpartition("/")[0] + f"/sizing_{number}"
                migrations.migrate(uri)
                yield uri

        for name, part in PARTS.items():
            if given.part in (None, name):
                os.chdir(folder)
                part(fresh())


if __name__ == "__main__":
    main()
