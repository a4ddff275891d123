"""A worker of Flujo among faults; see `faulty.py`."""

import asyncio
import os
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from faulty import JOB_S, main, note

import flujo
from flujo import Flujo, Pipeline, Step
from flujo.cli.app import app
from flujo.domain.steps import CallableRef
from flujo.state.sql import migrations
from flujo.state.store import SqlStateStore


async def job(data: int) -> int:
    """Work for a moment."""
    await asyncio.sleep(JOB_S)
    note(os.environ["LEDGER"], data)
    return data


def tree() -> Pipeline:
    """Return the pipeline of a job."""
    return Pipeline((Step(name="job", call=CallableRef.of(job)),), name="job")


async def filled(uri: str, jobs: int) -> None:
    """Put jobs into the queue."""
    async with (
        aclosing(await SqlStateStore.open(uri)) as store,
        Flujo[Any, Any, Any](tree(), store=store, recovery=False) as runner,
    ):
        await asyncio.gather(*(runner.submit(number) for number in range(jobs)))


def fill(uri: str, jobs: int) -> None:
    """Make the tables, and put jobs into the queue."""
    migrations.migrate(uri)
    asyncio.run(filled(uri, jobs))


def work(uri: str, _: str, concurrency: int, ledger: str) -> None:
    """Be `flujo worker`."""
    os.environ |= {"FLUJO_STATE_URI": uri, "LEDGER": ledger}
    flujo.register(tree)
    app(["worker", "--concurrency", str(concurrency)])


if __name__ == "__main__":
    main(fill, work)
