"""A worker of awa-pg among faults; see `faulty.py`."""

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from awa import AsyncClient

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faulty import JOB_S, main, note


@dataclass
class Bench:
    """A job with an effect."""

    data: int


async def filled(uri: str, jobs: int) -> None:
    """Create the tables, and put jobs into the queue."""
    client = AsyncClient(uri)
    await client.migrate()
    await client.insert_many_copy([Bench(number) for number in range(jobs)], queue="bench")
    await client.close()


async def worked(uri: str, concurrency: int, ledger: str) -> None:
    """Execute jobs."""
    client = AsyncClient(uri)

    @client.task(Bench, queue="bench")
    async def job(job: Any) -> int:
        await asyncio.sleep(JOB_S)
        note(ledger, job.args.data)
        return int(job.args.data)

    await client.start([("bench", concurrency)])
    await asyncio.Event().wait()


def fill(uri: str, jobs: int) -> None:
    """Put jobs into the queue."""
    asyncio.run(filled(uri, jobs))


def work(uri: str, _: str, concurrency: int, ledger: str) -> None:
    """Be a worker."""
    asyncio.run(worked(uri, concurrency, ledger))


if __name__ == "__main__":
    main(fill, work)
