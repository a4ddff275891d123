"""`hitl`: choices from data are evaluated when the question is opened, and recorded with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain import canonical
from flujo.domain.choices import MAX_CHOICES
from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.domain.steps import HumanInTheLoopStep
from flujo.exceptions import InputRejected
from flujo.services.runs.runner import Flujo
from support import World, call, pipeline

if TYPE_CHECKING:
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore

RUN = RunId("run")
ANY = {"anyOf": [{"enum": "{{ previous }}"}, {"type": "object", "default": {"enum": "{{ nothing }}"}}]}


def asking(world: World, schema: Any = None, **keys: Any) -> Pipeline:
    """Return a pipeline that asks with choices from the output of a step."""
    ask = HumanInTheLoopStep("ask", "Which?", answer_schema=schema or {"enum": "{{ previous }}"}, **keys)
    return pipeline(call("listed", world.add("listed")), ask, call("after", world.add("after")))


async def test_the_choices_are_those_of_the_moment_of_the_question(store: StateStore) -> None:
    world = World()
    async with Flujo(asking(world, ANY), store=store, recovery=False) as runner:
        asked = await runner.run_result_async(["a b", "c", "a b"], run_id=RUN)
    assert asked.status is RunStatus.PAUSED
    [pause] = await store.pauses(RUN)
    assert canonical.decode(pause.answer_schema or b"") == {
        "anyOf": [{"enum": ["a b", "c"]}, {"type": "object", "default": {"enum": "{{ nothing }}"}}]
    }
    async with Flujo(asking(world, ANY), store=store, recovery=False) as runner:
        with pytest.raises(InputRejected, match="ask"):
            await runner.resume_async(RUN, "d")
        done = await runner.resume_async(RUN, "a b")
    assert (done.output, world.calls) == ("a b", ["listed", "after"])


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("a", "`previous`, are a text, not a list"),
        ([], "are an empty list"),
        (["a", 1], "are a list with a number, and choices are texts"),
        ([""] * (MAX_CHOICES + 1), "are a list of 1001 values, and at most 1000 are allowed"),
    ],
)
async def test_choices_that_are_not_a_list_of_texts_fail_the_step(given: Any, problem: str) -> None:
    async with Flujo(asking(World()), persist_state=False) as runner:
        result = await runner.run_result_async(given)
    assert result.error is not None
    assert (result.error.code, result.error.path) == ("FLJ404", "ask")
    assert problem in result.error.message


async def test_the_answer_of_a_deadline_is_one_of_the_recorded_choices(store: StateStore) -> None:
    tree = asking(World(), deadline_s=0.001, on_deadline={"answer": "z"})
    async with Flujo(tree, store=store, recovery=False) as runner:
        result = await runner.run_result_async(["a", "b"], run_id=RUN)
        async with asyncio.timeout(60):
            while result.status is RunStatus.PAUSED:
                result = await runner.resume_async(RUN)
    assert result.error is not None
    assert "must be one of 'a', 'b', not 'z'" in result.error.message
