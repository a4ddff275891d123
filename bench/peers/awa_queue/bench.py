"""Jobs in a queue of awa-pg. Usage: bench.py URI JOBS WORKERS CONCURRENCY; prints one line of JSON."""

import asyncio
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from awa import AsyncClient

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jobs import filled, worked
from workers import SPAWN, arguments, started


async def nothing(number: int) -> int:
    """Be a job."""
    return number


def work(uri: str, concurrency: int, ended: Any, barrier: Any) -> None:
    """Be a worker process."""
    barrier.wait(60)
    asyncio.run(worked(uri, concurrency, nothing, asyncio.to_thread(ended.wait)))


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
