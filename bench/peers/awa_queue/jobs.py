"""The queue of awa-pg that `bench.py` measures and `serve.py` leads through faults."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from awa import AsyncClient


@dataclass
class Bench:
    """A job."""

    data: int


async def filled(uri: str, jobs: int) -> None:
    """Create the tables, and put jobs into the queue."""
    client = AsyncClient(uri)
    await client.migrate()
    await client.insert_many_copy([Bench(number) for number in range(jobs)], queue="bench")
    await client.close()


async def worked(
    uri: str, concurrency: int, execute: Callable[[int], Awaitable[int]], until: Awaitable[Any]
) -> None:
    """Execute jobs until something happens."""
    client = AsyncClient(uri)

    @client.task(Bench, queue="bench")
    async def job(job: Any) -> int:
        return await execute(int(job.args.data))

    await client.start([("bench", concurrency)])
    await until
