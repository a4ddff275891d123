"""The two channels: results go to stdout, messages to stderr, without secrets and control characters."""

from __future__ import annotations

import logging
import os
import re
import secrets
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from flujo.exceptions import SettingsError
from flujo.governance.logs import logger
from flujo.governance.screen import visible, visible_line
from flujo.governance.sink import GATE
from flujo.services.inspection.formatting import as_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from rich.console import Console

    from flujo.domain.commands import ShellCommand

log = logger("flujo.cli")

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}

# A style is marked with a number that only this process knows, so that a text cannot colour itself.
_MARK = f"\x1b{secrets.token_hex(8)}["
_MARKED = re.compile(f"{re.escape(_MARK)}([0-9;]+)m")


@dataclass(frozen=True)
class Terminal:
    """The output streams of a command. `color` allows colour; a pipe never gets any."""

    color: bool = True
    logs_messages: bool = False
    """Whether messages are lines of the log, because all of stderr is JSON."""
    writes_events: bool = False
    """Whether stdout has the events of a run, one JSON object a line."""
    fields: Sequence[str] = ()
    """The fields of JSON results that are written; empty for all."""
    out: TextIO = field(default_factory=lambda: sys.stdout)
    err: TextIO = field(default_factory=lambda: sys.stderr)

    def data(self, text: str) -> None:
        """Write a result to stdout, with a newline."""
        text = GATE.result(text)
        self._write(text if text.endswith("\n") else f"{text}\n", self.out)

    def piece(self, text: str) -> None:
        """Write a part of a result to stdout, without a newline."""
        self._write(GATE.result(text), self.out)

    def save(self, text: str, folder: Path, name: Path) -> None:
        """Write a result to a file instead of stdout, and report that.

        Raises:
            SettingsError: the file cannot be written.
        """
        try:
            (folder / name).write_text(visible(GATE.result(text)), "utf-8")
        except OSError as error:
            raise SettingsError(f"{name} cannot be written: {error.strerror}") from error
        self.say(f"wrote {name}")

    def verbatim(self, text: str) -> None:
        """Write the text that a run has returned to stdout: unchanged in a pipe, escaped on a terminal."""
        if self.out.isatty():
            self.data(text)
        else:
            text = GATE.result(text)
            self.out.write(text if text.endswith("\n") else f"{text}\n")
            self.out.flush()

    def json(self, value: Any) -> None:
        """Write a result to stdout as JSON: indented on a terminal, on one line in a pipe.

        Of an object, and of each object of a list, only the chosen fields are written.
        """
        self._write_json(self._selected(value))

    def json_line(self, value: Any) -> None:
        """Write an object to stdout as JSON on one line."""
        self.out.write(f"{as_json(GATE.data(value))}\n")
        self.out.flush()

    def failure(self, error: Mapping[str, Any]) -> None:
        """Write an error to stdout as `{"error": …}`; behind events, as the last of them."""
        if self.writes_events:
            self.json_line({"event": "end", "error": error})
        else:
            self._write_json({"error": error})

    def _selected(self, value: Any) -> Any:
        if not self.fields:
            return value
        if isinstance(value, list):
            return [self._selected(each) for each in value]
        return {name: value.get(name) for name in self.fields} if isinstance(value, dict) else value

    def _write_json(self, value: Any) -> None:
        self.out.write(f"{as_json(GATE.data(value), indent=self.out.isatty())}\n")
        self.out.flush()

    def clear(self) -> None:
        """Clear the terminal that shows the results; a pipe stays as it is."""
        if self.out.isatty():
            self.out.write("\x1b[H\x1b[2J")

    def say(self, text: str, *styles: str) -> None:
        """Write a message to stderr, with a newline; or log it."""
        if self.logs_messages:
            log.log(_level(text, styles), _MARKED.sub("", text))
            return
        self._write(f"{self.styled(GATE.text(text), *styles, to=self.err)}\n", self.err)

    def next(self, command: ShellCommand, why: str = "") -> None:
        """Suggest the next command and say what it does, or what its words in capitals stand for."""
        reason = f"   ({why})" if why else ""
        self.say(f"{self.styled('next:', 'dim', to=self.err)} {visible_line(command)}{reason}")

    def styled(self, text: str, *styles: str, to: TextIO) -> str:
        """Return `text` in these styles, or unchanged if the stream shows no colour."""
        codes = ";".join(_STYLES[style] for style in styles)
        return f"{_MARK}{codes}m{text}{_MARK}0m" if codes and self.paints(to) else text

    def paints(self, stream: TextIO) -> bool:
        """Return whether the stream gets colour."""
        return self.color and stream.isatty()

    def console(self) -> Console:
        """Return a console on stderr for what is redrawn in place; without colour it has no styles either."""
        from rich.console import Console

        return Console(file=self.err, color_system="auto" if self.color else None, highlight=False)

    @property
    def width(self) -> int | None:
        """The columns of the terminal that shows the results, or None without one."""
        return (os.get_terminal_size(self.out.fileno()).columns or 80) if self.out.isatty() else None

    def table(self, columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows to stdout as aligned text; on a terminal the header is bold and long lines are cut.

        Args:
            columns: key of a row → header of its column, in order.
            rows: the rows; a missing cell is empty.
        """
        from flujo.cli.columns import aligned, cut

        texts = ([visible_line(str(row.get(key, ""))) for key in columns] for row in rows)
        cells = [list(columns.values()), *texts]
        width = self.width
        for number, line in enumerate(aligned(cells)):
            shown = cut(line, width) if width else line
            self.data(shown if number else self.styled(shown, "bold", to=self.out))

    def _write(self, text: str, stream: TextIO) -> None:
        parts = _MARKED.split(text)  # texts and, between them, the codes of our styles
        stream.write("".join(f"\x1b[{part}m" if at % 2 else visible(part) for at, part in enumerate(parts)))
        stream.flush()  # keeps the order of lines on stdout and stderr


def _level(text: str, styles: Sequence[str]) -> int:
    """Return the level at which a message is logged."""
    if "red" in styles or _MARKED.sub("", text).startswith("error:"):
        return logging.ERROR
    return logging.WARNING if "yellow" in styles else logging.INFO
