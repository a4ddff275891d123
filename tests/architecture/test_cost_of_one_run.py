"""The functions of Flujo that a later run of a pipeline calls: what its pipeline knows is not found out again.

Times depend on the machine; counts do not. A ceiling is raised only for what every run needs.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flujo
from flujo import Flujo, HumanInTheLoopStep, Pipeline, Step
from flujo.domain.steps import CallableRef, Text
from flujo.state.memory_store import MemoryStateStore

if TYPE_CHECKING:
    from types import FrameType

INSIDE = f"{Path(flujo.__file__).parent}{os.sep}"
AT_MOST_OF_THREE_STEPS = 314
AT_MOST_OF_A_QUESTION = 517
OF_THE_PIPELINE = {
    "domain/choices.py:fixed",
    "domain/personal_data.py:pii_of",
    "domain/pipeline.py:_below",
    "engine/interpreter.py:_riding",
    "services/checks/pseudonyms.py:_has_pseudonyms",
}
"""Functions whose result is the same for all runs of a pipeline, or of a store."""
_RESUMED = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


class Calls:
    """A profiler that counts the calls of Flujo's functions while it is entered.

    A coroutine counts once, however often it is resumed. Comprehensions are left out, because they are functions in
    some versions of Python only.
    """

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()
        self._begun: set[FrameType] = set()

    def __enter__(self) -> Calls:
        self._before = sys.getprofile()
        sys.setprofile(self)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(INSIDE) or code.co_name.endswith("comp>"):
            return
        if code.co_flags & _RESUMED:
            if frame in self._begun:
                return
            self._begun.add(frame)
        self.of[f"{code.co_filename.removeprefix(INSIDE)}:{code.co_name}"] += 1


async def same(data: object) -> object:
    return data


def called(name: str) -> Step:
    return Step(name=name, call=CallableRef.of(same))


async def test_a_later_run_of_three_steps_calls_few_functions() -> None:
    tree = Pipeline(tuple(map(called, ("first", "second", "third"))), name="three")
    async with Flujo(tree, store=MemoryStateStore()) as runner:
        await runner.run_result_async("x")
        with Calls() as calls:
            await runner.run_result_async("x")
    assert calls.of.total() <= AT_MOST_OF_THREE_STEPS, calls.of.most_common()
    assert not set(calls.of) & OF_THE_PIPELINE


async def test_a_later_question_and_its_answer_call_few_functions() -> None:
    ask = HumanInTheLoopStep(name="ask", message=Text("continue?"))
    async with Flujo(Pipeline((called("first"), ask), name="ask"), store=MemoryStateStore()) as runner:

        async def cycle() -> None:
            paused = await runner.run_result_async("x")
            assert (await runner.resume_async(paused.run_id, "yes")).output == "yes"

        await cycle()
        with Calls() as calls:
            await cycle()
    assert calls.of.total() <= AT_MOST_OF_A_QUESTION, calls.of.most_common()
    assert not set(calls.of) & OF_THE_PIPELINE
