"""Jobs in a queue of procrastinate. Usage: bench.py URI JOBS WORKERS CONCURRENCY; prints one line of JSON."""

import asyncio
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import procrastinate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from workers import arguments, drained_s


def app(uri: str) -> procrastinate.App:
    """Return the application with its job."""
    made = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=uri))

    @made.task(name="job")
    async def job(data: int) -> int:
        return data

    return made


async def filled(uri: str, jobs: int) -> None:
    """Put jobs into the queue."""
    async with app(uri).open_async() as made:
        await made.schema_manager.apply_schema_async()
        await made.tasks["job"].batch_defer_async(*({"data": n} for n in range(jobs)))


async def drain(uri: str, concurrency: int, barrier: Any) -> None:
    """Execute everything, from the moment at which all workers are ready."""
    async with app(uri).open_async() as made:
        await asyncio.to_thread(barrier.wait, 60)
        await made.run_worker_async(wait=False, concurrency=concurrency, install_signal_handlers=False)


def work(uri: str, concurrency: int, barrier: Any) -> None:
    """Be a worker process."""
    asyncio.run(drain(uri, concurrency, barrier))


def main() -> None:
    """Measure."""
    uri, jobs, workers, concurrency = arguments()
    asyncio.run(filled(uri, jobs))
    spent = drained_s(work, workers, uri, concurrency)
    versions = f"procrastinate {version('procrastinate')}"
    print(json.dumps({"jobs_per_s": jobs / spent, "versions": versions}))


if __name__ == "__main__":
    main()
