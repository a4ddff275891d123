"""A worker of awa-pg among faults; see `faulty.py`."""

import asyncio
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faulty import JOB_S, main, note
from jobs import filled, worked


def fill(uri: str, jobs: int) -> None:
    """Put jobs into the queue."""
    asyncio.run(filled(uri, jobs))


def work(uri: str, _: str, concurrency: int, ledger: str) -> None:
    """Be a worker."""

    async def execute(number: int) -> int:
        await asyncio.sleep(JOB_S)
        note(ledger, number)
        return number

    async def serve() -> None:
        await worked(uri, concurrency, execute, asyncio.Event().wait())

    asyncio.run(serve())


if __name__ == "__main__":
    main(fill, work)
