"""Tools for models without a tool protocol: each response is one JSON value, a tool call or the answer.

llama.cpp constrains a local model's text to a JSON Schema, so that even a small model writes valid calls. The
schema is the union of the tools and the answer. In the journal such a call looks like any other.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic_ai.messages import (
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from flujo.agents.messages import clean
from flujo.domain import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_ai.messages import ModelMessage

    from flujo.agents.tools import FunctionTool, StepsTool

_TEXT = {"type": "string", "minLength": 1}
ANSWER = "final_answer"
"""What a model calls to give its answer."""
_HEAD = re.compile(rf'\s*\{{\s*"tool"\s*:\s*"{ANSWER}"\s*,\s*"arguments"\s*:\s*')
_HEAD_OF_TEXT = re.compile(rf'{_HEAD.pattern}\{{\s*"text"\s*:\s*"')
_HALF = r"\\u[dD][89abAB][\da-fA-F]{2}"
"""The first half of a surrogate pair, as an escape."""
_CHARACTERS = re.compile(
    r'(?:[^"\\]|\\["\\/bfnrt]'
    rf"|(?!{_HALF})\\u[\da-fA-F]{{4}}|{_HALF}\\u[\da-fA-F]{{4}}|{_HALF}(?=[^\\]|\\[^u]))*"
)
"""Complete characters of a JSON string; a first half waits until it is known what follows."""


def schema(tools: Mapping[str, FunctionTool | StepsTool], answer: Any) -> dict[str, Any]:
    """Return the JSON Schema of one response.

    Args:
        tools: the tools that may be called.
        answer: the schema of the answer; None for text.
    """
    definitions: dict[str, Any] = {}
    given = {name: tool.definition.parameters_json_schema for name, tool in tools.items()}
    given[ANSWER] = _object({"text": _TEXT}) if answer is None else answer
    ways = [
        _object({"tool": {"const": name}, "arguments": _hoisted(name, each, definitions)})
        for name, each in given.items()
    ]
    union: dict[str, Any] = ways[0] if len(ways) == 1 else {"anyOf": ways}
    return {**union, "$defs": definitions} if definitions else union


def explanation(tools: Mapping[str, FunctionTool | StepsTool]) -> str:
    """Return the instructions about the tools."""
    lines = [
        f"- {name}({', '.join(tool.definition.parameters_json_schema.get('properties', ()))}): "
        f"{tool.definition.description or name}"
        for name, tool in tools.items()
    ]
    return "\n".join(
        [
            "Choose the tool to call. Tools:",
            *lines,
            f"- {ANSWER}: answer the user directly",
            'Reply as JSON {"tool": NAME, "arguments": {…}}.',
        ]
    )


def as_text(messages: Sequence[ModelMessage]) -> list[ModelMessage]:
    """Return messages in which calls and results are plain text."""
    return [replace(message, parts=[_plain(part) for part in message.parts]) for message in messages]  # type: ignore[arg-type]  # requests have request parts, responses response parts


def as_calls(response: ModelResponse, number: int, *, is_text: bool) -> ModelResponse:
    """Return a response whose JSON text is its tool call or its answer.

    A text that is neither is returned unchanged; it is read as an answer.
    """
    text = "".join(part.content for part in response.parts if isinstance(part, TextPart))
    try:
        said = json.loads(text)
    except ValueError:
        return response
    match said:
        case {"tool": "final_answer", "arguments": answer}:
            alone = isinstance(answer, dict) and list(answer) == ["text"] and is_text
            written = answer["text"] if alone else json.dumps(answer, ensure_ascii=False)
            return replace(response, parts=[TextPart(written)])
        case {"tool": str(name), "arguments": arguments}:
            return replace(response, parts=[ToolCallPart(name, arguments, tool_call_id=f"call_{number}")])
        case _:
            return response


class AnswerStream:
    """The answer in a response that is being written: its text, or its JSON; nothing of a tool call.

    Args:
        is_text: whether the answer is plain text.
    """

    def __init__(self, *, is_text: bool) -> None:
        self._is_text = is_text
        self._unread = ""
        self._has_begun = False
        self._depth = 0
        """How many brackets of a JSON answer are open; negative after its end."""
        self._in_string = self._is_escaped = False

    def more(self, piece: str) -> str:
        """Return the part of the answer that a further piece of the response completes."""
        self._unread += piece
        if self._depth < 0:
            return ""
        if not self._has_begun:
            head = (_HEAD_OF_TEXT if self._is_text else _HEAD).match(self._unread)
            if head is None:
                return ""
            self._has_begun, self._unread = True, self._unread[head.end() :]
        return self._text() if self._is_text else self._json()

    def _text(self) -> str:
        whole = _CHARACTERS.match(self._unread)
        written = "" if whole is None else whole.group()
        self._unread = self._unread[len(written) :]
        return str(clean(json.loads(f'"{written}"', strict=False)))

    def _json(self) -> str:
        unread, self._unread = self._unread, ""
        for place, character in enumerate(unread):
            if self._is_escaped:
                self._is_escaped = False
            elif character == '"':
                self._in_string = not self._in_string
            elif self._in_string:
                self._is_escaped = character == "\\"
            elif character in "{[":
                self._depth += 1
            elif character in "]}":
                self._depth -= 1
            if self._depth < 0:
                return unread[:place]
        return unread


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _hoisted(name: str, given: Any, definitions: dict[str, Any]) -> Any:
    """Return a schema for a place inside another one; its definitions move to the root, under new names."""
    if not isinstance(given, dict) or "$defs" not in given:
        return given
    prefix = f"#/$defs/{name}."
    moved = json.loads(json.dumps(given).replace('"#/$defs/', f'"{prefix}'))
    definitions |= {f"{name}.{key}": each for key, each in moved.pop("$defs").items()}
    return moved


def _plain(part: Any) -> Any:
    match part:
        case ToolCallPart():
            call = {"tool": part.tool_name, "arguments": part.args}
            return TextPart(canonical.encode(call).decode())
        case ToolReturnPart():
            return UserPromptPart(f"Result of {part.tool_name}: {part.model_response_str()}\nNow answer.")
        case _:
            return part
