"""How soon a run that waits in one process continues when another process settles its wait, on one Postgres.

    python bench/wakeups.py
    python bench/wakeups.py --rounds 500 --pg postgresql://user:password@host/database

In each round a run waits, in a process that has nothing else to do, for an event, for the answer of a human,
or for a task in a queue. This process settles the wait. Measured is the time from before that commit to the
next step of the run, by the clock of the machine, so the claim and the journal are included.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from contextlib import aclosing
from typing import IO, Any

from postgres import server

from flujo import Flujo, TaskClient
from flujo.domain.pipeline import Pipeline
from flujo.domain.queues import ClaimOrder, QueueLimits
from flujo.domain.run import Move, RunStatus, Write
from flujo.domain.steps import AwaitStep, BaseStep, EventStep, HumanInTheLoopStep, Step, StepConfig
from flujo.state.sql import migrations
from flujo.state.store import SqlStateStore

KINDS = ("event", "answer", "task")
REST_S = 0.05
QUEUE = ClaimOrder(queues=(("default", QueueLimits()),), limit=1)


def _now(_: Any) -> float:
    return time.time()


def _waiting(kind: str) -> Pipeline:
    """Return a pipeline that waits, and then returns the time."""
    launch = Step("task", _now, config=StepConfig(execution_mode="background", queue="default"))
    waits: dict[str, list[BaseStep]] = {
        "event": [EventStep("paid")],
        "answer": [HumanInTheLoopStep("ask", message="?")],
        "task": [launch, AwaitStep("wait", task="task")],
    }
    return Pipeline((*waits[kind], Step("now", _now)), name=kind)


async def _wait(uri: str, kind: str, rounds: int) -> None:
    """Start the runs, one after another, and print the time at which each has continued."""
    async with aclosing(SqlStateStore(uri)) as store, Flujo(_waiting(kind), store=store) as runner:
        client = TaskClient(store)
        await asyncio.sleep(1)  # until it listens
        for number in range(rounds):
            run_id = f"{kind}-{number}"
            await runner.run_result_async(0, run_id=run_id)
            print(run_id, flush=True)
            # `wait` also returns at an open question.
            while (result := await client.wait(run_id)).status is not RunStatus.COMPLETED:  # noqa: ASYNC110
                await asyncio.sleep(REST_S / 2)
            print(result.output, flush=True)


def _measured(uri: str, kind: str, rounds: int) -> list[float]:
    """Return the milliseconds from the settling of each wait to the next step."""
    words = [sys.executable, __file__, "--wait", kind, "--pg", uri, "--rounds", str(rounds)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as waiter:
        assert waiter.stdout is not None
        return asyncio.run(_measure(uri, kind, rounds, waiter.stdout))


async def _measure(uri: str, kind: str, rounds: int, told: IO[str]) -> list[float]:
    found = []
    async with aclosing(SqlStateStore(uri)) as store:
        client = TaskClient(store)
        for _ in range(rounds):
            run_id = told.readline().strip()
            await asyncio.sleep(REST_S)
            tasks = await store.claim_next(QUEUE)
            began = time.time()
            if kind == "event":
                await client.send_event("paid", 1, run_id=run_id)
            elif kind == "answer":
                await client.resume_task(run_id, "yes")
            for task in tasks:
                end = Move(status=RunStatus.COMPLETED, output=b"1")
                await store.write(Write(run_id=task.run_id, fence=task.fence, move=end))
            found.append(1000 * (float(told.readline()) - began))
    return found


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description="wake-ups of runs that wait")
    parser.add_argument("--pg", default="", help="URI of an empty Postgres; default: one that it starts")
    parser.add_argument("--disk", default="/var/tmp", help="folder for the data of the server")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--wait", choices=KINDS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.wait:
        asyncio.run(_wait(given.pg, given.wait, given.rounds))
        return
    with server(given.pg, given.disk) as uri:
        migrations.migrate(uri)
        found = {kind: _measured(uri, kind, given.rounds) for kind in KINDS}
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {given.rounds} rounds of each.\n")
    print("| A run waits for | median | p95 |\n|---|---|---|")
    for kind, times in found.items():
        p95 = statistics.quantiles(times, n=20)[-1]
        print(f"| {kind} | {statistics.median(times):.1f} ms | {p95:.1f} ms |")


if __name__ == "__main__":
    main()
