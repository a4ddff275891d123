"""`on_failure` of a pipeline: steps after a failure, before the run ends as failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.journal import RunId
from flujo.domain.paths import END, StepPath
from flujo.domain.run import RunStatus
from flujo.domain.steps import GranularStep, HumanInTheLoopStep, LoopStep, ParallelStep, SetStep
from flujo.domain.usage import Usage, UsageLimits
from flujo.exceptions import ForkRefused, PipelineAbortSignal, ResumeConflict, RunConflict
from flujo.services.inspection.trace import trace
from flujo.services.runs.runner import Flujo
from flujo.testing import ScriptedAgent
from support import World, call, fork, pipeline, resume, start

if TYPE_CHECKING:
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore

FIELDS = {"type": "object", "properties": {"hold": {"type": "string", "default": ""}}}
TOLD = {"step": "{{ failure.step }}", "why": "{{ failure.error.message }}", "hold": "{{ context.hold }}"}


def down(_: Any) -> Any:
    raise ValueError("down")


def failing(world: World, *after: Any, **more: Any) -> Pipeline:
    """Return a pipeline whose second step fails after a write to the context, with steps after the failure."""
    steps = [SetStep("reserve", {"hold": "h-1"}), call("charge", world.add("charge", down))]
    return pipeline(*steps, context_schema=FIELDS, on_failure=after, **more)


async def test_the_steps_see_the_failure_and_the_context_and_the_run_fails_with_its_error(
    store: StateStore,
) -> None:
    world = World()
    seen: list[Any] = []
    tell = call("tell", world.add("tell", seen.append), input=TOLD)
    tree = failing(world, call("first", world.add("first", seen.append)), tell)
    result = await start(tree, store, "x")
    assert world.calls == ["charge", "first", "tell"]
    first, told = seen
    assert first["error"]["path"] == "charge"  # without `input`, a step gets the failure
    assert told == {"step": "charge", "why": "ValueError: down", "hold": "h-1"}
    assert result.error is not None
    assert (result.status, result.error.path, result.error.is_handled) == (RunStatus.FAILED, "charge", True)
    assert [each.path for each in result.steps][-2:] == [":failure/first", ":failure/tell"]
    record = await store.run(RunId("run"))
    shown = {each.path: each.status for each in (await trace(store, record)).children}
    assert (shown[END], shown[StepPath(":failure")]) == ("completed", "completed")
    async with Flujo[Any, Any, Any](tree, store=store, recovery=False) as runner:
        assert (await runner.replay_from_trace("run")).error == result.error


async def test_nothing_is_executed_after_a_success_or_a_cancellation(store: StateStore) -> None:
    def abort(_: Any) -> Any:
        raise PipelineAbortSignal("enough")

    world = World()
    for run_id, work in (("good", str), ("cancelled", abort)):
        tree = pipeline(call("work", world.add("work", work)), on_failure=call("never", world.add("never")))
        await start(tree, store, 1, run_id=run_id)
    assert world.calls == ["work", "work"]


async def test_a_run_that_asks_after_a_failure_continues_there(store: StateStore) -> None:
    world = World()
    ask = HumanInTheLoopStep("ask", message="{{ failure.error.code }}?")
    tree = failing(world, call("undo", world.add("undo")), ask, call("tell", world.add("tell", str)))
    paused = await start(tree, store, "x")
    assert (paused.status, paused.pauses[0].pause_id) == (RunStatus.PAUSED, ":failure/ask")
    assert paused.pauses[0].message == "FLJ401?"
    result = await resume(tree, store, answer="yes")
    assert (result.status, world.calls) == (RunStatus.FAILED, ["charge", "undo", "tell"])
    assert result.context is not None
    assert result.context.hold == "h-1"


async def test_a_failed_on_failure_is_named_and_can_be_retried(store: StateStore) -> None:
    world, fails = World(), [True]

    def fragile(data: Any) -> Any:
        if fails.pop():
            raise ValueError("no mail")
        return data

    tree = failing(world, call("undo", world.add("undo")), call("tell", world.add("tell", fragile)))
    result = await start(tree, store, "x")
    assert result.error is not None
    assert result.error.message == (
        "ValueError: down; `on_failure` failed too, at `:failure/tell`: ValueError: no mail"
    )
    assert (result.error.path, result.error.is_handled) == ("charge", False)
    fails[:] = [False]
    again = await resume(tree, store, retry_failed=True)
    assert again.error is not None
    assert (again.error.message, again.error.is_handled) == ("ValueError: down", True)
    assert world.calls == ["charge", "undo", "tell", "tell"]
    with pytest.raises(ResumeConflict, match="no step is tried again"):
        await resume(tree, store, retry_failed=True)
    async with Flujo(tree, store=store) as runner:
        with pytest.raises(RunConflict) as refused:
            await runner.run_result_async("x", run_id="run", if_exists="fail")
    assert refused.value.hint is not None
    assert "--retry-failed" not in refused.value.hint
    assert "`flujo fork run --at PATH --live-effects` begins a new run" in refused.value.hint


async def test_a_fork_at_the_failed_step_executes_it_again(store: StateStore) -> None:
    world = World()
    tree = failing(world, call("undo", world.add("undo")))
    await start(tree, store, "x")
    forked = await fork(tree, store, at="charge", live_effects=True)
    assert (forked.status, world.calls) == (RunStatus.FAILED, ["charge", "undo"] * 2)
    await fork(tree, store, at=":failure/undo", live_effects=True)
    assert world.calls == [*["charge", "undo"] * 2, "undo"]
    with pytest.raises(ForkRefused, match="of the recorded failure"):
        await fork(tree, store, at=":failure/undo", context={"hold": "h-2"})


async def test_questions_of_the_failed_steps_are_void(store: StateStore) -> None:
    world = World()
    both = ParallelStep(
        "both", {"a": HumanInTheLoopStep("ask", message="?"), "b": call("work", world.add("work", down))}
    )
    tree = pipeline(both, on_failure=HumanInTheLoopStep("why", message="why?"))
    await start(tree, store, "x")
    asked = await store.pauses(RunId("run"))
    assert [pause.pause_id for pause in asked if pause.is_open] == [":failure/why"]


async def test_steps_after_a_used_up_budget_begin_and_their_requests_are_refused(store: StateStore) -> None:
    world = World()
    asks = [
        GranularStep(f"ask{n}", ScriptedAgent(["a"], usage=Usage(requests=1)), input="?") for n in range(2)
    ]
    more = GranularStep("more", ScriptedAgent(["a"], usage=Usage(requests=1)), input="?")
    tree = pipeline(*asks, on_failure=[call("undo", world.add("undo")), more])
    async with Flujo[Any, Any, Any](tree, store=store, usage_limits=UsageLimits(requests_limit=1)) as runner:
        result = await runner.run_result_async("x")
    assert (world.calls, result.usage.requests) == (["undo"], 1)
    assert result.error is not None
    assert (result.error.type, result.error.path) == ("UsageLimitExceeded", "ask1/turn[0]")


async def test_a_failure_inside_a_composite_names_the_step_of_the_run(store: StateStore) -> None:
    seen: list[Any] = []
    inner = LoopStep("again", call("work", World().add("work", down)), until="true")
    tree = pipeline(inner, on_failure=call("tell", World().add("tell", seen.append)))
    await start(tree, store, "x")
    assert (seen[0]["step"], seen[0]["error"]["path"]) == ("again", "again[0]/work")
