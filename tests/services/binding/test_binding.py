"""Binding: everything that a tree names is found before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from flujo.domain.agents import AgentSpec, Ask, Reply
from flujo.domain.models import PipelineContext
from flujo.domain.steps import (
    BaseStep,
    CallableRef,
    DynamicParallelRouterStep,
    Expr,
    GranularStep,
    MapStep,
    ParallelStep,
    State,
    StateMachineStep,
    Step,
    Transition,
)
from flujo.domain.tools import tool
from flujo.exceptions import CallableError, PipelineError
from flujo.services.binding.binding import PipelineBinding
from flujo.services.workspace import agent_settings
from flujo.settings import load
from support import pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
NOWHERE = CallableRef("nowhere:thing")


@pytest.mark.parametrize(
    "step",
    [
        MapStep(name="s", over=NOWHERE, body=pipeline()),
        MapStep(name="s", over=Expr("input"), body=pipeline(), merge=NOWHERE),
        ParallelStep(name="s", branches={"a": pipeline()}, merge=NOWHERE),
        DynamicParallelRouterStep(name="s", router=NOWHERE, branches={"a": pipeline()}),
        StateMachineStep(
            name="s",
            initial="a",
            states={"a": State(pipeline(), (Transition("b", NOWHERE),)), "b": State(pipeline())},
            final=("b",),
        ),
        ParallelStep(name="p", branches={"a": pipeline(MapStep(name="s", over=NOWHERE, body=pipeline()))}),
    ],
    ids=["over", "merge of a map", "merge", "router", "guard", "inside a branch"],
)
def test_a_callable_that_cannot_be_had_is_found_wherever_the_tree_names_it(step: BaseStep) -> None:
    with pytest.raises(CallableError, match="nowhere:thing"):
        PipelineBinding(allow_callables=(), agent_settings=agent_settings(load())).bind(pipeline(step))


@tool(effect="unsafe", enforce_idempotency=True)
def charge(amount: int) -> None: ...


def refund(amount: int, idempotency_key: str) -> None: ...


@pytest.mark.parametrize(
    ("fn", "needs"), [(charge, "`enforce_idempotency`"), (refund, "an `idempotency_key`")]
)
@pytest.mark.parametrize("is_granular", [False, True])
def test_a_tool_whose_calls_must_be_recorded_needs_a_step_that_records_them(
    fn: Callable[..., None], needs: str, is_granular: bool
) -> None:
    agent = AgentSpec("clerk", "local:smollm2", tools=[fn])
    binding = PipelineBinding(allow_callables=(), agent_settings=agent_settings(load()))
    with pytest.raises(CallableError, match=f"a tool of step 's', requires {needs}") as caught:
        binding.bind(pipeline(GranularStep("s", agent) if is_granular else Step("s", agent=agent)))
    assert ("write `kind: granular`" in str(caught.value.hint)) == (not is_granular)
    binding.bind(pipeline(GranularStep("s", agent, enforce_idempotency=True)))


def test_an_unsafe_tool_that_a_step_repeats_is_refused_although_it_is_named_by_a_text() -> None:
    agent = AgentSpec("clerk", "local:smollm2", tools=[f"{__name__}:charge"])
    step = GranularStep("s", agent, enforce_idempotency=True, in_doubt="retry_same_key")
    binding = PipelineBinding(allow_callables=(__name__,), agent_settings=agent_settings(load()))
    with pytest.raises(PipelineError, match="its tool `charge` is `unsafe`") as caught:
        binding.bind(pipeline(step))
    assert caught.value.code == "FLJ433"


@tool(effect="transactional")
def book(seat: int, connection: Any) -> None: ...


def test_a_call_that_would_write_in_the_transaction_of_a_tool_is_refused() -> None:
    step = Step("s", f"{__name__}:book", arguments={"seat": 1}, effect="transactional")
    binding = PipelineBinding(allow_callables=(__name__,), agent_settings=agent_settings(load()))
    with pytest.raises(PipelineError, match="only a tool has one") as caught:
        binding.bind(pipeline(step))
    assert caught.value.code == "FLJ447"


class Counting:
    """An executor that counts what it is given."""

    def __init__(self) -> None:
        self.units = 0

    async def submit(self, work: Callable[[], T]) -> T:
        self.units += 1
        return work()


def plain(data: str) -> str:
    return data


async def on_the_loop(data: str) -> str:
    return data


def with_context(data: str, context: PipelineContext) -> str:
    return data


@pytest.mark.parametrize(("fn", "units"), [(plain, 1), (on_the_loop, 0), (with_context, 0)])
async def test_an_executor_gets_plain_callables_that_share_nothing_with_this_process(
    fn: Callable[..., Any], units: int
) -> None:
    executor, ref = Counting(), CallableRef.of(fn)
    binding = PipelineBinding(allow_callables=(), agent_settings=agent_settings(load()), executor=executor)
    binding.bind(pipeline(Step("s", ref)))
    reply = await binding.agent(ref).ask(Ask(data="x", context=PipelineContext()))
    assert (reply.output, executor.units) == ("x", units)


class Answering:
    """An agent of a user."""

    wants_context = False

    async def ask(self, ask: Ask) -> Reply:
        return Reply(output=ask.data)


class Preparing(Answering):
    prepared = 0

    async def prepare(self) -> None:
        self.prepared += 1


async def test_agents_are_prepared_that_need_it() -> None:
    agents: tuple[Any, Preparing] = Answering(), Preparing()
    binding = PipelineBinding(allow_callables=(), agent_settings=agent_settings(load()))
    refs = [CallableRef(f"x:agent{n}", live) for n, live in enumerate[Any](agents)]
    binding.bind(pipeline(*(Step(f"s{n}", ref) for n, ref in enumerate(refs))))
    await binding.prepare()
    assert agents[1].prepared == 1
    assert [binding.agent(ref) for ref in refs] == [*agents]
