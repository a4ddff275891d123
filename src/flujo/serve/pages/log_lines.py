"""A line of the log of a run as an item of a list."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.paths import shown
from flujo.serve.pages.rendering import moment
from flujo.services.inspection.following import LogKind
from flujo.services.inspection.trace_html import text
from flujo.services.inspection.value_text import line_facts

if TYPE_CHECKING:
    from flujo.services.inspection.following import LogLine


def line_html(line: LogLine) -> str:
    """Return a line of the log as HTML without a line break: when, what, at which step, with which facts.

    `data-key` is the same whenever the line is sent again. Lines with the same `data-of` continue each other.
    """
    facts = text("  ".join(filter(None, line_facts(line))))
    kind = f"{line.kind} provisional" if line.provisional else str(line.kind)
    key = text(f"{line.offset} {line.number} {line.kind} {line.path} {line.text if not line.number else ''}")
    of = f' data-of="{text(line.path)} {line.attempt}"' if line.kind is LogKind.TEXT else ""
    path = f"<code>{text(shown(line.path))}</code> " if line.path else ""
    head = f"<time>{moment(line.at)}</time> <b>{line.kind}</b> {path}"
    item = f'<li class="{kind}" data-key="{key}"{of}>{head}<span>{facts}</span></li>'
    return item.replace("\r", " ").replace("\n", " ")
