"""Limits that expressions set: evaluated where the step starts, the same after a resume, never above `max`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.run import RunStatus
from flujo.domain.steps import (
    BaseStep,
    HumanInTheLoopStep,
    LoopStep,
    MapStep,
    ParallelStep,
    Save,
    Text,
    TreeSearchStep,
)
from flujo.domain.values import Expr
from flujo.exceptions import PipelineError
from flujo.state.memory_store import MemoryStateStore
from support import COUNTER_SCHEMA, NOTHING, World, answer, call, pipeline, resume, start

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.values import Limited

NOTHING_STEP = call("nothing", NOTHING)


async def test_a_limit_stays_as_it_was_at_the_start_of_the_step() -> None:
    world, store = World(), MemoryStateStore()
    more = call("more", world.add("more", lambda _: 5), save={"total": Save(Expr("output"))})
    ask = HumanInTheLoopStep("ask", Text("go on?"), when="loop.index == 1")
    limit = {"value": "{{ context.total + input }}", "max": 9}
    loop = LoopStep("again", pipeline(more, ask), until=False, max_iterations=limit, on_limit="continue")
    tree = pipeline(loop, context_schema=COUNTER_SCHEMA)
    assert (await start(tree, store, 3)).status is RunStatus.PAUSED
    await answer(store, "again[1]/ask", "yes")
    done = await resume(tree, store)
    assert (done.status, world.calls) == (RunStatus.COMPLETED, ["more"] * 3)


LIMITED: dict[str, Callable[[Limited], BaseStep]] = {
    "max_iterations": lambda limit: LoopStep("s", NOTHING_STEP, until=True, max_iterations=limit),
    "of map": lambda limit: MapStep("s", NOTHING_STEP, over="[1]", max_concurrency=limit),
    "of step": lambda limit: ParallelStep("s", {"a": NOTHING_STEP}, max_concurrency=limit),
    "`max_concurrency`": lambda limit: TreeSearchStep(
        "s", propose=NOTHING, evaluate=NOTHING, max_concurrency=limit
    ),
}


@pytest.mark.parametrize("name", LIMITED)
@pytest.mark.parametrize("value", [0, 10, 1.5, "3", None, True])
async def test_a_limit_out_of_its_range_fails_the_step(name: str, value: Any) -> None:
    step = LIMITED[name]({"value": Expr("input.n"), "max": 9})
    result = await start(pipeline(step), MemoryStateStore(), {"n": value})
    assert result.error is not None
    assert (result.error.code, result.error.path) == ("FLJ404", "s")
    assert name in result.error.message
    assert "not a whole number from 1 to 9" in result.error.message


async def test_a_number_without_a_fraction_is_whole() -> None:
    step = LIMITED["max_iterations"]({"value": "input.n", "max": 9})
    assert (await start(pipeline(step), MemoryStateStore(), {"n": 2.0})).error is None


@pytest.mark.parametrize(
    "limit", [{"value": "input.n"}, {"value": "input.n", "max": 0}, {"max": 3}, "input.n"]
)
def test_a_limit_without_a_maximum_is_refused(limit: Any) -> None:
    with pytest.raises(PipelineError, match="max"):
        LIMITED["max_iterations"](limit)
