"""What became of each step of the tree, whatever how often it was executed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo.client import TaskClient
from flujo.domain.run import RunStatus
from flujo.domain.steps import ConditionalStep, HumanInTheLoopStep, MapStep, Step
from flujo.services.inspection.path_taken import Passed, path_taken
from flujo.state.memory_store import MemoryStateStore
from support import Expr, World, call, everything, pipeline, start

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.pipeline import Pipeline
    from flujo.services.inspection.path_taken import Passage


async def taken(tree: Pipeline, value: Any = None, **options: Any) -> Mapping[str, Passage]:
    store = MemoryStateStore()
    await start(tree, store, value, **options)
    found = path_taken(tree, (await TaskClient(store).get_task("run")).trace)
    return {str(path): each for path, each in found.items()}


def odd(data: int) -> int:
    if data % 2:
        raise ValueError(data)
    return data


async def test_steps_are_done_skipped_or_not_reached_and_counted() -> None:
    found = await taken(everything(World()), 1)
    assert {path for path, each in found.items() if each.state is Passed.SKIPPED} == {"never"}
    assert {path for path, each in found.items() if each.state is Passed.NOT_REACHED} == {"route:else/small"}
    assert found["loop"].times == 1
    assert found["loop/tick"].times == found["loop/tock"].times == 3
    assert found["child/double"].state is Passed.DONE


@pytest.mark.parametrize("range_length", [1000, 2])
async def test_the_items_of_a_map_are_counted_with_those_that_failed(range_length: int) -> None:
    each = MapStep("m", over=Expr("[1, 2, 4, 6, 8]"), body=pipeline(Step("odd", odd)), on_error="collect")
    found = await taken(pipeline(each), range_length=range_length)
    assert (found["m/odd"].state, found["m/odd"].times) == (Passed.FAILED, 5)
    assert found["m/odd"].failed == 1
    assert found["m"].state is Passed.DONE


async def test_a_question_waits_with_everything_around_it() -> None:
    ask = pipeline(HumanInTheLoopStep("ask", message="?"), call("after", World().add("after")))
    tree = pipeline(ConditionalStep("if", condition=Expr("true"), branches={"then": ask}))
    found = await taken(tree)
    assert {path: each.state for path, each in found.items()} == {
        "if": Passed.WAITING,
        "if:then/ask": Passed.WAITING,
        "if:then/after": Passed.NOT_REACHED,
    }


async def test_what_has_no_end_runs_waits_or_has_failed_with_its_run() -> None:
    store, tree = MemoryStateStore(), pipeline(call("a", World().add("a")))
    await start(tree, store)
    root = (await TaskClient(store).get_task("run")).trace
    root.children[0].status = "running"
    states = {}
    for status in (RunStatus.RUNNING, RunStatus.INTERRUPTED, RunStatus.CANCELLED):
        root.status = status
        states[status] = next(iter(path_taken(tree, root).values())).state
    assert list(states.values()) == [Passed.RUNNING, Passed.WAITING, Passed.FAILED]
