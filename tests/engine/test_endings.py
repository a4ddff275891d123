"""`on_failure` and `finally` of a pipeline: steps after those of a run, before it ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.journal import RunId
from flujo.domain.paths import END, StepPath
from flujo.domain.run import RunStatus
from flujo.domain.steps import GranularStep, HumanInTheLoopStep, LoopStep, ParallelStep, SetStep
from flujo.domain.usage import Usage, UsageLimits
from flujo.domain.values import CallableRef
from flujo.exceptions import ForkRefused, PausedException, PipelineAbortSignal, ResumeConflict, RunConflict
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


# finally -------------------------------------------------------------------------------------------------

ENDED = {
    "status": "{{ ended.status }}",
    "why": "{{ get(ended, 'error', null) }}",
    "hold": "{{ context.hold }}",
}


def closing(world: World, seen: list[Any], work: Any, **more: Any) -> Pipeline:
    """Return a pipeline whose `finally` notes how the run has ended, after a write and a call of `work`."""
    steps = [SetStep("reserve", {"hold": "h-1"}), call("charge", world.add("charge", work))]

    def close(said: Any) -> str:
        seen.append(said)
        return "closed"

    last = call("close", world.add("close", close), input=ENDED)
    return pipeline(*steps, **{"context_schema": FIELDS, "finally_": last, **more})


def abort(_: Any) -> Any:
    raise PipelineAbortSignal("enough")


@pytest.mark.parametrize(
    ("work", "status", "message"),
    [(len, "completed", None), (down, "failed", "ValueError: down"), (abort, "cancelled", "enough")],
)
async def test_finally_is_executed_after_each_end_and_sees_it(
    store: StateStore, work: Any, status: str, message: str | None
) -> None:
    world = World()
    seen: list[Any] = []
    tree = closing(world, seen, work)
    result = await start(tree, store, "abc")
    assert (result.status, world.calls) == (status, ["charge", "close"])
    assert result.output == (1 if status == "completed" else None)
    [told] = seen
    error = told.pop("why")
    assert told == {"status": status, "hold": "h-1"}
    assert (None if error is None else error["message"]) == message
    assert (result.error.message if result.error else None) == message
    assert [each.path for each in result.steps] == ["reserve", "charge", ":finally/close"]
    record = await store.run(RunId("run"))
    shown = {each.path: each.status for each in (await trace(store, record)).children}
    assert (shown[END], shown[StepPath(":finally")]) == ("completed", "completed")
    async with Flujo[Any, Any, Any](tree, store=store, recovery=False) as runner:
        assert (await runner.replay_from_trace("run")).error == result.error
    if status == "failed":
        with pytest.raises(ResumeConflict, match="no step is tried again"):
            await resume(tree, store, retry_failed=True)


async def test_finally_follows_on_failure(store: StateStore) -> None:
    world = World()
    seen: list[Any] = []
    tree = closing(world, seen, down, on_failure=call("undo", world.add("undo", down)))
    result = await start(tree, store, "x")
    assert world.calls == ["charge", "undo", "close"]
    assert result.error is not None
    assert result.error.message == seen[0]["why"]["message"]
    assert "`on_failure` failed too, at `:failure/undo`" in result.error.message


@pytest.mark.parametrize("work", [len, down, abort])
async def test_a_failed_finally_fails_a_completed_run_and_is_retried(store: StateStore, work: Any) -> None:
    world, fails = World(), [True]

    def fragile(_: Any) -> Any:
        if fails.pop():
            raise ValueError("no mail")

    last = call("tell", world.add("tell", fragile))
    tree = pipeline(
        call("charge", world.add("charge", work)), finally_=[call("close", world.add("close", str)), last]
    )
    result = await start(tree, store, "abc")
    assert result.error is not None
    if work is abort:
        assert result.status is RunStatus.CANCELLED
        assert result.error.message == "enough; `finally` failed too, at `:finally/tell`: ValueError: no mail"
        return
    both = "ValueError: down; `finally` failed too, at `:finally/tell`: ValueError: no mail"
    assert result.error.message == ("ValueError: no mail" if work is len else both)
    assert result.error.path == (":finally/tell" if work is len else "charge")
    fails[:] = [False]
    again = await resume(tree, store, retry_failed=True)
    assert again.status is (RunStatus.COMPLETED if work is len else RunStatus.FAILED)
    assert again.output == (3 if work is len else None)
    assert world.calls == ["charge", "close", "tell", "tell"]


async def test_finally_has_a_time_together(store: StateStore, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(_: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr("flujo.engine.endings.FINALLY_S", 0.3)
    hang = call("hang", CallableRef("test:hangs", hangs))
    result = await start(closing(World(), [], len, finally_=hang), store, "x")
    assert result.status is RunStatus.FAILED
    assert result.error is not None
    assert result.error.message == "the steps of `finally` took longer than 0.3 s together"


async def test_a_step_of_finally_that_asks_has_failed(store: StateStore) -> None:
    def asks(_: Any) -> Any:
        raise PausedException("may I?")

    world = World()
    result = await start(closing(world, [], len, finally_=call("ask", world.add("ask", asks))), store, "x")
    assert result.error is not None
    assert (result.status, result.error.path) == (RunStatus.FAILED, ":finally/ask")
    assert "waits for a question, and `finally` waits for nothing" in result.error.message
    assert [each.is_open for each in await store.pauses(RunId("run"))] == []


async def test_a_run_that_waits_or_is_continued_executes_finally_once_at_its_end(store: StateStore) -> None:
    world = World()
    tree = closing(world, [], len)
    asked = pipeline(
        HumanInTheLoopStep("ask", message="?"), *tree.steps, context_schema=FIELDS, finally_=tree.finally_
    )
    assert (await start(asked, store, "x")).status is RunStatus.PAUSED
    assert world.calls == []
    assert (await resume(asked, store, answer="yes")).status is RunStatus.COMPLETED
    assert world.calls == ["charge", "close"]


async def test_a_fork_in_finally_executes_it_again_with_the_recorded_end(store: StateStore) -> None:
    world = World()
    seen: list[Any] = []
    tree = closing(world, seen, down)
    await start(tree, store, "x")
    forked = await fork(tree, store, at=":finally/close", live_effects=True)
    assert (forked.status, world.calls) == (RunStatus.FAILED, ["charge", "close", "close"])
    assert seen[0] == seen[1]
    await fork(tree, store, at="charge", live_effects=True)
    assert world.calls == ["charge", "close", "close", "charge", "close"]
    with pytest.raises(ForkRefused, match="of the recorded end"):
        await fork(tree, store, at=":finally/close", context={"hold": "h-2"})
