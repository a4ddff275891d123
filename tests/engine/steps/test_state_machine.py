"""`state_machine`: states are visited along guarded transitions, in one scope."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.journal import EntryKind
from flujo.domain.run import RunStatus
from flujo.domain.steps import (
    CallableRef,
    Expr,
    HumanInTheLoopStep,
    Save,
    State,
    StateMachineStep,
    Text,
    Transition,
)
from flujo.state.memory_store import MemoryStateStore
from support import COUNTER_SCHEMA, World, answer, call, pipeline, resume, start

if TYPE_CHECKING:
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.steps import BaseStep


@pytest.fixture
def store() -> MemoryStateStore:
    return MemoryStateStore()


@pytest.fixture
def world() -> World:
    return World()


def state(*steps: BaseStep, to: Any = ()) -> State:
    """Return a state; `to` has its targets: names, or pairs of an expression and a name."""
    edges = [Transition(each) if isinstance(each, str) else Transition(each[1], Expr(each[0])) for each in to]
    return State(pipeline(*steps), tuple(edges))


def drafting(world: World, **more: Any) -> Pipeline:
    """Return a machine that drafts, and edits until the critique passes."""
    states = {
        "draft": state(call("write", world.add("write", lambda n: n)), to=["critique"]),
        "critique": state(
            call("judge", world.add("judge", lambda n: n >= 3), input=Text("{{ steps.write.output }}")),
            to=[("steps.judge.output", "done"), "edit"],
        ),
        "edit": state(
            call("write", world.add("edit", lambda n: n + 1), input=Text("{{ steps.write.output }}")),
            to=["critique"],
        ),
        "done": state(call("close", world.add("close"), input=Text("v{{ steps.write.output }}"))),
    }
    step = StateMachineStep(**{"name": "m", "initial": "draft", "states": states, "final": ("done",), **more})
    return pipeline(step)


async def test_the_first_matching_transition_decides_the_next_state(
    store: MemoryStateStore, world: World
) -> None:
    result = await start(drafting(world), store, 1)
    assert result.output == "v3"
    assert world.calls == ["write", "judge", "edit", "judge", "edit", "judge", "close"]


async def test_visits_are_counted_for_each_state(store: MemoryStateStore, world: World) -> None:
    result = await start(drafting(world), store, 1)
    visited = [
        entry.path
        for entry in await store.entries(result.run_id)
        if entry.kind is EntryKind.DONE and entry.path.endswith("]")
    ]
    assert visited == [
        "m:draft[0]",
        "m:critique[0]",
        "m:edit[0]",
        "m:critique[1]",
        "m:edit[1]",
        "m:critique[2]",
        "m:done[0]",
    ]


async def test_output_is_evaluated_in_the_common_scope_of_the_states(
    store: MemoryStateStore, world: World
) -> None:
    tree = drafting(world, output={"text": Text("{{ steps.write.output }}"), "last": Text("{{ previous }}")})
    assert (await start(tree, store, 1)).output == {"text": 3, "last": "v3"}


async def test_a_final_state_may_have_no_steps(store: MemoryStateStore, world: World) -> None:
    states = {"a": state(call("x", world.add("x", lambda n: n + 1)), to=["end"]), "end": state()}
    step = StateMachineStep(name="m", initial="a", states=states, final=("end",))
    assert (await start(pipeline(step), store, 1)).output == 2


async def test_a_callable_guard_is_called_once(store: MemoryStateStore, world: World) -> None:
    asked = []

    def ready(data: Any) -> bool:
        asked.append(data)
        return True

    states = {
        "a": State(pipeline(call("x", world.add("x"))), (Transition("b", CallableRef("x:ready", ready)),)),
        "b": state(HumanInTheLoopStep(name="ok", message=Text("ok?"))),
    }
    tree = pipeline(StateMachineStep(name="m", initial="a", states=states, final=("b",)))
    assert (await start(tree, store, 1)).status is RunStatus.PAUSED
    await answer(store, "m:b[0]/ok", "yes")
    assert (await resume(tree, store)).output == "yes"
    assert asked == [1]


async def test_a_resumed_machine_sees_the_results_of_the_latest_visits(
    store: MemoryStateStore, world: World
) -> None:
    states = {
        "count": state(
            call("n", world.add("n", lambda n: n + 1), save={"log": Save(Expr("output"), append=True)}),
            call("once", world.add("once"), when=Expr("steps.n.output == 2")),
            to=[("steps.n.output >= 4", "ask"), "count"],
        ),
        "ask": state(HumanInTheLoopStep(name="ok", message=Text("{{ steps.n.output }}?")), to=["end"]),
        "end": state(
            call("all", world.add("all"), input=(Text("{{ steps.n.output }}"), Text("{{ steps.ok.output }}")))
        ),
    }
    step = StateMachineStep(
        name="m",
        initial="count",
        states=states,
        final=("end",),
        output={"n": Text("{{ previous }}"), "once": Text("{{ steps.once.skipped }}")},
    )
    tree = pipeline(
        step,
        context_schema=COUNTER_SCHEMA,
        output={"m": Text("{{ previous }}"), "log": Text("{{ context.log }}")},
    )
    assert (await start(tree, store, 1)).pauses[0].message == "4?"
    await answer(store, "m:ask[0]/ok", "yes")
    expected = {"m": {"n": [4, "yes"], "once": True}, "log": [2, 3, 4]}
    assert (await resume(tree, store)).output == expected
    assert world.calls == ["n", "once", "n", "n", "all"]


async def test_a_state_without_a_matching_transition_fails_and_is_named(
    store: MemoryStateStore, world: World
) -> None:
    states = {"a": state(call("x", world.add("x")), to=[("false", "b")]), "b": state()}
    result = await start(
        pipeline(StateMachineStep(name="m", initial="a", states=states, final=("b",))), store, 1
    )
    assert result.error is not None
    assert (result.error.code, result.error.path) == ("FLJ412", "m")
    assert "state 'a'" in result.error.message


async def test_a_machine_makes_at_most_max_transitions(store: MemoryStateStore, world: World) -> None:
    states = {"a": state(call("x", world.add("x")), to=[("false", "b"), "a"]), "b": state()}
    step = StateMachineStep(name="m", initial="a", states=states, final=("b",), max_transitions=4)
    result = await start(pipeline(step), store, 1)
    assert result.error is not None
    assert (result.error.code, "4 transitions" in result.error.message) == ("FLJ413", True)
    assert world.calls == ["x"] * 5


async def test_a_retry_continues_at_the_failed_visit(store: MemoryStateStore, world: World) -> None:
    broken = [True]

    def flaky(data: Any) -> str:
        if broken[0]:
            raise OSError("down")
        return "up"

    states = {
        "a": state(call("x", world.add("x")), to=["b"]),
        "b": state(call("y", world.add("y")), call("z", CallableRef("x:flaky", flaky))),
    }
    tree = pipeline(StateMachineStep(name="m", initial="a", states=states, final=("b",)))
    result = await start(tree, store, 1)
    assert result.error is not None
    assert result.error.path == "m:b[0]/z"
    broken[0] = False
    assert (await resume(tree, store, retry_failed=True)).output == "up"
    assert world.calls == ["x", "y"]


# Failures ------------------------------------------------------------------------------------------------


def failing(world: World, **more: Any) -> Pipeline:
    """Return a machine whose first state fails in its second step, and whose machine goes to `tell` then."""

    def fail(_data: Any) -> Any:
        raise ValueError("broken")

    one = call("one", world.add("one"), save={"total": Save(Expr("output"))})
    skipped = call("skipped", world.add("skipped"), when=Expr("false"))
    two, three = call("two", world.add("two", fail)), call("three", world.add("three"))
    seen = (
        "{{ error.message }} at {{ error.path }}, {{ previous }}, {{ context.total }}, {{ steps.one.output }}"
    )
    never = "{{ has(steps.two) || has(steps.three) || has(steps.skipped) }}"
    told = call("told", world.add("told"), input=Text(f"{seen}, {never}"))
    states = {
        "work": State(pipeline(one, skipped, two, three), (Transition("done"),), **more.pop("of_state", {})),
        "tell": state(told, to=["wait"]),
        "wait": state(HumanInTheLoopStep("ok", message=Text("{{ error == null }}")), to=["done"]),
        "done": state(
            call(
                "last",
                world.add("last"),
                input=Text(f"{{{{ steps.told.output }}}}; {{{{ steps.one.output }}}}, {never}"),
            )
        ),
    }
    keys = {"initial": "work", "states": states, "final": ("done",), "on_error": "tell", **more}
    return pipeline(StateMachineStep("m", **keys), context_schema=COUNTER_SCHEMA)


SEEN = "ValueError: broken at m:work[0]/two, 7, 0, 7, false; 7, false"


async def test_a_state_follows_a_failure_and_sees_the_error(store: MemoryStateStore, world: World) -> None:
    first = await start(failing(world), store, 7)
    assert first.status is RunStatus.PAUSED
    assert first.pauses[0].message == "true"
    await answer(store, "m:wait[0]/ok", "yes")
    done = await resume(failing(world), store)
    assert done.output == SEEN
    assert world.calls == ["one", "two", "told", "last"]


async def test_the_target_of_a_state_wins_and_a_target_does_not_follow_itself(
    store: MemoryStateStore, world: World
) -> None:
    own = await start(failing(world, of_state={"on_error": "done"}, on_error=None), store, 7)
    assert own.error is not None  # `done` reads what no step has written, and there is no target for it
    assert (own.error.path, world.calls) == ("m:done[0]/last", ["one", "two"])
    looping = failing(world, on_error="work")
    result = await start(looping, store, 7, run_id="looping")
    assert result.error is not None
    assert (result.error.code, result.error.path) == ("FLJ401", "m:work[0]/two")


async def test_a_failure_that_repeats_ends_at_the_limit(store: MemoryStateStore, world: World) -> None:
    tree = failing(world, of_state={"on_error": "work"}, max_transitions=2)
    result = await start(tree, store, 7)
    assert result.error is not None
    assert (result.error.code, world.calls) == ("FLJ413", ["one", "two"] * 3)
