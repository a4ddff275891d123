"""Recorded values, changes of the context, messages of models and lines of a log as text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain.files import File
from flujo.governance.screen import visible_line
from flujo.services.inspection import formatting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.domain.merge import Op
    from flujo.services.inspection.following import LogLine

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


def line_facts(line: LogLine) -> Iterator[str]:
    """Yield what a line of the log says behind its step: text or value, attempt, time, usage and error."""
    match line.kind:
        case "text":
            yield visible_line(line.text)
        case "logged":
            yield f"{line.value['level']} {line.value['logger']}: {formatting.brief(line.text, 160)}"
        case "retried":
            yield f"in {formatting.seconds(line.value['delay_s'])}"
        case "dropped":
            yield f"{line.value} lines, which came too fast"
        case _:
            yield formatting.brief(line.text, 160) if line.text else ""
            yield "" if line.value is None else formatting.brief(line.value, 120)
    yield f"attempt {line.attempt}" if line.attempt > 1 else ""
    yield formatting.seconds(line.seconds) if line.kind in ("completed", "failed", "stopped") else ""
    yield formatting.usage(line.usage)
    if line.error is not None:
        yield f"{formatting.brief(line.error.message, 160)} [{line.error.code}]"
