"""Renders the log of a run: one line each, the time and the verb first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.cli import formatting
from flujo.domain.paths import shown
from flujo.governance.screen import visible_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.cli.terminal import Terminal
    from flujo.services.inspection.following import LogLine

_STYLES = {"completed": "green", "failed": "red", "asked": "yellow", "skipped": "dim"}
"""The style of a verb; others have none."""
_VERB = 9
"""The width of the longest verb."""

_OFFSET = 4
"""The width of an offset, at least."""


def line_text(line: LogLine, terminal: Terminal) -> str:
    """Return a line of the log as text: `TIME  OFFSET  VERB  STEP  FACTS`."""
    style = _STYLES.get(line.kind)
    verb = f"{line.kind:<{_VERB}}"
    verb = terminal.styled(verb, style, to=terminal.out) if style else verb
    facts = [visible_line(shown(line.path)), *_facts(line)]
    head = [formatting.moment(line.at), f"{line.offset:>{_OFFSET}}", verb]
    return "  ".join([*head, *filter(None, facts)]).rstrip()


def line_data(line: LogLine) -> dict[str, Any]:
    """Return a line of the log as JSON data."""
    return {
        "offset": line.offset,
        "at": line.at,
        "kind": str(line.kind),
        "path": line.path,
        "attempt": line.attempt,
        "seconds": round(line.seconds, 3),
        "usage": formatting.usage_data(line.usage),
        "error": line.error.to_json() if line.error else None,
        "value": line.value,
        "text": line.text,
    }


def _facts(line: LogLine) -> Iterator[str]:
    """Yield what follows the step: the text or value, the attempt, its time and usage, and its error."""
    yield formatting.brief(line.text, 160) if line.text else ""
    yield "" if line.value is None else formatting.brief(line.value, 120)
    yield f"attempt {line.attempt}" if line.attempt > 1 else ""
    yield formatting.seconds(line.seconds) if line.kind in ("completed", "failed", "stopped") else ""
    yield formatting.usage(line.usage)
    if line.error is not None:
        yield f"{formatting.brief(line.error.message, 160)} [{line.error.code}]"
