"""Renders findings on a terminal: colours and the summary line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TextIO

from flujo.domain.wording import plural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.cli.terminal import Terminal

_SEVERITY = {"error": ("bold", "red"), "warning": ("bold", "yellow"), "info": ("bold", "cyan")}


def painted(text: str, terminal: Terminal, *, to: TextIO) -> str:
    """Return a rendered finding, coloured if the stream shows colour."""
    if not terminal.paints(to):
        return text
    head, *rest = text.split("\n")
    severity = head.split("[", 1)[0]
    mark, colon, message = head.partition(": ")
    lines = [terminal.styled(mark, *_SEVERITY.get(severity, ("bold",)), to=to) + colon + message]
    for line in rest:
        if re.fullmatch(r"\s*\|\s*[\^-]+.*", line):
            bar, marks = line.split("|", 1)
            line = terminal.styled(f"{bar}|", "blue", to=to) + terminal.styled(
                marks, *_SEVERITY.get(severity, ("bold",)), to=to
            )
        elif found := re.match(r"(\s*(?:-->|:::|\d* ?\||=))(.*)", line):
            line = terminal.styled(found[1], "blue", to=to) + found[2]
        lines.append(line)
    return "\n".join(lines)


def summary(findings: Sequence[Any]) -> str:
    """Return `2 errors, 1 warning`."""
    counts = {name: sum(1 for f in findings if f.severity == name) for name in ("error", "warning", "info")}
    words = {"error": ("error", ""), "warning": ("warning", ""), "info": ("note", "")}
    return ", ".join(plural(count, *words[name]) for name, count in counts.items() if count) or "no findings"
