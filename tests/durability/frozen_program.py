"""A process that executes a run, or claims it as soon as possible, and prints the result. Tests freeze it.

    python frozen_program.py URI FOLDER RUN [COMMIT]

With COMMIT, it freezes itself inside the transaction of that commit. It prints `fenced` when another process has claimed
the run meanwhile, otherwise the output of the run.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from itertools import count
from pathlib import Path
from typing import Any

from durability.world import World
from flujo.domain.pipeline import Pipeline
from flujo.domain.steps import CallableRef, Step
from flujo.exceptions import Fenced, ResumeConflict
from flujo.services.runs.runner import Flujo
from flujo.state.store import SqlStateStore
from flujo.testing.sql_probe import probe

LEASE_S = 0.6
STEPS = 8
WORK_S = 0.03


def pipeline(world: World, run: str) -> Pipeline:
    """Return steps that each log an effect and their process; every other step is announced first."""

    def step(number: int) -> Step:
        async def call(data: int) -> int:
            world.effect(f"{run}:{number}", os.getpid())
            await asyncio.sleep(WORK_S)
            return data + 1

        announced: dict[str, Any] = (
            {"enforce_idempotency": True, "in_doubt": "retry_same_key"} if number % 2 else {}
        )
        return Step(name=f"s{number}", call=CallableRef(f"frozen:{number}", call), **announced)

    return Pipeline([step(number) for number in range(STEPS)], name="frozen")


async def main(uri: str, folder: Path, run: str) -> str:
    """Execute the run; wait while another process holds it."""
    store = SqlStateStore(uri, lease_s=LEASE_S, renew_s=LEASE_S / 6)
    try:
        async with Flujo[Any, Any, Any](pipeline(World(folder), run), store=store) as runner:
            while True:
                try:
                    return str((await runner.run_result_async(0, run_id=run)).output)
                except ResumeConflict:
                    await asyncio.sleep(0.05)
                except Fenced:
                    return "fenced"
    finally:
        await store.aclose()


def freeze_inside(commit: int) -> None:
    """Freeze this process when it is about to commit changes for the `commit`-th time."""
    commits, changes = count(1), list[str]()

    def listen(what: str) -> None:
        if what in ("after INSERT", "after UPDATE"):
            changes.append(what)
        elif what == "before COMMIT" and changes:
            changes.clear()
            if next(commits) == commit:
                signal.raise_signal(signal.SIGSTOP)  # this thread stops here

    probe(listen)


if __name__ == "__main__":
    if len(sys.argv) > 4:
        freeze_inside(int(sys.argv[4]))
    print(asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])))  # noqa: T201 - the script's output
