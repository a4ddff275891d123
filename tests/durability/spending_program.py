"""A process that makes runs of an agent under a budget that other processes share.

    python spending_program.py URI FOLDER NAME RUNS

runs in FOLDER, which has the flujo.toml with the rule. It prints `ready`, waits for a line, then executes RUNS runs at once. Each
request that is made is a line in FOLDER/NAME.log, written before the answer.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flujo.domain.pipeline import Pipeline
from flujo.domain.steps import CallableRef, Step
from flujo.domain.usage import Usage
from flujo.services.runs.runner import Flujo
from flujo.state.store import SqlStateStore
from flujo.testing import ScriptedAgent

if TYPE_CHECKING:
    from flujo.domain.agents import Ask

USED = Usage(requests=1, cost_micro_usd=100)
WORST = Usage(requests=1, cost_micro_usd=250)


def pipeline(log: Path) -> Pipeline:
    """Return two requests, one after the other; each notes that it is made."""

    def answer(ask: Ask) -> Any:
        with log.open("a", encoding="utf-8") as file:
            file.write("made\n")
        return ask.data

    agent: Any = ScriptedAgent(answer, usage=USED, worst=WORST)
    steps = [Step(name=name, call=CallableRef(f"spending:{name}", agent)) for name in ("a", "b")]
    return Pipeline(tuple(steps), name="spending")


async def main(uri: str, folder: Path, name: str, runs: int) -> None:
    """Execute the runs, and report when all have ended."""
    os.chdir(folder)
    store = await SqlStateStore.open(uri)
    async with Flujo[Any, Any, Any](pipeline(folder / f"{name}.log"), store=store, recovery=False) as runner:
        print("ready", flush=True)  # noqa: T201 - to the test, which starts all of them at once
        await asyncio.to_thread(sys.stdin.readline)
        made = (runner.run_result_async("x", run_id=f"{name}-{number}") for number in range(runs))
        await asyncio.gather(*made)
    await store.aclose()
    print("ended", flush=True)  # noqa: T201 - as above


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
