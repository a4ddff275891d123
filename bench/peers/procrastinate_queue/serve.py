"""A worker of procrastinate among faults; see `faulty.py`. It has no task that looks for stalled jobs."""

import asyncio
import sys
from pathlib import Path

import procrastinate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faulty import JOB_S, main, note


def app(uri: str, ledger: str = "") -> procrastinate.App:
    """Return the application with its job."""
    made = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=uri))

    @made.task(name="job")
    async def job(data: int) -> int:
        await asyncio.sleep(JOB_S)
        note(ledger, data)
        return data

    return made


async def filled(uri: str, jobs: int) -> None:
    """Make the tables, and put jobs into the queue."""
    async with app(uri).open_async() as made:
        await made.schema_manager.apply_schema_async()
        await made.tasks["job"].batch_defer_async(*({"data": number} for number in range(jobs)))


async def worked(uri: str, concurrency: int, ledger: str) -> None:
    """Execute jobs."""
    async with app(uri, ledger).open_async() as made:
        await made.run_worker_async(concurrency=concurrency)


def fill(uri: str, jobs: int) -> None:
    """Put jobs into the queue."""
    asyncio.run(filled(uri, jobs))


def work(uri: str, _: str, concurrency: int, ledger: str) -> None:
    """Be a worker."""
    asyncio.run(worked(uri, concurrency, ledger))


if __name__ == "__main__":
    main(fill, work)
