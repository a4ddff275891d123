"""A resumed run compares each decision of a pure expression with the one that its journal holds."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain import canonical
from flujo.domain.journal import EntryKind, RunId
from flujo.domain.run import RunStatus
from flujo.domain.steps import (
    BaseStep,
    CallableRef,
    Carry,
    ConditionalStep,
    Expr,
    HumanInTheLoopStep,
    ImportStep,
    LoopStep,
    MapStep,
    ParallelStep,
    State,
    StateMachineStep,
    StepConfig,
    Transition,
)
from flujo.exceptions import JournalConflict
from support import World, answer, call, pipeline, resume, start

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.models import PipelineResult
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore


def text(value: Any) -> str:
    return canonical.encode(value).decode()


def broken(data: Any) -> Any:
    raise ValueError("not yet")


def branch_of_an_if(world: World, expression: str) -> BaseStep:
    branches = {
        "then": pipeline(call("big", world.add("big", broken))),
        "else": pipeline(call("small", world.add("small"))),
    }
    return ConditionalStep("route", condition=expression, branches=branches)


def branch_of_a_switch(world: World, expression: str) -> BaseStep:
    branches = {name: pipeline(call("work", world.add(name, broken))) for name in ("a", "b")}
    return ConditionalStep("route", form="switch", condition=expression, branches=branches)


def a_step_that_applies(world: World, expression: str) -> BaseStep:
    return call("route", world.add("work", broken), when=expression)


def another_round(world: World, expression: str) -> BaseStep:
    body = pipeline(call("work", world.add("work", lambda data: data if data < 2 else broken(data))))
    return LoopStep(
        "route", body=body, until=expression, max_iterations=3, carry={"n": Carry(0, Expr("loop.n + 1"))}
    )


def a_number_of_items(world: World, expression: str) -> BaseStep:
    return MapStep("route", over=expression, body=pipeline(call("work", world.add("work", broken))))


CASES = {
    "if": (branch_of_an_if, "input > 0", "input > 1", "route", True, False),
    "switch": (branch_of_a_switch, "'a'", "'b'", "route", "a", "b"),
    "when": (a_step_that_applies, "input > 0", "input > 1", "route", True, False),
    "over": (a_number_of_items, "[1, 2, 3]", "[1, 2]", "route", 3, 2),
}
SAME = {
    "if": "input == 1",
    "switch": "input == 1 ? 'a' : 'b'",
    "when": "input == 1",
    "over": "[3, 2, 1]",
}


@pytest.fixture
def world() -> World:
    return World()


async def stopped(tree: BaseStep, store: StateStore) -> None:
    """Run a step until its chosen branch fails."""
    assert (await start(pipeline(tree), store, 1)).status is RunStatus.FAILED


async def resumed(tree: BaseStep, store: StateStore) -> PipelineResult[Any, Any]:
    return await resume(pipeline(tree), store, retry_failed=True)


@pytest.mark.parametrize("case", CASES)
async def test_a_resumed_run_with_a_different_decision_is_a_conflict(
    store: StateStore, world: World, case: str
) -> None:
    build, expression, changed, path, recorded, now = CASES[case]
    await stopped(build(world, expression), store)
    calls = list(world.calls)
    result = await resumed(build(world, changed), store)
    assert result.status is RunStatus.FAILED
    conflict = result.cause
    assert isinstance(conflict, JournalConflict)
    assert (conflict.path, conflict.recorded, conflict.now) == (path, recorded, now)
    assert f"`{path}`" in conflict.message
    assert f"recorded as `{text(recorded)}`" in conflict.message
    assert f"expression is now `{text(now)}`" in conflict.message
    assert conflict.hint
    assert world.calls == calls, "a run with a different decision executes no step"


@pytest.mark.parametrize("case", CASES)
async def test_a_changed_expression_with_the_same_decision_is_not_a_conflict(
    store: StateStore, world: World, case: str
) -> None:
    build, expression, *_ = CASES[case]
    await stopped(build(world, expression), store)
    result = await resumed(build(world, SAME[case]), store)
    assert isinstance(result.cause, ValueError), "the step itself runs again, and fails"


async def test_a_run_completes_once_its_expression_is_restored(store: StateStore, world: World) -> None:
    await stopped(branch_of_an_if(world, "input > 0"), store)
    assert isinstance((await resumed(branch_of_an_if(world, "input > 1"), store)).cause, JournalConflict)
    whole = branch_of_an_if(World(), "input > 0")
    assert isinstance(whole, ConditionalStep)
    branches = {**whole.branches, "then": pipeline(call("big", world.add("restored")))}
    restored = ConditionalStep("route", condition="input > 0", branches=branches)
    result = await resumed(restored, store)
    assert (result.status, result.output) == (RunStatus.COMPLETED, 1)
    decided = [e for e in await store.entries(RunId("run")) if e.kind is EntryKind.DECISION]
    assert [(each.path, each.output) for each in decided] == [("route", b"true")]


async def test_the_end_of_a_loop_is_compared_before_its_iteration_is_recorded(
    store: StateStore, world: World
) -> None:
    """A carried variable of a callable has its own entry, so a run can stop between the two."""
    bad = [True]

    def following(data: Any) -> Any:
        if bad[0]:
            raise ValueError("not yet")
        return data

    def loop(until: str) -> LoopStep:
        return LoopStep(
            "route",
            body=pipeline(call("work", world.add("work"))),
            until=until,
            max_iterations=2,
            on_limit="continue",
            carry={"n": Carry(0, CallableRef("x:following", following))},
        )

    await stopped(loop("input > 1"), store)
    conflict = (await resumed(loop("input > 0"), store)).cause
    assert isinstance(conflict, JournalConflict)
    assert (conflict.path, conflict.recorded, conflict.now) == ("route[0]", False, True)
    bad[0] = False
    assert (await resumed(loop("input > 1"), store)).status is RunStatus.COMPLETED


async def test_a_transition_is_compared_before_its_visit_is_recorded(store: StateStore, world: World) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def later(_: Any) -> bool:
        begun.set()
        await go_on.wait()
        return True

    def machine(first: str) -> StateMachineStep:
        transitions = (
            Transition("sent", when=Expr(first)),
            Transition("dropped", when=CallableRef("x:later", later)),
        )
        states = {
            "draft": State(pipeline(call("write", world.add("write"))), transitions=transitions),
            "sent": State(pipeline(call("send", world.add("send")))),
            "dropped": State(pipeline(call("drop", world.add("drop")))),
        }
        return StateMachineStep("route", states=states, initial="draft", final=("sent", "dropped"))

    run = asyncio.create_task(start(pipeline(machine("input > 1")), store, 1))
    await begun.wait()
    run.cancel()
    await asyncio.wait([run])
    conflict = (await resume(pipeline(machine("input > 0")), store)).cause
    assert isinstance(conflict, JournalConflict)
    assert (conflict.path, conflict.recorded, conflict.now) == ("route:draft[0]", False, True)
    go_on.set()
    assert (await resumed(machine("input > 1"), store)).status is RunStatus.COMPLETED
    assert world.calls == ["write", "drop"]


def collected(step: BaseStep) -> BaseStep:
    return MapStep("all", over="[1]", body=pipeline(step), on_error="collect")


def collected_branch(step: BaseStep) -> BaseStep:
    branches = {"one": pipeline(step), "other": pipeline()}
    return ParallelStep("all", branches=branches, on_branch_failure="collect")


def replaced(step: BaseStep) -> BaseStep:
    return ImportStep("all", pipeline(step), on_failure="skip")


def attempted_twice(step: BaseStep) -> BaseStep:
    body = pipeline(step)
    return LoopStep("all", body=body, until="true", max_iterations=1, config=StepConfig(max_retries=1))


@pytest.mark.parametrize("around", [collected, collected_branch, replaced, attempted_twice])
async def test_no_enclosing_step_treats_a_conflict_as_its_own_failure(
    store: StateStore, world: World, around: Callable[[BaseStep], BaseStep]
) -> None:
    def tree(expression: str) -> Pipeline:
        ask = HumanInTheLoopStep("ask", message="?")
        branches = {"then": pipeline(ask), "else": pipeline(call("small", world.add("small")))}
        route = ConditionalStep("route", condition=expression, branches=branches)
        return pipeline(around(route), call("after", world.add("after")))

    waiting = await start(tree("true"), store, 1)
    (pause,) = waiting.pauses
    await answer(store, pause.pause_id, "yes")
    result = await resume(tree("false"), store)
    assert isinstance(result.cause, JournalConflict)
    assert (result.status, world.calls) == (RunStatus.FAILED, [])
    result = await resume(tree("true"), store, retry_failed=True)
    assert (result.status, world.calls) == (RunStatus.COMPLETED, ["after"])


async def test_a_decision_recorded_in_another_form_of_the_number_is_kept(store: StateStore) -> None:
    """A run of an earlier version recorded 6 where the same expression is 6.0 today."""
    bad, seen = [True], list[Any]()

    def second(data: Any) -> Any:
        return broken(data) if bad[0] else data

    def tree(expression: str) -> BaseStep:
        see = CallableRef("x:see", seen.append)
        body = pipeline(call("work", see, input="{{ loop.n }}"))
        carry = {"n": Carry(0, Expr(expression)), "m": Carry(0, CallableRef("x:second", second))}
        return LoopStep("loop", body=body, until="loop.index == 1", max_iterations=3, carry=carry)

    await stopped(tree("6"), store)
    bad[0] = False
    assert (await resumed(tree("6.0"), store)).status is RunStatus.COMPLETED
    assert [(each, type(each)) for each in seen] == [(0, int), (6, int)]
    decided = [e.output for e in await store.entries(RunId("run")) if e.kind is EntryKind.DECISION]
    assert b"6" in decided
    assert b"6.0" not in decided
