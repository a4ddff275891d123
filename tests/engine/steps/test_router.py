"""`router`: an agent or a callable chooses which branches run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo.agents.scripted import ScriptedAgent
from flujo.domain.agents import AgentSpec
from flujo.domain.journal import EntryKind, EntryStatus
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef, DynamicParallelRouterStep, Text
from flujo.domain.steps import HumanInTheLoopStep as Ask
from flujo.domain.usage import Usage
from flujo.exceptions import AgentError
from flujo.services.runs.runner import Flujo
from flujo.state.memory_store import MemoryStateStore
from support import World, answer, call, pipeline, resume, start

if TYPE_CHECKING:
    from flujo.domain.pipeline import Pipeline

COSTS = Usage(input_tokens=7, output_tokens=2, requests=1, cost_micro_usd=30)


@pytest.fixture
def store() -> MemoryStateStore:
    return MemoryStateStore()


@pytest.fixture
def world() -> World:
    return World()


def routed(world: World, router: Any, **more: Any) -> Pipeline:
    """Return a pipeline of one router step, `r`, with the branches `a`, `b` and `c`."""
    branches = {
        name: pipeline(call("work", world.add(name, lambda n, name=name: f"{name}{n}")))  # type: ignore[misc]
        for name in "abc"
    }
    target = router if isinstance(router, AgentSpec) else CallableRef("x:router", router)
    return pipeline(DynamicParallelRouterStep(name="r", router=target, branches=branches, **more))


async def test_the_chosen_branches_run_and_their_outputs_are_in_order_of_declaration(
    store: MemoryStateStore, world: World
) -> None:
    result = await start(routed(world, lambda data: ["c", "a"]), store, 1)
    assert list(result.output.items()) == [("a", "a1"), ("c", "c1")]
    assert sorted(world.calls) == ["a", "c"]


async def test_a_single_name_counts_as_a_list_of_one(store: MemoryStateStore, world: World) -> None:
    assert (await start(routed(world, lambda data: "b"), store, 1)).output == {"b": "b1"}


async def test_the_router_gets_its_own_input_and_the_branches_the_previous_output(
    store: MemoryStateStore, world: World
) -> None:
    router = ScriptedAgent([["a"]])
    tree = routed(world, router, input=Text("which for {{ input }}?"))
    assert (await start(tree, store, 1)).output == {"a": "a1"}
    assert router.asked[0].data == "which for 1?"


async def test_the_usage_of_the_router_is_charged_to_its_step(store: MemoryStateStore, world: World) -> None:
    result = await start(routed(world, ScriptedAgent([["a"]], usage=COSTS)), store, 1)
    assert result.usage == COSTS
    assert {step.path: step.usage for step in result.steps}["r"] == COSTS


async def test_a_resumed_run_does_not_call_the_router_again(store: MemoryStateStore) -> None:
    router = ScriptedAgent([["ask"]])
    step = DynamicParallelRouterStep(
        name="r",
        router=CallableRef("x:router", router),  # type: ignore[arg-type]  # an agent, not a function
        branches={"ask": pipeline(Ask(name="ok", message=Text("ok?")))},
    )
    assert (await start(pipeline(step), store)).status is RunStatus.PAUSED
    await answer(store, "r:ask/ok", "yes")
    assert (await resume(pipeline(step), store)).output == {"ask": "yes"}
    assert router.count == 1


@pytest.mark.parametrize(
    ("nonsense", "said"),
    [
        ("d", "chose 'd', which is not a branch; the branches are a, b, c"),
        (["a", 3], "chose 3, which is not a branch"),
        ([{"a": 1}], "chose {'a': 1}, which is not a branch"),
        ([], "answered [], which names no branch"),
        (42, "answered 42, which names no branch"),
        (None, "answered None, which names no branch"),
    ],
)
class TestNonsense:
    async def test_an_unknown_choice_is_returned_once_to_the_agent_with_its_error(
        self, store: MemoryStateStore, world: World, nonsense: Any, said: str
    ) -> None:
        router = ScriptedAgent([nonsense, ["b"]], usage=COSTS)
        result = await start(routed(world, router), store, 1)
        assert result.output == {"b": "b1"}
        assert result.usage == COSTS + COSTS
        assert router.asked[0].instructions is None
        assert said in (router.asked[1].instructions or "")
        assert [asked.data for asked in router.asked] == [1, 1]

    async def test_a_second_unknown_choice_fails_and_a_retry_starts_over(
        self, store: MemoryStateStore, world: World, nonsense: Any, said: str
    ) -> None:
        router = ScriptedAgent([nonsense, nonsense, ["c"]], usage=COSTS)
        tree = routed(world, router)
        result = await start(tree, store, 1)
        assert result.error is not None
        assert (result.error.code, result.error.path) == ("FLJ414", "r")
        assert said in result.error.message
        assert world.calls == []
        result = await resume(tree, store, retry_failed=True)
        assert result.output == {"c": "c1"}
        assert result.usage == COSTS + COSTS + COSTS
        told = [(e.attempt, e.status) for e in await store.entries(result.run_id) if e.path == "r"][:3]
        assert told == [(1, EntryStatus.FAILED), (2, EntryStatus.FAILED), (3, EntryStatus.COMPLETED)]


async def test_a_router_that_raises_fails_the_step_and_its_usage_counts(
    store: MemoryStateStore, world: World
) -> None:
    error = AgentError("the model is away")
    error.usage = COSTS  # type: ignore[attr-defined]  # as agents do
    result = await start(routed(world, ScriptedAgent([error])), store, 1)
    assert result.error is not None
    assert (result.error.code, result.error.message) == ("FLJ300", "the model is away")
    assert result.cause is error
    assert result.usage == COSTS
    assert [e.kind for e in await store.entries(result.run_id)] == [EntryKind.DECISION]


async def test_an_agent_gets_the_branch_names_in_a_schema(store: MemoryStateStore, world: World) -> None:
    router = ScriptedAgent([["d"], ["a", "b"]])
    spec = AgentSpec(name="router", model="test:model", instructions=Text("Sort {{ input }}."))
    tree = routed(world, spec)
    from flujo.services.binding.binding import PipelineBinding
    from flujo.services.workspace import agent_settings
    from flujo.settings import load

    bound = PipelineBinding(allow_callables=(), agent_settings=agent_settings(load()))
    bound._agents[id(spec)] = router
    bound.bind(tree)
    async with Flujo[Any, Any, Any](tree, store=store, binding=bound) as runner:
        result = await runner.run_result_async(1)
    assert result.output == {"a": "a1", "b": "b1"}
    assert router.asked[0].output_schema == {
        "type": "array",
        "items": {"enum": ["a", "b", "c"]},
        "minItems": 1,
        "uniqueItems": True,
    }
    assert router.asked[0].instructions == "Sort 1."
    assert (router.asked[1].instructions or "").startswith("Sort 1.\n\nYour last answer cannot be used: ")
