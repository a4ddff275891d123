"""Seconds from data: of an attempt, of a question, of a wait for an event."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flujo import Flujo
from flujo.domain.run import RunStatus
from flujo.domain.steps import (
    BaseStep,
    CallableRef,
    EventStep,
    Expr,
    HumanInTheLoopStep,
    LoopStep,
    StepConfig,
)
from flujo.exceptions import PipelineError
from flujo.state.memory_store import MemoryStateStore
from support import call, pipeline, resume, start

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.store import StateStore
    from flujo.domain.values import TimeLimited

RUN = "r"


async def _long(_: Any) -> None:
    await asyncio.sleep(60)


LONG = call("long", CallableRef.of(_long))
LIMITED: dict[str, Callable[[TimeLimited], BaseStep]] = {
    "timeout_s": lambda limit: call("s", CallableRef.of(_long), config=StepConfig(timeout_s=limit)),
    "timeout_s of a composite": lambda limit: LoopStep(
        "s", LONG, until=True, config=StepConfig(timeout_s=limit)
    ),
    "deadline_s": lambda limit: HumanInTheLoopStep("s", "ok?", deadline_s=limit),
    "deadline_s of an event": lambda limit: EventStep("s", deadline_s=limit),
}


@pytest.mark.parametrize("name", LIMITED)
@pytest.mark.parametrize("value", [0, 10.5, "3", None, True])
async def test_seconds_out_of_their_range_fail_the_step(name: str, value: Any) -> None:
    step = LIMITED[name]({"value": Expr("input.n"), "max": 10})
    result = await start(pipeline(step), MemoryStateStore(), {"n": value})
    assert result.error is not None
    assert (result.error.code, result.error.path) == ("FLJ404", "s")
    assert f"`{name.partition(' ')[0]}` of step 's'" in result.error.message
    assert "not a number of seconds above 0, up to 10" in result.error.message


@pytest.mark.parametrize("name", ["timeout_s", "timeout_s of a composite"])
async def test_an_attempt_ends_after_the_seconds_of_its_expression(name: str) -> None:
    step = LIMITED[name]({"value": "{{ input.n }}", "max": 10})
    result = await start(pipeline(step), MemoryStateStore(), {"n": 0.001})
    assert result.error is not None
    assert (result.error.code, result.error.path) == ("FLJ403", "s")
    assert "its `timeout_s` of 0.001 s" in result.error.message


@pytest.mark.parametrize("name", ["deadline_s", "deadline_s of an event"])
async def test_a_deadline_from_data_stays_as_it_was_recorded(name: str) -> None:
    store = MemoryStateStore()
    tree = pipeline(LIMITED[name]({"value": "input.n", "max": 100}))
    opened = (await start(tree, store, {"n": 90})).pauses[0]
    again = (await resume(tree, store)).pauses[0]
    assert opened.deadline_s == 90
    assert opened.deadline_at == again.deadline_at


async def test_a_deadline_from_data_passes(store: StateStore) -> None:
    tree = pipeline(LIMITED["deadline_s"]({"value": "input.n", "max": 100}))
    async with Flujo(tree, store=store, recovery=False) as runner:
        result = await runner.run_result_async({"n": 0.001}, run_id=RUN)
        async with asyncio.timeout(60):
            while result.status is RunStatus.PAUSED:
                result = await runner.resume_async(RUN)
    assert result.error is not None
    assert (result.error.code, result.error.path) == ("FLJ440", "s")
    assert "within its `deadline_s` of 0.001 s" in result.error.message


@pytest.mark.parametrize(
    "limit", [{"value": "input.n"}, {"value": "input.n", "max": 0}, {"max": 3}, "input.n", -1, True]
)
@pytest.mark.parametrize("name", ["timeout_s", "deadline_s", "deadline_s of an event"])
def test_seconds_without_a_maximum_are_refused(name: str, limit: Any) -> None:
    with pytest.raises(PipelineError, match=f"{name.partition(' ')[0]}.*expected"):
        LIMITED[name](limit)
