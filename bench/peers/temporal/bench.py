"""Temporal: its development server on a SQLite file, with one worker in this process.

A step is an activity. The server syncs each commit (WAL and FULL, as Flujo does).
"""

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from server import Ports, running  # isort: skip - adds the harness to the path
from common.harness import Run, bounded, main, payload
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

QUEUE = "bench"
RECOVERED = "recover"
AT_ONCE = 100
PATIENCE = timedelta(seconds=10)
"""After this time the server starts an activity again whose worker has died."""

current: dict[str, Run] = {}


@activity.defn
async def step(number: int) -> dict[str, Any]:
    return payload(number)


@activity.defn
async def logged(number: int) -> dict[str, Any]:
    current["run"].log_step(number)
    return payload(number)


@workflow.defn
class Chain:
    """Steps, one after another."""

    @workflow.run
    async def run(self, name: str, steps: int) -> int:
        """Execute one activity many times."""
        for number in range(steps):
            await workflow.execute_activity(name, number, start_to_close_timeout=PATIENCE)
        return steps


@asynccontextmanager
async def client(ports: Ports) -> AsyncIterator[Client]:
    """Connect, and run a worker meanwhile."""
    connected = await _connected(f"127.0.0.1:{ports['frontend']}")
    async with Worker(
        connected,
        task_queue=QUEUE,
        workflows=[Chain],
        activities=[step, logged],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_concurrent_activities=AT_ONCE,
        max_concurrent_workflow_tasks=AT_ONCE,
    ):
        yield connected


async def _connected(address: str) -> Client:
    """Return a client when the server has its namespace, shortly after it listens."""
    for _ in range(200):
        try:
            connected = await Client.connect(address)
            await connected.count_workflows()
        except (RPCError, RuntimeError):
            await asyncio.sleep(0.1)
        else:
            return connected
    raise SystemExit(f"the server at {address} has no namespace `default`")


async def w1(run: Run, ports: Ports) -> None:
    async with client(ports) as temporal:
        with run.timed():
            await temporal.execute_workflow(
                Chain.run, args=["step", run.n], id=uuid.uuid4().hex, task_queue=QUEUE
            )


async def w2(run: Run, ports: Ports) -> None:
    async with client(ports) as temporal:

        async def one() -> None:
            await temporal.execute_workflow(
                Chain.run, args=["step", 3], id=uuid.uuid4().hex, task_queue=QUEUE
            )

        with run.timed():
            await bounded(run.concurrency, (one for _ in range(run.n)))


async def w9(run: Run, ports: Ports) -> None:
    current["run"] = run
    async with client(ports) as temporal:
        with run.timed():
            if run.phase == "crash":
                await temporal.execute_workflow(
                    Chain.run, args=["logged", run.n], id=RECOVERED, task_queue=QUEUE
                )
            else:
                await temporal.get_workflow_handle(RECOVERED).result()


def command(folder: Path, ports: Ports) -> list[str]:
    """Return the command line of the server."""
    pragmas = ("journal_mode=wal", "synchronous=full")
    return [
        str(Path(sys.executable).parent / "temporal"),
        *("server", "start-dev", "--headless", "--ip", "127.0.0.1", "--log-level", "error"),
        *("--port", str(ports["frontend"]), "--db-filename", str(folder / "temporal.db")),
        *(word for pragma in pragmas for word in ("--sqlite-pragma", pragma)),
    ]


if __name__ == "__main__":
    with running(("frontend",), command) as found:
        workloads = {
            name: lambda run, measured=measured: measured(run, found)
            for name, measured in {"W1": w1, "W2": w2, "W9": w9}.items()
        }
        main("temporal", "temporalio", workloads, backends=("sqlite",), hard_exit=False)
