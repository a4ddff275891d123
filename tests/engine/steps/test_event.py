"""`event`: a run waits for an event from outside, whichever of the two comes first."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain import canonical
from flujo.domain.acts import Actor, Via
from flujo.domain.journal import EntryKind, RunId
from flujo.domain.run import PauseKind, RunQuery, RunStatus
from flujo.domain.sent_events import NewEvent
from flujo.domain.steps import (
    EventStep,
    HumanInTheLoopStep,
    ImportStep,
    LoopStep,
    MapStep,
    ParallelStep,
    State,
    StateMachineStep,
    Text,
    Transition,
)
from flujo.domain.values import CallableRef
from flujo.exceptions import InputRejected, PipelineError, ResumeConflict, WrongPauseKind
from flujo.services.project.recovery_policy import RecoveryPolicy
from flujo.services.runs.runner import Flujo
from support import World, call, pipeline

if TYPE_CHECKING:
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore

RUN = RunId("run")
NUMBER = {"type": "integer"}
EARLY = partial(CallableRef, "events:early")


def waiting(world: World, **keys: Any) -> Pipeline:
    """Return a pipeline that waits for an event between two steps."""
    return pipeline(
        call("before", world.add("before")), EventStep("paid", **keys), call("after", world.add("after"))
    )


def runner(tree: Pipeline, store: StateStore, **more: Any) -> Flujo[Any, Any, Any]:
    """Return a runner; it recovers no run by default."""
    return Flujo(tree, store=store, **{"recovery": False, **more})


async def run(tree: Pipeline, store: StateStore, value: Any = 0) -> Any:
    """Start the run, or continue it, and return its result."""
    async with runner(tree, store) as alone:
        if not [each for each in await store.runs(RunQuery()) if each.run_id == RUN]:
            return await alone.run_result_async(value, run_id=RUN)
        return await alone.resume_async(RUN)


async def send(store: StateStore, payload: Any = 7, *, name: str = "paid", number: int = 1, **to: Any) -> Any:
    """Send an event to the run, or to a key."""
    return await store.send_event(
        NewEvent(
            event_id=f"e{number}",
            name=name,
            payload=canonical.encode(payload),
            actor=Actor("ada", Via.API),
            **(to or {"run_id": RUN}),
        )
    )


async def reached(store: StateStore, status: RunStatus) -> None:
    """Return once the run has this status."""
    async with asyncio.timeout(60):
        while (await store.run(RUN)).status is not status:  # noqa: ASYNC110 - a database has no events
            await asyncio.sleep(0.01)


async def test_a_run_waits_for_its_event_and_the_payload_is_the_output(store: StateStore) -> None:
    world = World()
    tree = waiting(world, event_schema=NUMBER)
    result = await run(tree, store)
    assert (result.status, world.calls) == (RunStatus.WAITING, ["before"])
    [wait] = result.pauses
    assert (wait.kind, wait.pause_id, wait.event, wait.event_key) == (PauseKind.EVENT, "paid", "paid", None)
    record = await store.run(RUN)
    assert (record.status, record.owner) == (RunStatus.WAITING, None)
    await send(store)
    result = await run(tree, store)
    assert (result.status, result.output, world.calls) == (RunStatus.COMPLETED, 7, ["before", "after"])
    [entry] = [entry for entry in await store.entries(RUN) if entry.kind is EntryKind.ANSWER]
    assert (entry.path, entry.output) == ("paid", b"7")


async def test_an_event_that_comes_before_the_wait_lets_the_run_continue_without_a_pause(
    store: StateStore,
) -> None:
    world = World()

    async def early(data: Any) -> Any:
        await send(store, "early")
        return data

    tree = pipeline(call("before", EARLY(early)), EventStep("paid"), call("z", world.add("z")))
    result = await run(tree, store)
    assert (result.status, result.output, world.calls) == (RunStatus.COMPLETED, "early", ["z"])


async def test_a_kept_event_that_does_not_fit_leaves_the_run_waiting_for_one_that_does(
    store: StateStore,
) -> None:
    async def early(data: Any) -> Any:
        await send(store, "many")
        return data

    tree = pipeline(call("before", EARLY(early)), EventStep("paid", event_schema=NUMBER))
    assert (await run(tree, store)).status is RunStatus.WAITING
    assert [each.payload for each in await store.kept_events(RUN)] == [b'"many"']
    with pytest.raises(InputRejected):
        await send(store, "more", number=2)
    await send(store, 7, number=3)
    assert (await run(tree, store)).output == 7


async def test_the_key_is_an_expression_and_finds_the_run(store: StateStore) -> None:
    tree = waiting(World(), event="order.paid", key="input.customer")
    result = await run(tree, store, {"customer": 42})
    assert [each.message for each in result.pauses] == ["waits for the event order.paid with the key 42"]
    delivery = await send(store, name="order.paid", key="42")
    assert [each.run_id for each in delivery.taken] == [RUN]
    assert (await run(tree, store)).output == 7


@pytest.mark.parametrize("key", ["input.none", "input.flag", "''", "input.many"])
async def test_a_key_that_is_neither_text_nor_number_fails_the_step(key: str) -> None:
    tree = pipeline(EventStep("paid", key=key))
    given = {"none": None, "flag": True, "many": ["a"]}
    result = await Flujo(tree, persist_state=False).run_result_async(given)
    assert result.error is not None
    assert (result.error.code, result.error.path) == ("FLJ404", "paid")


async def test_at_the_deadline_the_step_fails_or_uses_its_answer(store: StateStore) -> None:
    late = waiting(World(), deadline_s=0.05)
    async with runner(late, store) as alone:
        result = await alone.run_result_async(0, run_id=RUN)
    assert result.error is not None
    assert (result.status, result.error.code) == (RunStatus.FAILED, "FLJ440")
    assert "got no event 'paid'" in result.error.message
    await send(store)  # kept for a retry
    async with runner(late, store) as alone:
        assert (await alone.resume_async(RUN, retry_failed=True)).output == 7
    tree = waiting(World(), deadline_s=0.05, on_deadline={"answer": "none came"})
    assert (await Flujo(tree, store=store, recovery=False).run_result_async(0)).output == "none came"


async def test_a_live_runner_continues_at_once_without_a_look_at_the_database(store: StateStore) -> None:
    tree = waiting(World())
    seldom = RecoveryPolicy(every_s=3600)
    async with runner(tree, store, recovery=seldom) as alone:
        assert (await alone.run_result_async(0, run_id=RUN)).status is RunStatus.WAITING
        await send(store)
        await reached(store, RunStatus.COMPLETED)


async def test_an_event_ends_a_short_wait_of_the_executing_process(store: StateStore) -> None:
    tree = waiting(World(), deadline_s=50.0)
    async with runner(tree, store) as alone:
        executing = asyncio.ensure_future(alone.run_result_async(0, run_id=RUN))
        async with asyncio.timeout(20):
            while not await store.pauses(RUN):  # noqa: ASYNC110 - a database has no events
                await asyncio.sleep(0.01)
            await reached(store, RunStatus.WAITING)
            await send(store)
            assert (await executing).output == 7


async def test_a_wait_for_an_event_takes_no_answer(store: StateStore) -> None:
    tree = waiting(World())
    await run(tree, store)
    async with runner(tree, store) as alone:
        with pytest.raises(ResumeConflict, match="only a paused run can be answered"):
            await alone.resume_async(RUN, "yes")
        with pytest.raises(WrongPauseKind, match="a wait for an event") as refused:
            await alone.resume_async(RUN, "yes", pause_id="paid")
    assert "flujo tasks send run paid" in (refused.value.hint or "")


async def test_each_iteration_item_branch_state_and_import_has_a_wait_of_its_own(store: StateStore) -> None:
    twice = LoopStep("twice", pipeline(EventStep("a")), until="loop.index == 1", max_iterations=5)
    each = MapStep("each", pipeline(EventStep("a", key="string(item)")), over="[1, 2]")
    both = ParallelStep("both", branches={"x": pipeline(EventStep("a")), "y": pipeline(EventStep("a"))})
    machine = StateMachineStep(
        "machine",
        initial="one",
        states={
            "one": State(pipeline(EventStep("a")), (Transition("two"),)),
            "two": State(pipeline(EventStep("a"))),
        },
        final=("two",),
    )
    child = ImportStep("child", blueprint="child.yaml", pipeline=pipeline(EventStep("a")))
    tree = pipeline(twice, each, both, machine, child)
    async with runner(tree, store) as alone:
        result = await alone.run_result_async(0, run_id=RUN)
        for number in range(9):
            assert result.status is RunStatus.WAITING, result.error
            await send(store, number, name="a", number=number)
            result = await alone.resume_async(RUN)
    assert result.status is RunStatus.COMPLETED, result.error
    assert {pause.pause_id for pause in await store.pauses(RUN)} == {
        "twice[0]/a", "twice[1]/a", "each[0]/a", "each[1]/a", "both:x/a", "both:y/a",
        "machine:one[0]/a", "machine:two[0]/a", "child/a",
    }  # fmt: skip


async def test_beside_a_question_the_run_is_paused(store: StateStore) -> None:
    branches = {
        "human": pipeline(HumanInTheLoopStep("ask", message=Text("ok?"))),
        "program": pipeline(EventStep("paid")),
    }
    tree = pipeline(ParallelStep("both", branches=branches))
    assert (await run(tree, store)).status is RunStatus.PAUSED
    await send(store)
    async with runner(tree, store) as alone:
        result = await alone.resume_async(RUN, True, pause_id="both:human/ask")
    assert result.output == {"human": True, "program": 7}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"event": "no spaces"}, "name of an event"),
        ({"event": ""}, "name of an event"),
        ({"key": 5}, "expected an"),
    ],
)
def test_an_event_with_wrong_keys_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(PipelineError, match=words):
        EventStep("paid", **keys)
