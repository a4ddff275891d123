"""Renders the log of a run: one line each, the time and the verb first; text of a model as it arrives."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flujo.domain import chains
from flujo.domain.commands import command
from flujo.domain.paths import shown
from flujo.governance.screen import visible_line
from flujo.services.inspection import formatting
from flujo.services.inspection.value_text import line_facts

if TYPE_CHECKING:
    from flujo.cli.terminal import Terminal
    from flujo.domain.journal import RunId
    from flujo.services.inspection.following import LogLine

_STYLES = {"completed": "green", "failed": "red", "asked": "yellow", "skipped": "dim", "lost": "red"}
"""The style of a verb; others have none."""
_VERB = 9
"""The width of the longest verb."""

_OFFSET = 4
"""The width of an offset, at least."""


class LogPrinter:
    """Prints the lines of a log as text. On a terminal, pieces of a model's text follow one another.

    Args:
        terminal: where the lines go.
    """

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._writing: tuple[str, int] | None = None
        """The attempt whose text stands on the last line, which has not ended."""

    def show(self, line: LogLine) -> None:
        """Print a line, or continue the last one."""
        if line.kind != "text" or not self._terminal.out.isatty():
            self.end()
            self._terminal.data(line_text(line, self._terminal))
            return
        if self._writing != (line.path, line.attempt):
            self.end()
            self._terminal.piece(line_text(replace(line, text=""), self._terminal) + "  ")
        self._terminal.piece(self._terminal.styled(line.text, "dim", to=self._terminal.out))
        self._writing = line.path, line.attempt

    def end(self) -> None:
        """End the last line, if it has not ended."""
        if self._writing is not None:
            self._terminal.data("")
            self._writing = None


def say_chain(terminal: Terminal, run_id: RunId, successor: RunId | None) -> None:
    """Say which run of a chain a log is of, and how to see the others."""
    before = chains.predecessor_of(run_id)
    if before is None and successor is None:
        return
    words = [f"continues {before}"] if before else []
    words += [f"is continued by {successor}"] if successor else []
    terminal.say(f"run {run_id} {' and '.join(words)}")
    terminal.next(command("flujo", "tasks", "list", "--chain", run_id), "list all runs of the chain")


def line_text(line: LogLine, terminal: Terminal) -> str:
    """Return a line of the log as text: `TIME  OFFSET  VERB  STEP  FACTS`."""
    style = _STYLES.get(line.kind)
    verb = f"{line.kind:<{_VERB}}"
    verb = terminal.styled(verb, style, to=terminal.out) if style else verb
    facts = [visible_line(shown(line.path)), *line_facts(line)]
    head = [formatting.moment(line.at), f"{line.offset:>{_OFFSET}}", verb]
    text = "  ".join([*head, *filter(None, facts)]).rstrip()
    return terminal.styled(text, "dim", to=terminal.out) if line.provisional and not style else text
