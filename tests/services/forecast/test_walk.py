"""What a blueprint may ask: each kind of step bounds its requests, and the recorded runs lie within the bounds."""

from __future__ import annotations

from typing import Any

import pytest

from flujo.domain.agents import AgentSpec, OneOf
from flujo.domain.pipeline import BaseStep, CachePolicy, Pipeline, StepConfig
from flujo.domain.steps import (
    CacheStep,
    CallableRef,
    ConditionalStep,
    DynamicParallelRouterStep,
    GranularStep,
    ImportStep,
    LoopStep,
    MapStep,
    ParallelStep,
    State,
    StateMachineStep,
    Step,
    TreeSearchStep,
)
from flujo.domain.steps.state_machine import Transition
from flujo.domain.steps.tools import AgentTool
from flujo.domain.tools import CallableTool
from flujo.domain.usage import UsageLimits
from flujo.services.forecast.prompts import UNKNOWN_TOKENS, Known
from flujo.services.forecast.spans import Span
from flujo.services.forecast.walk import Walk

WRITER = AgentSpec("writer", "kennel:rex", model_settings={"max_tokens": 100})
OTHER = AgentSpec("other", "kennel:bella", model_settings={"max_tokens": 10})
TYPED = AgentSpec("typed", "kennel:rex", output_schema={"type": "integer"}, retries=2)
AIDED = AgentSpec("aided", "kennel:rex", tools=[CallableTool("skills.a:b", effect="read")])
HELP = AgentTool(OTHER, "Ask it.", max_turns=3)
HELPED = AgentSpec("helped", "kennel:rex", tools=[HELP])
SHORT = AgentSpec("short", "kennel:rex", tools=[HELP], model_settings={"max_tokens": 20})
SINGLE = AgentSpec("single", "kennel:rex", tools=[HELP], model_settings={"parallel_tool_calls": False})
LISTER = AgentSpec(
    "lister", "kennel:rex", output_schema={"type": "array", "maxItems": 6, "items": {"type": "string"}}
)
LIMITED = UsageLimits(tool_calls_limit=4)


def _price(model: str, tokens: tuple[int, int]) -> int | None:
    """Return 1 for a token of input and 10 for one of an answer."""
    return None if model.endswith("unknown") else tokens[0] + 10 * tokens[1]


def _asked(name: str = "ask", who: Any = WRITER, **keys: Any) -> Step:
    return Step(name, agent=who, input="Good day.", **keys)


FEW = {
    "type": "object",
    "properties": {"few": {"$ref": "#/$defs/few"}},
    "required": ["few"],
    "$defs": {"few": {"type": "array", "minItems": 2, "maxItems": 5}},
}


OWN = CallableRef("skills.own:writer")
"""An agent in Python."""


def _walk(*steps: BaseStep, given: Any = None, **keys: Any) -> Any:
    known = Known(input_schema=FEW)
    if given is not None:
        known.input = given
    return Walk(_price, OWN.__eq__, known).body(Pipeline(steps, **keys))


REQUESTS: dict[str, tuple[BaseStep, Span]] = {
    "a step": (_asked(), Span(1, 1)),
    "a condition": (_asked(when="input == 1"), Span(0, 1)),
    "the cache": (_asked(cache=CachePolicy()), Span(0, 1)),
    "a step around the cache": (CacheStep("cached", _asked()), Span(0, 1)),
    "retries": (_asked(config=StepConfig(max_retries=2)), Span(1, 3)),
    "corrections of an answer": (_asked(who=TYPED), Span(1, 3)),
    "tools": (_asked(who=AIDED), Span(1, 50)),
    "a fallback": (_asked(fallback=_asked("instead", OTHER)), Span(1, 2)),
    "one of two agents": (_asked(who=OneOf([WRITER, TYPED], by="input")), Span(1, 3)),
    "a callable": (Step("call", CallableRef("skills.a:b")), Span(0, 0)),
    "turns": (GranularStep("turns", WRITER, input="x", max_turns=7), Span(1, 7)),
    "an agent as a tool": (GranularStep("turns", HELPED, input="x", max_turns=2), Span(1, None)),
    "calls of one answer": (GranularStep("turns", SHORT, input="x", max_turns=2), Span(1, 2 + 2 * 4 * 3)),
    "one call of an answer": (GranularStep("turns", SINGLE, input="x", max_turns=2), Span(1, 2 + 2 * 3)),
    "calls in retries": (
        GranularStep("turns", SINGLE, input="x", max_turns=2, config=StepConfig(max_retries=1)),
        Span(1, 2 * 2 + 2 * 2 * (2 * 3)),  # an agent as a tool has the retries of its step
    ),
    "calls within a budget": (
        GranularStep("turns", HELPED, input="x", max_turns=2, config=StepConfig(budget=LIMITED)),
        Span(1, 2 + 4 * 3),
    ),
    "a loop": (LoopStep("loop", [_asked()], until="false", max_iterations=4), Span(1, 4)),
    "a map over the input": (MapStep("map", [_asked()], over="input.items"), Span(3, 3)),
    "a map over something else": (MapStep("map", [_asked()], over="previous"), Span(0, None)),
    "a map over a list of limited length": (MapStep("map", [_asked()], over="input.few"), Span(2, 5)),
    "branches": (ParallelStep("both", {"a": [_asked()], "b": [_asked(), _asked("b")]}), Span(3, 3)),
    "a choice": (
        ConditionalStep(
            "way", condition="true", branches={"true": [_asked()], "false": [_asked(), _asked("b")]}
        ),
        Span(0, 2),
    ),
    "a router": (
        DynamicParallelRouterStep("way", {"a": [_asked()], "b": [_asked()]}, router=OTHER),
        Span(1, 3),
    ),
    "states": (
        StateMachineStep(
            "states",
            initial="a",
            states={"a": State([_asked()], [Transition("end")]), "end": State()},
            final=["end"],
            max_transitions=4,
        ),
        Span(0, 5),
    ),
    "an import": (ImportStep("other", Pipeline([_asked(), _asked("b")], name="other")), Span(2, 2)),
    "a budget of a step": (
        LoopStep(
            "loop",
            [_asked()],
            until="false",
            max_iterations=9,
            config=StepConfig(budget=UsageLimits(requests_limit=5)),
        ),
        Span(1, 5),
    ),
    "a search": (
        TreeSearchStep("search", propose=WRITER, evaluate=OTHER, beam_width=2, max_depth=3, input="x"),
        Span(1, None),
    ),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_a_kind_of_step_bounds_its_requests(case: str) -> None:
    step, requests = REQUESTS[case]
    assert _walk(step, given={"items": [1, 2, 3]}).amounts.requests == requests


def test_the_cost_follows_from_the_prompt_and_the_longest_answer() -> None:
    [agent] = _walk(_asked()).agents
    cost = agent.amounts.cost
    assert agent.amounts.output_tokens == Span(1, 100)
    assert cost.least == agent.amounts.input_tokens.least + 10
    assert cost.most == agent.amounts.input_tokens.most + 1000
    assert not agent.is_assumed


def test_an_answer_bounds_the_next_prompt_and_a_callable_does_not() -> None:
    of_agent = _walk(_asked("a"), Step("b", agent=WRITER, input="{{ previous }}")).agents[1]
    of_code = _walk(
        Step("a", CallableRef("skills.a:b")), Step("b", agent=WRITER, input="{{ previous }}")
    ).agents[0]
    implied = _walk(_asked("a"), Step("b", agent=WRITER)).agents[1]
    assert not of_agent.is_assumed
    assert not implied.is_assumed
    assert of_code.is_assumed
    assert of_code.amounts.input_tokens.most >= UNKNOWN_TOKENS


def test_a_conversation_costs_more_than_its_turns_alone() -> None:
    turns = [_walk(GranularStep("turns", WRITER, input="x", max_turns=count)).amounts for count in (1, 10)]
    assert turns[1].input_tokens.most > 10 * turns[0].input_tokens.most


def test_what_nothing_bounds_and_what_has_no_price_is_not_a_number() -> None:
    endless = AgentSpec("endless", "kennel:rex")
    odd = AgentSpec("odd", "kennel:unknown", model_settings={"max_tokens": 5})
    part = _walk(_asked("a", endless), _asked("b", odd))
    assert [(each.is_priced, each.amounts.cost.most) for each in part.agents] == [(True, None), (False, None)]
    assert part.amounts.cost.most is None


def test_a_budget_bounds_what_the_blueprint_does_not() -> None:
    endless = AgentSpec("endless", "kennel:rex")
    limits = UsageLimits(total_cost_usd_limit=0.5, total_tokens_limit=1000)
    amounts = _walk(_asked("a", endless), budget=limits).amounts
    assert (amounts.cost.most, amounts.output_tokens.most) == (500_000, 1000)


def test_the_schema_of_an_answer_bounds_a_map() -> None:
    each = MapStep("each", [_asked()], over="steps.list.output")
    alone = MapStep("each", [_asked()])
    lister = Step("list", agent=LISTER, input="x")
    spare = Step("list", agent=LISTER, input="x", fallback=Step("fallback", CallableRef("skills.a:b")))
    assert [_walk(lister, one).amounts.requests.most for one in (each, alone)] == [2 + 6, 2 + 6]
    assert _walk(spare, each).amounts.requests.most is None, "another step may give the output"


def test_a_budget_around_a_step_bounds_the_calls_of_its_tools() -> None:
    turns = GranularStep("turns", HELPED, input="x", max_turns=2)
    assert _walk(turns, budget=LIMITED).amounts.requests == Span(1, 2 + 4 * 3)


def test_the_cost_of_an_agent_in_python_is_unknown_and_a_budget_bounds_it() -> None:
    own = Step("own", call=OWN, input="x")
    part = _walk(own, _asked())
    assert (part.amounts.requests, part.amounts.cost.most) == (Span(1, None), None)
    assert [(each.agent, each.model, each.is_priced) for each in part.agents] == [
        (OWN.target, "", False),
        ("writer", WRITER.model, True),
    ]
    assert _walk(own, budget=UsageLimits(requests_limit=3)).amounts.requests == Span(0, 3)
