"""Tools for models without a tool protocol."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, ToolCallPart, ToolReturnPart

from flujo.agents import tool_union
from flujo.agents.tools import tools_of
from flujo.domain.conversations import ToolCall

LABEL = {"type": "object", "properties": {"label": {"enum": ["refund", "bug"]}}, "required": ["label"]}


class Item(BaseModel):
    name: str


def lookup(name: str) -> dict[str, bool]:
    """Look a customer up."""
    return {"vip": name == "Ada"}


def test_calls_and_results_are_sent_as_text() -> None:
    sent = tool_union.as_text(
        [
            ModelResponse(parts=[ToolCallPart("lookup", {"name": "Ada"}, tool_call_id="1")]),
            ModelRequest(parts=[ToolReturnPart("lookup", {"vip": True}, tool_call_id="1")]),
        ]
    )
    assert [part.content for message in sent for part in message.parts] == [  # type: ignore[union-attr]  # texts
        '{"arguments":{"name":"Ada"},"tool":"lookup"}',
        'Result of lookup: {"vip":true}\nNow answer.',
    ]


def test_the_union_has_each_tool_and_the_answer_with_definitions_at_the_root() -> None:
    def book(item: Item, amount: int) -> str:
        """Book an item."""
        return f"{amount} {item.name}"

    union = tool_union.schema(tools_of("a", [lookup, book]), LABEL)
    names = [way["properties"]["tool"]["const"] for way in union["anyOf"]]
    assert names == ["lookup", "book", "final_answer"]
    assert union["$defs"]["book.Item"]["properties"] == {"name": {"type": "string"}}
    assert union["anyOf"][1]["properties"]["arguments"]["properties"]["item"] == {"$ref": "#/$defs/book.Item"}
    alone = tool_union.schema({}, LABEL)
    assert alone["properties"]["arguments"] == LABEL


def response_of(text: str) -> Any:
    return ModelResponse(parts=[TextPart(text)])


@pytest.mark.parametrize(
    ("text", "is_text", "expected"),
    [
        (
            '{"tool": "lookup", "arguments": {"name": "Ada"}}',
            True,
            ToolCall("lookup", {"name": "Ada"}, "call_4"),
        ),
        ('{"tool": "final_answer", "arguments": {"text": "yes"}}', True, "yes"),
        ('{"tool": "final_answer", "arguments": {"label": "bug"}}', False, '{"label": "bug"}'),
        ("It is a bug.", True, "It is a bug."),
        ('{"tool": 3}', True, '{"tool": 3}'),
    ],
)
def test_a_response_of_the_union_is_a_call_or_an_answer(text: str, is_text: bool, expected: Any) -> None:
    (part,) = tool_union.as_calls(response_of(text), 4, is_text=is_text).parts
    if isinstance(expected, ToolCall):
        assert (part.tool_name, part.args, part.tool_call_id) == ("lookup", {"name": "Ada"}, "call_4")  # type: ignore[union-attr]
    else:
        assert part.content == expected  # type: ignore[union-attr]
