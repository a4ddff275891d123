"""Messages to and from a model in the form of the GenAI conventions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain import canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_ROLES = {"system-prompt": "system", "tool-return": "tool", "retry-prompt": "user", "user-prompt": "user"}


def messages_of(recorded: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return recorded messages as the conventions write them: a role, and parts with a type."""
    return [each for message in recorded for each in _messages(message)]


def _messages(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    parts = message.get("parts", ())
    if message.get("kind") == "response":
        said: dict[str, Any] = {"role": "assistant", "parts": [_part(part) for part in parts]}
        if reason := message.get("finish_reason"):
            said["finish_reason"] = reason
        yield said
        return
    for part in parts:
        yield {"role": _ROLES.get(part.get("part_kind", ""), "user"), "parts": [_part(part)]}


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    content = part.get("content")
    match part.get("part_kind"):
        case "tool-call":
            return {
                "type": "tool_call",
                "id": part.get("tool_call_id"),
                "name": part.get("tool_name"),
                "arguments": part.get("args"),
            }
        case "tool-return":
            return {"type": "tool_call_response", "id": part.get("tool_call_id"), "response": content}
        case "thinking":
            return {"type": "reasoning", "content": content}
        case _:
            return {"type": "text", "content": content if isinstance(content, str) else _json(content)}


def _json(value: Any) -> str:
    return canonical.encode(value).decode()
