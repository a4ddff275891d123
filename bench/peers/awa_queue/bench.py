"""Jobs in a queue of awa-pg. Usage: bench.py URI JOBS WORKERS CONCURRENCY; prints one line of JSON."""

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from awa import AsyncClient

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from workers import SPAWN, arguments, started


@dataclass
class Bench:
    """A job that does nothing."""

    data: int


async def filled(uri: str, jobs: int) -> None:
    """Create the tables, and put jobs into the queue."""
    client = AsyncClient(uri)
    await client.migrate()
    await client.insert_many_copy([Bench(number) for number in range(jobs)], queue="bench")
    await client.close()


async def worked(uri: str, concurrency: int, ended: Any) -> None:
    """Execute jobs until the measurement has ended."""
    client = AsyncClient(uri)

    @client.task(Bench, queue="bench")
    async def job(job: Any) -> int:
        return int(job.args.data)

    await client.start([("bench", concurrency)])
    await asyncio.to_thread(ended.wait)


def work(uri: str, concurrency: int, ended: Any, barrier: Any) -> None:
    """Be a worker process."""
    barrier.wait(60)
    asyncio.run(worked(uri, concurrency, ended))


async def spent_s(uri: str, jobs: int) -> tuple[float, int]:
    """Return the seconds from the first completion seen to the last one, and the completions between them."""
    client = AsyncClient(uri)

    async def done() -> int:
        return sum(each.completed_last_hour for each in await client.queue_stats())

    while not (first := await done()):  # noqa: ASYNC110 - it observes from outside
        await asyncio.sleep(0.005)
    began = time.perf_counter()
    while await done() < jobs:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0.02)
    return time.perf_counter() - began, jobs - first


def main() -> None:
    """Measure from the first completion, because a worker takes jobs as soon as it is started."""
    uri, jobs, workers, concurrency = arguments()
    asyncio.run(filled(uri, jobs))
    ended = SPAWN.Event()
    processes = started(work, workers, uri, concurrency, ended)
    spent, counted = asyncio.run(spent_s(uri, jobs))
    ended.set()
    for process in processes:
        process.kill()
    print(json.dumps({"jobs_per_s": counted / spent, "versions": f"awa-pg {version('awa-pg')}"}))


if __name__ == "__main__":
    main()
