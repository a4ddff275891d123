"""Tools for models without a tool protocol: each response is one JSON value, a tool call or the answer.

llama.cpp constrains a local model's text to a JSON Schema, so that even a small model writes valid calls. The
schema is the union of the tools and the answer. In the journal such a call looks like any other.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic_ai.messages import (
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from flujo.domain import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_ai.messages import ModelMessage

    from flujo.agents.tools import FunctionTool

_TEXT = {"type": "string", "minLength": 1}
ANSWER = "final_answer"
"""What a model calls to give its answer."""


def schema(tools: Mapping[str, FunctionTool], answer: Any) -> dict[str, Any]:
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


def explanation(tools: Mapping[str, FunctionTool]) -> str:
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
