"""Recorded values, changes of the context and messages of models as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain.files import File
from flujo.services.inspection import formatting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.domain.merge import Op

_OF_PARTS = {"user-prompt": "user", "system-prompt": "system", "text": "model", "thinking": "thinks"}
_MOST_OF_A_CALL = 1200
"""How many characters of the arguments and of the result of a tool call are shown in a message."""


def lines_of(message: Any) -> Iterator[tuple[str, str]]:
    """Yield the parts of a message as text, each with its author."""
    for part in message["parts"]:
        match part:
            case {"part_kind": "tool-call", "tool_name": name}:
                yield "calls", f"{name} {value_text(part.get('args') or {}, _MOST_OF_A_CALL)}"
            case {"part_kind": "tool-return", "tool_name": name}:
                yield "result", f"{name}: {value_text(part.get('content'), _MOST_OF_A_CALL)}"
            case {"part_kind": str(kind), "content": str(content)} if content:
                yield _OF_PARTS.get(kind, kind), content
            case {"part_kind": str(kind), "content": [*items]}:
                for item in items:
                    if isinstance(item, str):
                        yield _OF_PARTS.get(kind, kind), item
                    elif item.get("kind") == "binary":
                        yield "file", str(File.of_message(item))
            case _:
                pass


def value_text(value: Any, limit: int | None) -> str:
    """Return a value as one line of at most `limit` characters, or in full."""
    if limit is not None:
        return formatting.brief(value, limit)
    if isinstance(value, str):
        return value
    return formatting.as_json(value, indent=True)


def change(op: Op, limit: int | None) -> str:
    """Return one change of the context: `total = 3`, `log += ["a"]`, `draft removed`."""
    kind, path, *value = op
    name = ".".join(str(key) for key in path)
    if kind == "remove":
        return f"{name} removed"
    said_value: Any = value[0]
    return f"{name} {'+=' if kind == 'append' else '='} {value_text(said_value, limit)}"
