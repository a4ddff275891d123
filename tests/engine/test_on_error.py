"""`on_error` of a composite: its failure is skipped or replaced, and the steps after it can read the error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.journal import RunId
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import RunStatus
from flujo.domain.steps import (
    ConditionalStep,
    DynamicParallelRouterStep,
    GranularStep,
    HumanInTheLoopStep,
    LoopStep,
    ParallelStep,
    SetStep,
    StepConfig,
)
from flujo.domain.usage import Usage, UsageLimits
from flujo.services.inspection.trace import trace
from flujo.services.runs.runner import Flujo
from flujo.testing import ScriptedAgent
from support import World, call, pipeline, resume, start

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.ports import StateStore
    from flujo.domain.steps import BaseStep

FIELDS = {"type": "object", "properties": {"n": {"type": "integer", "default": 0}}}
OTHER = {"output": "instead of {{ previous }}"}


def down(_: Any) -> Any:
    raise ValueError("down")


def inside(world: World) -> list[BaseStep]:
    """Return steps of which the last fails, after a write to the context."""
    return [SetStep("put", {"n": 5}), call("work", world.add("work", down))]


MADE: dict[str, Callable[[list[BaseStep], Any], BaseStep]] = {
    "conditional": lambda steps, on: ConditionalStep("all", condition="true", then=steps, on_error=on),
    "loop": lambda steps, on: LoopStep("all", steps, until="true", on_error=on),
    "parallel": lambda steps, on: ParallelStep("all", {"a": steps}, on_error=on),
    "router": lambda steps, on: DynamicParallelRouterStep(
        "all", {"a": steps}, router=lambda _: ["a"], on_error=on
    ),
}


@pytest.mark.parametrize("kind", MADE)
async def test_a_failure_is_replaced_with_its_error_and_without_its_writes(
    kind: str, store: StateStore
) -> None:
    output = {"given": "{{ previous }}", "n": "{{ context.n }}", "error": "{{ steps.all.error }}"}
    results = {}
    for run_id, instead in (("skip", "skip"), ("other", OTHER), ("fail", "fail")):
        tree = pipeline(MADE[kind](inside(World()), instead), context_schema=FIELDS, output=output)
        results[run_id] = await start(tree, store, "x", run_id=run_id)
    assert results["fail"].status is RunStatus.FAILED
    assert (results["skip"].output["given"], results["skip"].output["n"]) == ("x", 0)
    assert results["other"].output["given"] == "instead of x"
    (shown,) = (await trace(store, await store.run(RunId("other")))).children
    assert (shown.status, shown.fell_back and shown.fell_back.code) == ("completed", "FLJ401")
    error = results["other"].output["error"]
    assert (error["code"], error["path"].rpartition("/")[2], error["type"]) == (
        "FLJ401",
        "work",
        "ValueError",
    )


async def test_a_step_that_does_not_fail_has_no_error(store: StateStore) -> None:
    work = call("work", World().add("work", lambda data: data + 1))
    tree = pipeline(
        LoopStep("all", work, until="true", on_error="skip"),
        output=["{{ previous }}", "{{ steps.all.error }}"],
    )
    assert (await start(tree, store, 1)).output == [2, None]


async def test_all_attempts_are_made_first_and_a_resumed_run_makes_none_again(store: StateStore) -> None:
    world, fails = World(), [True]

    def fragile(data: Any) -> Any:
        if fails.pop():
            raise ValueError("later")
        return data

    retried = StepConfig(max_retries=2, retry=RetryPolicy(backoff="none", on=("FLJ401",)))
    tree = pipeline(
        LoopStep("all", call("work", world.add("work", down)), until="true", on_error=OTHER, config=retried),
        call("z", world.add("z", fragile)),
    )
    fails[:] = [False, True]
    assert (await start(tree, store, "x")).status is RunStatus.FAILED
    assert world.calls == ["work"] * 3 + ["z"]
    assert (await resume(tree, store, retry_failed=True)).output == "instead of x"
    assert world.calls == ["work"] * 3 + ["z"] * 2
    async with Flujo[Any, Any, Any](tree, store=store, recovery=False) as runner:
        assert (await runner.replay_from_trace("run")).output == "instead of x"


async def test_questions_of_the_branches_of_a_replaced_step_are_void(store: StateStore) -> None:
    ask = HumanInTheLoopStep("ask", message="well?")
    branches = {"a": ask, "b": call("work", World().add("work", down))}
    tree = pipeline(ParallelStep("all", branches, on_error="skip"), call("z", World().add("z")))
    assert (await start(tree, store, "x")).output == "x"
    assert not [pause for pause in await store.pauses(RunId("run")) if pause.is_open]


async def test_a_limit_of_the_run_is_not_skipped(store: StateStore) -> None:
    asks = [
        GranularStep(f"ask{n}", ScriptedAgent(["a"], usage=Usage(requests=1)), input="?") for n in range(2)
    ]
    tree = pipeline(ConditionalStep("all", condition="true", then=asks, on_error="skip"))
    async with Flujo[Any, Any, Any](tree, store=store, usage_limits=UsageLimits(requests_limit=1)) as runner:
        result = await runner.run_result_async("x")
    assert result.error is not None
    assert (result.status, result.error.type) == (RunStatus.FAILED, "UsageLimitExceeded")
