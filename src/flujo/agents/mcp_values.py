"""Results of tools of MCP servers as values of a run: JSON data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain import canonical

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mcp.types import CallToolResult


def value(result: CallToolResult) -> Any:
    """Return the value of a result.

    Structured content is the value; images and sounds beside it make it an object with `structured` and
    `content`. Without structured content, one text is the value, and several parts are a list: texts, and an
    object for each other part.
    """
    parts = [_part(each) for each in result.content]
    structured = result.structured_content
    if structured is None:
        return parts[0] if len(parts) == 1 else parts or None
    others = [each for each in parts if not isinstance(each, str)]
    given = canonical.normalise(structured)
    return {"structured": given, "content": others} if others else given


def text(result: CallToolResult) -> str:
    """Return the texts of a result, for an error message."""
    return "\n".join(_texts([_part(each) for each in result.content])) or "it gives no reason"


def _texts(parts: Sequence[Any]) -> list[str]:
    return [each for each in parts if isinstance(each, str)]


def _part(block: Any) -> Any:
    """Return one part of a content: a text, or an object with `type` and the fields of MCP."""
    if block.type == "text":
        return block.text
    shown = block.model_dump(mode="json", by_alias=True, exclude_none=True)
    shown.pop("annotations", None)
    shown.pop("_meta", None)
    return shown
