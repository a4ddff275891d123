"""A process that answers all questions and resumes all runs as fast as it can, in a race with others.

    python racing_program.py URI NAME RUNS

prints `ready`, waits for a line, then prints as JSON which of the RUNS runs accepted its answer, and which it completed.
Every second run is answered and resumed with one call. Recovery is off: it would complete an answered run in a racer that
counts its own calls alone.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from flujo.domain import canonical
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.pipeline import Pipeline
from flujo.domain.run import RunStatus
from flujo.domain.steps import HumanInTheLoopStep, Text
from flujo.exceptions import ResumeConflict
from flujo.services.runs.runner import Flujo
from flujo.state.store import SqlStateStore

QUESTION = StepPath("ask")


def pipeline() -> Pipeline:
    """Return a pipeline that asks one question and returns the answer."""
    return Pipeline((HumanInTheLoopStep(name="ask", message=Text("Who?")),), name="race")


def run_id(number: int) -> RunId:
    """Return the id of the run of a number."""
    return RunId(f"run-{number:04}")


async def main(uri: str, name: str, runs: int) -> dict[str, list[int]]:
    """Answer and resume all runs, while others do the same."""
    answered, ended = list[int](), list[int]()
    store = await SqlStateStore.open(uri)
    async with Flujo[Any, Any, Any](pipeline(), store=store, recovery=False) as runner:
        print("ready", flush=True)  # noqa: T201 - to the test, which starts all of them at once
        await asyncio.to_thread(sys.stdin.readline)
        for number in range(runs):
            if number % 2:
                await _at_once(runner, number, name, answered, ended)
                continue
            try:
                await store.answer(run_id(number), QUESTION, canonical.encode(name))
                answered.append(number)
            except ResumeConflict:
                pass
            try:
                result = await runner.resume_async(run_id(number))
                if result.status is RunStatus.COMPLETED:
                    ended.append(number)
            except ResumeConflict:
                pass
    await store.aclose()
    return {"answered": answered, "ended": ended}


async def _at_once(
    runner: Flujo[Any, Any, Any], number: int, name: str, answered: list[int], ended: list[int]
) -> None:
    """Answer and resume a run with one call."""
    try:
        result = await runner.resume_async(run_id(number), name)
    except ResumeConflict:
        return
    answered.append(number)
    if result.status is RunStatus.COMPLETED:
        ended.append(number)


if __name__ == "__main__":
    found = asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
    print(json.dumps(found))  # noqa: T201 - the script's output
