"""Redacts events for hooks and streams."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flujo.domain import canonical
from flujo.domain.commands import filled
from flujo.domain.events import Chunk, StepEnded, StepRetried
from flujo.domain.journal import ErrorInfo
from flujo.domain.outcomes import Failure, Paused, Success
from flujo.domain.paths import StepPath, for_command_line
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from flujo.domain.events import Event


def redacted(event: Event) -> Event:
    """Return an event with secrets masked in its texts; an output is a value and stays unchanged."""
    match event:
        case Chunk(text=text) if (safe := GATE.text(text)) != text:
            return replace(event, text=safe)
        case StepRetried(error=error):
            return replace(event, error=redacted_error(error))
        case StepEnded(outcome=Failure(error=error) as failed):
            return replace(event, outcome=replace(failed, error=redacted_error(error)))
        case _:
            return event


def redacted_values(event: Event) -> Event:
    """Return an event with its outputs and questions masked too, for a hook that sends events elsewhere."""
    match event:
        case StepEnded(outcome=Success() as ended):
            masked = replace(ended, output=GATE.data(ended.output), facts=GATE.data(dict(ended.facts)))
            return replace(event, outcome=masked)
        case StepEnded(outcome=Paused() as paused):
            asked = tuple(replace(each, message=GATE.text(each.message)) for each in paused.pauses)
            return replace(event, outcome=replace(paused, pauses=asked))
        case _:
            return event


def read_error(data: bytes, run_id: str | None = None) -> ErrorInfo:
    """Return a stored error; a process that wrote it may have known fewer secrets than this one.

    With the id of its run, the commands of its hint name the run and the step.
    """
    error = redacted_error(ErrorInfo.from_json(canonical.decode(data)))
    return error if run_id is None else of_run(error, run_id)


def of_run(error: ErrorInfo, run_id: str) -> ErrorInfo:
    """Return an error whose hint has commands for this run: its id for `RUN`, the path for `STEP`."""
    if error.hint is None:
        return error
    step = for_command_line(StepPath(error.path))
    return replace(error, hint=filled(error.hint, RUN=run_id, STEP=step))


def redacted_error(error: ErrorInfo) -> ErrorInfo:
    """Return the error of an entry or event, with secrets masked in its message and hint."""
    frame = error.frame and replace(error.frame, source=GATE.text(error.frame.source))
    hint = error.hint and GATE.text(error.hint)
    return replace(error, message=GATE.text(error.message), hint=hint, frame=frame)
