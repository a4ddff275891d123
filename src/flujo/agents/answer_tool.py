"""Structured output as a tool: the model calls it with the answer, and the arguments are read as its text."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.tools import ToolDefinition

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic_ai.models import ModelRequestParameters

_NAME = "final_answer"


def with_answer_tool(parameters: ModelRequestParameters, schema: dict[str, Any]) -> ModelRequestParameters:
    """Return the parameters of a request that a model can only answer with a tool call."""
    answer = ToolDefinition(
        name=name_beside(tool.name for tool in parameters.function_tools),
        description="Give the final answer.",
        parameters_json_schema=schema,
        kind="output",
    )
    return replace(parameters, output_mode="tool", output_tools=[answer], allow_text_output=False)


def name_beside(tools: Iterable[str]) -> str:
    """Return the name of the tool for answers, which no other tool has."""
    taken, name = set(tools), _NAME
    while name in taken:
        name += "_"
    return name


def as_text(response: ModelResponse, name: str) -> ModelResponse:
    """Return a response in which the arguments of the tool for answers are its text.

    A response that calls other tools too is not the answer yet: its answer is dropped, because their results
    could change it.
    """
    calls = [part for part in response.parts if isinstance(part, ToolCallPart)]
    if all(call.tool_name != name for call in calls):
        return response
    is_answer = all(call.tool_name == name for call in calls)
    parts: list[Any] = []
    for part in response.parts:
        if isinstance(part, ToolCallPart) and part.tool_name == name:
            parts += [TextPart(_text(part))] if is_answer else []
        elif not (is_answer and isinstance(part, TextPart)):  # a comment on the answer
            parts.append(part)
    return replace(response, parts=parts)


def _text(call: ToolCallPart) -> str:
    # pydantic-ai would hide broken JSON in an object.
    return call.args if isinstance(call.args, str) else call.args_as_json_str()
