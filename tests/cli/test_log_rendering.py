"""Provisional lines of a log: dim on a terminal, and text of a model as it arrives."""

from __future__ import annotations

import io
import re
from typing import Any

from cli.test_progress import Screen
from flujo.cli.log_rendering import LogPrinter
from flujo.cli.terminal import Terminal
from flujo.domain.paths import StepPath
from flujo.services.inspection.following import LogKind, LogLine
from flujo.services.inspection.views import line_data


def line(kind: LogKind, path: str = "", **more: Any) -> LogLine:
    return LogLine(offset=1, at=1.8e9, kind=kind, path=StepPath(path), **{"provisional": True, **more})


LINES = [
    line(LogKind.STARTED, "draft"),
    line(LogKind.TEXT, "draft", text="Dear\n"),
    line(LogKind.TEXT, "draft", text="Ada\x1b[31m"),
    line(LogKind.TEXT, "other", text="Hi"),
    line(LogKind.LOGGED, "other", text="it is there", value={"level": "info", "logger": "mine"}),
    line(LogKind.RETRIED, "other", attempt=2, value={"delay_s": 0.5}),
    line(LogKind.DROPPED, value=12),
    line(LogKind.LOST, text="no process executes the run"),
    line(LogKind.COMPLETED, "draft", provisional=False, seconds=2.0),
]


def shown(out: io.StringIO) -> str:
    """Return what a printer has written, without the time and the offset."""
    printer = LogPrinter(Terminal(out=out))
    for each in LINES:
        printer.show(each)
    printer.end()
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ     1  ", "", out.getvalue())


def test_a_pipe_gets_a_line_for_each_piece_of_text() -> None:
    assert [text.rstrip() for text in shown(io.StringIO()).splitlines()] == [
        "started    draft",
        "text       draft  Dear\\n",
        "text       draft  Ada\\x1b[31m",
        "text       other  Hi",
        "logged     other  info mine: it is there",
        "retried    other  in 0.5s  attempt 2",
        "dropped    12 lines, which came too fast",
        "lost       no process executes the run",
        "completed  draft  2.0s",
    ]


def test_on_a_terminal_pieces_of_text_follow_one_another() -> None:
    text = shown(Screen())
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert plain.splitlines()[1:5] == [
        "text       draft  Dear",
        "Ada\\x1b[31m",
        "text       other  Hi",
        "logged     other  info mine: it is there",
    ]
    assert text.startswith("\x1b[2m")
    assert "\x1b[31mlost" in text


def test_json_says_what_is_provisional() -> None:
    said = line_data(
        line(LogKind.LOGGED, "x", number=7, text="hi", value={"level": "info", "logger": "mine"})
    )
    assert (said["provisional"], said["number"], said["kind"], said["value"]["level"]) == (
        True,
        7,
        "logged",
        "info",
    )
    assert line_data(LINES[-1])["provisional"] is False
