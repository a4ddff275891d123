"""Log lines as JSON or as text. Each names its run, its step, its attempt and its trace."""

from __future__ import annotations

import json
import logging
import re
import sys
import warnings
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TextIO

from flujo.domain.current_step import CURRENT_STEP, CurrentStep
from flujo.domain.paths import shown
from flujo.domain.trace_ids import shown_trace_id
from flujo.exceptions import SettingsError
from flujo.governance.logs import logger
from flujo.governance.screen import visible, visible_json, visible_line
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LogFormat = Literal["text", "json"]

LEVELS = ("debug", "info", "warning", "error", "critical")

OWN = "flujo"
"""The logger above all of Flujo's."""

_EVERYTHING = "root"
_NAME = re.compile(r"[\w.-]+")


def about(step: CurrentStep) -> dict[str, Any]:
    """Return the `extra` of a log record about a step that is not the current one."""
    return {"flujo_step": step}


class JsonLines(logging.Formatter):
    """One JSON object a line, with secrets masked.

    The keys are `time`, `level`, `logger`, `message`; inside a run `run_id` and `trace_id`, inside a step
    `step` and `attempt`; and `error` with a traceback.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {**_head(record), "message": _message(record), **_place(record)}
        if traceback := _traceback(record):
            line["error"] = traceback
        return visible_json(json.dumps(line, ensure_ascii=False))


class TextLines(logging.Formatter):
    """`TIME LEVEL LOGGER [RUN STEP #ATTEMPT] MESSAGE`, with secrets masked; a traceback follows below it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        head, place = _head(record), _place(record)
        words = [head["time"], head["level"].upper(), head["logger"]]
        if place:
            attempt = f"#{place['attempt']}" if place.get("attempt", 1) > 1 else ""
            where = " ".join(filter(None, [place["run_id"], place.get("step", ""), attempt]))
            words.append(f"[{visible_line(where)}]")
        return " ".join([*words, plain_text(record)])


class Messages(logging.Handler):
    """Writes what libraries and code of steps log to stderr, when no log is configured.

    `warning from httpx: …`, with secrets masked. A message of a library is written once in a process.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: set[tuple[str, str]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        text = plain_text(record)
        if "site-packages" in record.pathname:
            if (record.name, text) in self._said:
                return
            self._said.add((record.name, text))
        of = "" if record.name.partition(".")[0] == OWN else f" from {record.name}"
        sys.stderr.write(f"{record.levelname.lower()}{of}: {text}\n")
        sys.stderr.flush()


def catch_messages() -> None:
    """Log the warnings of this process, each once, and write log records until `configure` is called."""
    said: set[tuple[str, str]] = set()

    def warned(message: Warning | str, *_: object, **__: object) -> None:
        source, text = _warning_module(), str(message)
        if (source, text) not in said:
            said.add((source, text))
            logger(source).warning("%s", text)

    warnings.showwarning = warned
    logger(_EVERYTHING).addHandler(Messages())


def _warning_module() -> str:
    """Return the package whose code has called `warnings.warn`."""
    frame = sys._getframe(2)
    while frame.f_globals.get("__name__") == warnings.__name__ and frame.f_back is not None:
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "python")).partition(".")[0]


def step_of(record: logging.LogRecord) -> CurrentStep | None:
    """Return the step that a log record is about; None outside of runs."""
    step: CurrentStep | None = getattr(record, "flujo_step", None) or CURRENT_STEP.get()
    return step


def plain_text(record: logging.LogRecord) -> str:
    """Return the message of a log record, with secrets masked; a traceback follows below it."""
    traceback = _traceback(record)
    return _message(record) + (f"\n{visible(traceback)}" if traceback else "")


class _Lines(logging.StreamHandler[TextIO]):
    """Writes log lines to the stream that `stream` returns at the time."""

    def __init__(self, stream: Callable[[], TextIO]) -> None:
        super().__init__(stream())
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        self.setStream(self._stream())
        super().emit(record)


def configure(style: LogFormat, levels: str, stream: Callable[[], TextIO]) -> None:
    """Write the log lines of this process to a stream.

    Args:
        style: the format.
        levels: `LEVEL` for Flujo's loggers, `NAME=LEVEL` for others, with commas between them.
        stream: returns it; stderr is another one while a display is redrawn in place.

    Raises:
        SettingsError: a level is unknown; nothing has changed.
    """
    chosen = {_EVERYTHING: "warning", OWN: "info", **_read(levels)}
    handler = _Lines(stream)
    handler.setFormatter(JsonLines() if style == "json" else TextLines())
    logger(_EVERYTHING).handlers = [handler]
    for name, level in chosen.items():
        logger(name).setLevel(level.upper())


def _read(levels: str) -> Mapping[str, str]:
    read: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in levels.split(","))):
        name, equals, level = part.rpartition("=")
        level = level.strip().lower()
        name = name.strip() if equals else OWN
        if level not in LEVELS or not _NAME.fullmatch(name):
            raise SettingsError(
                f"FLUJO_LOG has {GATE.text(part)!r}, which is not `LEVEL` or `LOGGER=LEVEL`",
                hint=f"the levels are {', '.join(LEVELS)}; for instance FLUJO_LOG=info,flujo.engine=debug",
                variable="FLUJO_LOG",
            )
        read[name] = level
    return read


def _head(record: logging.LogRecord) -> dict[str, str]:
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return {
        "time": at.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
    }


def _message(record: logging.LogRecord) -> str:
    return visible_line(GATE.text(record.getMessage()))


def _place(record: logging.LogRecord) -> dict[str, Any]:
    step = step_of(record)
    if step is None:
        return {}
    place: dict[str, Any] = {"run_id": step.run_id, "trace_id": shown_trace_id(step.run_id)}
    return place | {"step": shown(step.path), "attempt": step.attempt} if step.path else place


def _traceback(record: logging.LogRecord) -> str:
    formatter = logging.Formatter()
    text = record.exc_text or (formatter.formatException(record.exc_info) if record.exc_info else "")
    return GATE.text("\n".join(filter(None, [text, record.stack_info])))
