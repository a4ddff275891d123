"""The entries of an agent's `tools`, as they are written in Python."""

from __future__ import annotations

from typing import Any

import pytest

from flujo import AgentSpec
from flujo.domain.steps import CallableRef
from flujo.domain.tools import CallableTool, requirement, tool
from flujo.exceptions import PipelineError


def look(name: str) -> str:
    return name


def test_a_callable_stands_for_an_entry_without_rules() -> None:
    ref = CallableRef.of(look)
    spec = AgentSpec("clerk", "a:b", tools=[look, ref, ref.target, CallableTool(look)])
    assert spec.tools == (CallableTool(look),) * 4
    assert [str(each) for each in spec.tools] == [f"{__name__}:look"] * 4
    assert list(spec.names()) == [ref] * 4
    assert spec.tools[0].name == "look"


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"effect": "safe"}, "tool: `effect` is 'safe'; expected one of 'read', 'idempotent'"),
        ({"in_doubt": "ask"}, "tool: `in_doubt` is 'ask'"),
        ({"efect": "read"}, "has no argument `efect`"),
    ],
)
def test_a_wrong_rule_is_named(rules: Any, words: str) -> None:
    with pytest.raises(PipelineError, match=words):
        CallableTool(look, **rules)


@pytest.mark.parametrize("tools", ["json:dumps", 5, [5]])
def test_what_is_not_a_tool_is_named(tools: Any) -> None:
    with pytest.raises(PipelineError, match="agent 'clerk': `tools` is "):
        AgentSpec("clerk", "a:b", tools=tools)


def test_a_transactional_tool_requires_nothing_of_its_step() -> None:
    @tool(effect="transactional", enforce_idempotency=True)
    def book(seat: int, connection: object, idempotency_key: str) -> None: ...

    @tool(effect="transactional", enforce_idempotency=True)
    def call(seat: int, idempotency_key: str) -> None: ...

    assert requirement(book) == ""
    assert requirement(call) == "`enforce_idempotency`"


@pytest.mark.parametrize("effect", ["safe", 5, None])
def test_a_callable_declares_an_effect_that_exists(effect: Any) -> None:
    with pytest.raises(PipelineError, match=r"`effect` of `@flujo.tool` is .*; expected one of 'read'"):
        tool(effect=effect)


def test_what_cannot_carry_a_declaration_is_refused() -> None:
    with pytest.raises(PipelineError, match="cannot mark <built-in function len>"):
        tool(effect="read")(len)
