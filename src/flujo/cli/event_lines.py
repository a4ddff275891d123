"""Progress of a run on stdout as JSON, one object a line, for `flujo run --events`."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Self

from flujo.cli.progress import outcome_state
from flujo.domain.events import (
    Chunk,
    Event,
    ItemsKept,
    RunEnded,
    RunStarted,
    StepEnded,
    StepRetried,
    StepStarted,
)
from flujo.domain.outcomes import Aborted, Failure, Paused, Success
from flujo.governance.log_lines import plain_text, step_of
from flujo.governance.logs import logger
from flujo.services.inspection.views import pause_data, usage_data

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.cli.terminal import Terminal
    from flujo.domain.run import RunStatus

_ENDS = {
    "done": "completed",
    "kept": "completed",
    "skipped": "skipped",
    "failed": "failed",
    "waiting": "paused",
    "stopped": "stopped",
    "launch": "launched",
}
"""How a step has ended, as its event."""


class EventLines:
    """One JSON object for each event. Each has `event` and `at`; docs/how-to/follow-a-run.md has the others.

    Args:
        terminal: where the lines go.
    """

    def __init__(self, terminal: Terminal) -> None:
        self.run_id = ""
        self.status: RunStatus | None = None
        self._terminal = terminal
        self._logs = _Logs(self)

    async def __call__(self, event: Event) -> None:
        """Write the lines of an event."""
        match event:
            case RunStarted():
                self.run_id, self.status = event.run_id, None
            case RunEnded():
                self.status = event.status
            case _:
                pass
        for data in _lines(event):
            self.tell(data)

    def tell(self, data: dict[str, Any], at: float | None = None) -> None:
        """Write a line with its time, in seconds since the epoch."""
        name = data.pop("event")
        self._terminal.json_line({"event": name, "at": time.time() if at is None else at, **data})

    def download(self, done: int, total: int) -> None:
        """Write how much of the model is downloaded, in bytes; called from any thread."""
        self.tell({"event": "download", "done": done, "total": total})

    def __enter__(self) -> Self:
        logger("root").addHandler(self._logs)
        return self

    def __exit__(self, *_: object) -> None:
        logger("root").removeHandler(self._logs)


class _Logs(logging.Handler):
    """Writes what code of steps logs as lines."""

    def __init__(self, lines: EventLines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record that was made in a step."""
        step = step_of(record)
        if step is None or not step.path:
            return
        about = {"path": step.path, "attempt": step.attempt}
        log = {"level": record.levelname.lower(), "logger": record.name, "text": plain_text(record)}
        self._lines.tell({"event": "logged", **about, **log}, record.created)


def _lines(event: Event) -> Iterator[dict[str, Any]]:
    match event:
        case RunStarted(run_id=run_id, pipeline=pipeline, resumed=resumed):
            yield {"event": "run", "run_id": run_id, "pipeline": pipeline, "resumed": resumed}
        case StepStarted(path=path, kind=kind, attempt=attempt, tool=tool):
            yield {"event": "started", "path": path, "kind": kind, "attempt": attempt, "tool": tool}
        case StepRetried(path=path, attempt=attempt, error=error, delay_s=delay_s):
            data = {"path": path, "attempt": attempt, "error": error.to_json(), "delay_s": delay_s}
            yield {"event": "retried", **data}
        case ItemsKept(path=path, count=count):
            yield {"event": "kept", "path": path, "count": count}
        case Chunk(path=path, attempt=attempt, text=text):
            yield {"event": "text", "path": path, "attempt": attempt, "text": text}
        case StepEnded():
            yield from _end(event)
        case RunEnded():
            pass  # the last line has the result


def _end(event: StepEnded) -> Iterator[dict[str, Any]]:
    """Yield the end of a step, and a line for each question or wait that it has opened itself."""
    outcome = event.outcome
    yield {
        "event": _ENDS[outcome_state(outcome, recorded=event.recorded)],
        "path": event.path,
        "kind": event.kind,
        "attempt": event.attempt,
        "seconds": round(event.seconds, 3),
        "usage": usage_data(event.usage),
        "recorded": event.recorded,
        "cached": event.cached,
        "output": outcome.output if isinstance(outcome, Success) else None,
        "error": outcome.error.to_json() if isinstance(outcome, Failure) else None,
        "reason": outcome.reason if isinstance(outcome, Aborted) else None,
    }
    for pause in outcome.pauses if isinstance(outcome, Paused) else ():
        if pause.pause_id == event.path:
            asks = "asked" if pause.kind.asks_human else "waiting"
            data: dict[str, Any] = {**pause_data(pause), "deadline_s": pause.deadline_s}
            del data["deadline_at"]  # the database sets it with the pause; the last line has it
            yield {"event": asks, "path": event.path, **data}
