"""Errors that both type checkers must report, each on a line that ends in `# refused`, and no others.

`test_typing.py` runs mypy and basedpyright over this file. It is never executed.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from flujo import (
    AgentSpec,
    AppResources,
    CacheStep,
    ConditionalStep,
    DynamicParallelRouterStep,
    Flujo,
    HumanInTheLoopStep,
    ImportStep,
    LoopStep,
    MapStep,
    MergeStrategy,
    ParallelStep,
    Pipeline,
    PipelineContext,
    State,
    StateMachineStep,
    Step,
    StepConfig,
    Transition,
    TreeSearchStep,
)


class Ticket(BaseModel):
    """An input."""

    text: str


class Urgent(Ticket):
    """A ticket too."""


class Counter(PipelineContext):
    """A context."""

    seen: int = 0


class Office(AppResources):
    """Resources."""

    signature: str


def read(data: str) -> Ticket:
    return Ticket(text=data)


async def hurry(data: Ticket, context: Counter, resources: Office) -> Urgent:
    return Urgent(text=data.text)


def count(data: Ticket) -> int:
    return len(data.text)


def untyped(data: Any) -> Any:
    return data


def nothing() -> int:
    return 1


def done(data: int, context: Counter) -> bool:
    return data > context.seen


# Steps take the previous output ---------------------------------------------------------------------------

first, second, third = Step("first", read), Step("second", hurry), Step("third", count)
whole: Pipeline[str, int] = first >> second >> third
subclass: Pipeline[Ticket, Ticket] = Pipeline(second)
loosely: Pipeline[str, Any] = first >> Step("any", untyped) >> first
second >> first  # refused
third >> second  # refused
whole >> third  # refused
whole >> whole  # refused
wrong_end: Pipeline[str, str] = whole  # refused
wrong_start: Pipeline[int, int] = whole  # refused
explicit: Step[str, Ticket] = Step("explicit", read)
lying: Step[int, Ticket] = explicit  # refused
declared = Step[str, Ticket]("declared", agent=AgentSpec("reader", "a:b", output_type=Ticket))
declared >> third
declared >> first  # refused
elsewhere = third >> Step("elsewhere", read, input="{{ input }}")
by_name = third >> Step("by_name", read, arguments={"data": "{{ input }}"})
without_input = third >> Step("without_input", nothing)

# Pipelines inside pipelines ----------------------------------------------------------------------------------

inside = ImportStep("inside", Pipeline(second >> third))
first >> inside
third >> inside  # refused
third >> ImportStep("inside", Pipeline(second >> third), arguments={"text": "x"})
ImportStep("inside", second)  # refused
first >> CacheStep("kept", second) >> third
kept = CacheStep("kept", second)
third >> kept  # refused
third.with_input(1)  # refused
Pipeline(first, second)  # refused
Pipeline([first, ImportStep("inside", Pipeline(second)), third], "mixed", output={"n": "{{ previous }}"})
Pipeline([first, read])  # refused

# Arguments of the kinds --------------------------------------------------------------------------------------

Step("x", 3)  # refused
Step(read)  # refused
Step("x", read, wen="input")  # refused
Step("x", read, config={"timeout_s": 3})  # refused
Step("x", read, effect="writes")  # refused
StepConfig(timeout_s="30s")  # refused
StepConfig(execution_mode="later")  # refused
LoopStep("x", [first, ImportStep("inside", Pipeline(second))], exit_condition_callable=done)
LoopStep("x", first, until="loop.index > 1", on_limit="stop")  # refused
LoopStep("x", read, until=True)  # refused
LoopStep("x", first, until=True, max_iterations="3")  # refused
MapStep("x", first >> second, over="input.docs", on_error="ignore")  # refused
MapStep("x", [first, second], over=3.5)  # refused
ConditionalStep("x", condition_callable=done, then=first, else_=[second, third])
ConditionalStep("x", condition="input", then=read)  # refused
ParallelStep("x", {"a": first, "b": [first, second]}, merge_strategy=MergeStrategy.CONTEXT_UPDATE)
ParallelStep("x", {"a": first}, merge_strategy=1)  # refused
ParallelStep("x", [first])  # refused
ParallelStep("x", {"a": first}, on_branch_failure="stop")  # refused
DynamicParallelRouterStep("x", {"a": first}, router_agent=lambda data: ["a"])
DynamicParallelRouterStep("x", {"a": first}, router_agent=3)  # refused
StateMachineStep("x", initial="a", states={"a": State(first, [Transition("a")])}, final=["a"])
StateMachineStep("x", initial="a", states={"a": [first]}, final=["a"])  # refused
StateMachineStep("x", initial="a", states={"a": State(first)})  # refused
State(first, [("a", "true")])  # refused
HumanInTheLoopStep("x", "Send?", answer_schema=bool, on_deadline={"answer": False})
HumanInTheLoopStep("x", "Send?", deadline_s="1h")  # refused
TreeSearchStep("x", propose=read)  # refused
Step.granular("x", "writer")  # refused

# Runners -----------------------------------------------------------------------------------------------------

runner: Flujo[str, int, Counter] = Flujo(whole, context_model=Counter, resources=Office(signature="A"))
inferred = Flujo(whole, context_model=Counter)
wrong_input: Flujo[int, int, Counter] = Flujo(whole, context_model=Counter)  # refused
wrong_context: Flujo[str, int, Counter] = Flujo(whole, context_model=Ticket)  # refused
wrong_output: Flujo[str, str, Counter] = Flujo(whole, context_model=Counter)  # refused
Flujo(whole, resources=3)  # refused
Flujo([first])  # refused
Flujo(whole, context_model=dict)  # refused


async def running() -> None:
    result = await inferred.run_result_async("fire")
    total: int = result.output
    words: str = result.output  # refused
    assert result.context is not None
    seen: int = result.context.seen
    other: int = result.context.other  # refused
    await inferred.run_result_async(3)  # refused
    await inferred.resume_async(3)  # refused
    await inferred.run_result_async("fire", run_id=3)  # refused
    async with inferred.run_stream("fire") as stream:
        print(total, words, seen, other, stream)
    inferred.run_stream("fire", detatch=True)  # refused
