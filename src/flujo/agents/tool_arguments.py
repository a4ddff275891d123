"""Arguments of tool calls that are not JSON: repaired where that is certain and allowed, or else refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from flujo.agents.structured_output import OutputReader
from flujo.domain.conversations import not_repaired
from flujo.exceptions import OutputRejected

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.conversations import Tool, ToolCall

RepairedArguments = Literal["refuse", "ask", "allow"]
"""Whether a tool with an effect is called with repaired arguments; `ask` lets a human approve the call."""


class ArgumentsReader:
    """Reads arguments by the rules of structured output.

    A model that writes broken JSON may have broken more than the JSON, so a tool with an effect takes
    repaired arguments only if the project allows it, or if a human approves the call. A tool with the
    effect `read` always takes them.

    Args:
        level: how tolerant structured output is.
        repaired: whether tools with an effect take repaired arguments.
    """

    def __init__(self, *, level: int, repaired: RepairedArguments) -> None:
        self._reader = OutputReader({"type": "object"}, level=level)
        self._repaired = repaired

    def read(self, call: ToolCall, tools: Mapping[str, Tool]) -> ToolCall:
        """Return a call with its arguments as data, or with the reason why they are not."""
        if not isinstance(call.arguments, str) or call.name not in tools:
            return call
        try:
            reading = self._reader.read(call.arguments)
        except OutputRejected as rejected:
            return replace(call, problem=f"its arguments are not a JSON object: {rejected.reason}")
        if not reading.repairs:  # JSON within a JSON text
            return replace(call, problem="its arguments are a text, not a JSON object")
        if tools[call.name].effect != "read" and self._repaired == "refuse":
            return replace(call, problem=not_repaired(call.name))
        is_asked = tools[call.name].effect != "read" and self._repaired == "ask"
        written = call.arguments if is_asked else ""
        return replace(call, arguments=reading.value, repairs=reading.repairs, written=written)
