"""Forks a run with an answer given beforehand, in a process that kills itself before the answer is used.

    python dying_fork.py URI step|answer

`step`: in the step before the question. `answer`: when the question is open, before its answer is recorded.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from flujo.domain.journal import RunId
from flujo.domain.pipeline import Pipeline
from flujo.domain.steps import CallableRef, HumanInTheLoopStep, Step
from flujo.services.runs.runner import Flujo
from flujo.state.store import SqlStateStore

PARENT, FORK = RunId("parent"), RunId("fork")


def tree(dies_in: str = "") -> Pipeline:
    """Return a step, a question, and a step that uses the answer."""

    def first(data: int) -> int:
        if dies_in == "step":
            os.kill(os.getpid(), signal.SIGKILL)
        return data + 1

    ask = HumanInTheLoopStep("ask", message="How many?", answer_schema={"type": "integer"})
    last = Step("last", CallableRef("w:last", lambda data: data * 10), effect="read")
    return Pipeline((Step("first", CallableRef("w:first", first), effect="read"), ask, last), "counted")


async def main(uri: str, dies_in: str) -> None:
    """Execute the run to its question, and fork it from the start."""
    store = await SqlStateStore.open(uri)
    async with Flujo[Any, Any, Any](tree(), store=store, recovery=False) as runner:
        await runner.run_result_async(1, run_id=PARENT)
    if dies_in == "answer":

        async def die(*_: Any, **__: Any) -> Any:
            os.kill(os.getpid(), signal.SIGKILL)

        store.answer = die  # type: ignore[method-assign]
    async with Flujo[Any, Any, Any](tree(dies_in), store=store, recovery=False) as runner:
        await runner.fork_async(PARENT, at="first", answers={"ask": 4}, new_run_id=FORK, by="ada")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
