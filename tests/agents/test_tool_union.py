"""Tools for models without a tool protocol."""

from __future__ import annotations

import json
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


TEXTS = ["Ada is a VIP.", 'a "quote", a \\ and a\nline', "grüße 😀", "{not} [json]", ""]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("text", TEXTS)
def test_the_text_of_an_answer_is_known_piece_by_piece(text: str, size: int, ascii_only: bool) -> None:
    written = json.dumps({"tool": "final_answer", "arguments": {"text": text}}, ensure_ascii=ascii_only)
    answer = tool_union.AnswerStream(is_text=True)
    pieces = [answer.more(written[at : at + size]) for at in range(0, len(written), size)]
    assert "".join(pieces) == text
    assert answer.more("\n}") == ""


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_json_of_an_answer_is_known_piece_by_piece(size: int) -> None:
    value = {"label": "b}u\\g", "items": [1, {"a": "]"}], "note": 'a "quote"'}
    written = json.dumps({"tool": "final_answer", "arguments": value}) + " "
    answer = tool_union.AnswerStream(is_text=False)
    pieces = [answer.more(written[at : at + size]) for at in range(0, len(written), size)]
    assert json.loads("".join(pieces)) == value


def test_half_a_surrogate_pair_is_replaced_when_nothing_completes_it() -> None:
    answer = tool_union.AnswerStream(is_text=True)
    assert answer.more('{"tool": "final_answer", "arguments": {"text": "a\\ud83d') == "a"
    assert answer.more('b"') == "\ufffdb"


@pytest.mark.parametrize("is_text", [True, False])
def test_nothing_of_a_tool_call_is_an_answer(is_text: bool) -> None:
    answer = tool_union.AnswerStream(is_text=is_text)
    written = '{"tool": "lookup", "arguments": {"text": "final_answer"}}'
    assert "".join(answer.more(each) for each in written) == ""
