"""Jobs in a queue of Flujo. Usage: bench.py URI JOBS WORKERS CONCURRENCY; prints one line of JSON."""

import asyncio
import json
import statistics
import sys
import time
from contextlib import aclosing
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import psycopg

import flujo
from flujo import Flujo, Pipeline, Step, __version__
from flujo.domain.queues import NO_LIMITS, ClaimOrder
from flujo.domain.run import RunRecord, RunStatus
from flujo.domain.steps import CallableRef
from flujo.services.project.project import find_project
from flujo.services.runs.queue_consumer import QueueConsumer
from flujo.services.runs.run_services import RunServices
from flujo.services.workspace import Workspace
from flujo.settings import load
from flujo.state.sql import migrations
from flujo.state.store import SqlStateStore

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from workers import arguments, drained_s

ORDER = ClaimOrder(queues=(("default", NO_LIMITS),), limit=1)
STARTED: dict[int, float] = {}


async def job(data: int) -> int:
    """Do nothing."""
    STARTED[data] = time.time()
    return data


def tree() -> Pipeline:
    """Return the pipeline of a job."""
    return Pipeline((Step(name="job", call=CallableRef.of(job)),), name="job")


flujo.register(tree)


def consumer(services: RunServices, store: SqlStateStore, concurrency: int) -> QueueConsumer:
    """Return what a worker claims and executes runs with."""

    async def opened() -> SqlStateStore:
        return store

    async def prepare(record: RunRecord) -> Any:
        service = await services.of_run(record)

        async def execute(stop: Any) -> None:
            await service.execute(record, max_recoveries=3, stop=stop)

        return execute

    return QueueConsumer(
        opened,
        ORDER,
        at_once=concurrency,
        retries={},
        prepare=prepare,
        tell=lambda *words: print(*words, file=sys.stderr),
    )


async def services_on(store: SqlStateStore) -> RunServices:
    """Return the services of an empty project on a store."""
    workspace = Workspace(find_project(Path.cwd()))
    workspace._store = store
    return await RunServices.of_project(workspace)


async def drain(uri: str, concurrency: int, barrier: Barrier) -> None:
    """Execute everything, from the moment at which all workers are ready."""
    async with aclosing(await SqlStateStore.open(uri)) as store:
        working = consumer(await services_on(store), store, concurrency)
        await asyncio.to_thread(barrier.wait, 60)
        await working.drain(later=True)


def work(uri: str, concurrency: int, barrier: Barrier) -> None:
    """Be a worker process."""
    asyncio.run(drain(uri, concurrency, barrier))


async def filled(uri: str, jobs: int) -> None:
    """Put jobs into the queue."""
    async with (
        aclosing(await SqlStateStore.open(uri)) as store,
        Flujo[Any, Any, Any](tree(), store=store, recovery=False) as runner,
    ):
        for start in range(0, jobs, 500):
            await asyncio.gather(*(runner.submit(n) for n in range(start, min(jobs, start + 500))))


async def wake_up(uri: str, enqueues: int = 100) -> tuple[float, float]:
    """Return the 95th percentile from submit to start in ms, and transactions a second of idling."""
    async with (
        aclosing(await SqlStateStore.open(uri)) as mine,
        aclosing(await SqlStateStore.open(uri)) as other,
        Flujo[Any, Any, Any](tree(), store=other, recovery=False) as runner,
    ):
        working = asyncio.ensure_future(consumer(await services_on(mine), mine, 10).consume())
        await asyncio.sleep(1)
        waits = []
        for number in range(10**6, 10**6 + enqueues):
            await runner.submit(number)
            submitted = time.time()
            while number not in STARTED:  # noqa: ASYNC110 - an event would measure itself
                await asyncio.sleep(0.0002)
            waits.append(max(0.0, STARTED[number] - submitted) * 1000)
        await asyncio.sleep(2)  # until the server has counted what was before
        before, began = _transactions(uri), time.monotonic()
        await asyncio.sleep(5)
        idle = (_transactions(uri) - before) / (time.monotonic() - began)
        working.cancel()
        await asyncio.wait([working])
    return statistics.quantiles(waits, n=20)[-1], idle


def _transactions(uri: str) -> int:
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute("SELECT pg_stat_force_next_flush(), pg_stat_clear_snapshot()")
        found = connection.execute(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone()
    return int(found[0]) if found else 0


def main() -> None:
    """Measure."""
    uri, jobs, workers, concurrency = arguments()
    load()
    migrations.migrate(uri)
    asyncio.run(filled(uri, jobs))
    spent = drained_s(work, workers, uri, concurrency)
    with psycopg.connect(uri) as connection:
        query = "SELECT count(*) FROM flujo.runs WHERE status = %s AND claims = 1"
        [done] = connection.execute(query, [str(RunStatus.COMPLETED)]).fetchone() or [0]
    if done != jobs:
        raise SystemExit(f"{done} of {jobs} jobs were executed once")
    wake_ms, idle = asyncio.run(wake_up(uri)) if workers == 1 else (0.0, 0.0)
    figures = {"jobs_per_s": jobs / spent, "wake_ms": wake_ms, "idle_queries_per_s": idle}
    print(json.dumps({**figures, "versions": f"flujo {__version__}"}))


if __name__ == "__main__":
    main()
