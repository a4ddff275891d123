"""Renders a lock as a table, and differences from it word by word."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from flujo.cli.report_formats import annotation
from flujo.domain.wording import plural
from flujo.services.inspection import formatting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from flujo.cli.terminal import Terminal
    from flujo.services.checks.locking import Change, Mismatch

_COLUMNS = {"what": "KIND", "name": "NAME", "where": "IN", "held": "LOCKED AS"}
_STYLES = {"removed": "red", "added": "green"}
_MARKS = {"same": "{}", "removed": "[-{}-]", "added": "{{+{}+}}", "skipped": " … "}
_VALUE = 70
_STEPS = 6
"""How many affected steps of a blueprint are named; the rest is counted."""


def show_lock(terminal: Terminal, held: dict[str, Any]) -> None:
    """Write the contents of a lock to stdout, as a table."""
    rows = [
        {
            "what": "blueprint",
            "name": str(one.get("name", "")),
            "where": file,
            "held": plural(len(one.get("steps", ())), "step"),
        }
        for file, one in sorted(held["blueprints"].items())
    ]
    for file, agents in sorted(held["agents"].items()):
        for name, agent in sorted(agents.items()):
            other = [f"{env}: {own.get('model')}" for env, own in sorted(agent.get("env", {}).items())]
            models = "  ".join([str(agent.get("model")), *other])
            rows.append({"what": "agent", "name": name, "where": file, "held": models})
    for target, digest in sorted(held["callables"].items()):
        short = digest if " " in digest else digest[:12]
        rows.append({"what": "callable", "name": target, "where": "", "held": short})
    for name, server in sorted(held["mcp"].items()):
        count = plural(len(server.get("tools", ())), "tool")
        rows.append({"what": "MCP server", "name": name, "where": "", "held": count})
    for what, section in (("setting", "settings"), ("library", "libraries")):
        for name, value in sorted(held[section].items()):
            rows.append({"what": what, "name": name, "where": "", "held": formatting.brief(value, _VALUE)})
    terminal.table(_COLUMNS, rows)


def show_mismatches(terminal: Terminal, found: Sequence[Mismatch]) -> None:
    """Write mismatches to stdout below the headings of their groups."""
    for group, each in groupby(found, key=lambda one: one.group):
        terminal.data(terminal.styled(f"{group}:", "bold", to=terminal.out))
        for one in each:
            terminal.data(f"  {one.text}")


def github(found: Sequence[Mismatch], place_of: Callable[[Mismatch], tuple[str, int]]) -> str:
    """Return GitHub workflow commands, which annotate the lines of a pull request.

    Args:
        found: the mismatches.
        place_of: returns the file and the line of a mismatch.
    """
    return "\n".join(annotation("error", *place_of(one), one.group, one.text) for one in found)


def diff_data(changes: Sequence[Change], waiting: Mapping[str, int]) -> dict[str, Any]:
    """Return changes as JSON data, with the blueprints and steps that they affect, and their waiting runs."""
    from flujo.services.checks.locking import affected

    return {
        "matches": not changes,
        "changes": [change.to_json() for change in changes],
        "affects": affected(changes),
        "waiting_runs": dict(waiting),
    }


def show_diff(terminal: Terminal, changes: Sequence[Change], waiting: Mapping[str, int]) -> None:
    """Write changes to stdout: removed words in `[-…-]`, added words in `{+…+}`.

    The blueprints that they affect are listed with the number of their runs that wait.
    """
    from flujo.services.checks.locking import affected, sentence

    for change in changes:
        lines = _by_word(terminal, change) if change.is_text else [f"- {one}" for one in change.details]
        terminal.data(terminal.styled(_head(change, sentence(change)), "bold", to=terminal.out))
        for line in lines:
            terminal.data(f"  {line}")
    reached = affected(changes)
    if reached:
        terminal.data(terminal.styled("affects", "bold", to=terminal.out))
    for blueprint, steps in reached.items():
        runs = waiting.get(blueprint, 0)
        wait = f" ({plural(runs, 'run')} {'wait' if runs > 1 else 'waits'})" if runs else ""
        terminal.data(f"  {blueprint}{_listed(steps)}{wait}")


def _head(change: Change, sentence: str) -> str:
    """Return the first line: the whole sentence, or its subject if details follow below."""
    if change.details or change.is_text:
        who = sentence.partition(": ")[0]
        key = "instructions" if change.key == "instructions" else f"`{change.key}`"
        return f"{who}: {key}"
    return sentence


def _by_word(terminal: Terminal, change: Change) -> Iterable[str]:
    """Return the lines of a changed text, with the changed words marked."""
    from flujo.services.checks.locking import changed_words

    text = "".join(marked(terminal, kind, part) for kind, part in changed_words(change))
    return text.removesuffix("\n").split("\n")


def marked(terminal: Terminal, kind: str, text: str) -> str:
    """Return a piece of a text, with marks and style for a removed or added one."""
    piece = _MARKS[kind].format(text)
    if kind not in _STYLES:
        return piece
    # a style ends with its line, because a pager may show a line alone
    lines = piece.split("\n")
    return "\n".join(terminal.styled(line, _STYLES[kind], to=terminal.out) for line in lines)


def _listed(steps: Sequence[str]) -> str:
    if not steps:
        return ""
    more = f" and {len(steps) - _STEPS} more" if len(steps) > _STEPS else ""
    return f": {', '.join(steps[:_STEPS])}{more}"
