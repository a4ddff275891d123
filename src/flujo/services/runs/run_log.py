"""Writes what happens in a run to the log, when the logger `flujo.runs` is enabled for it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from flujo.domain.current_step import CurrentStep
from flujo.domain.journal import EntryKind, EntryStatus
from flujo.domain.paths import ROOT
from flujo.governance.events import read_error
from flujo.governance.log_lines import about
from flujo.governance.logs import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flujo.domain.journal import Entry, ErrorInfo, RunId
    from flujo.domain.model_requests import ModelRequest
    from flujo.domain.ports import Observer
    from flujo.domain.remote_work import RemoteWork
    from flujo.domain.run import RunRecord, RunStatus
    from flujo.domain.usage import Usage

log = logger("flujo.runs")


class RunLog:
    """The port `Observer`: a line for the start and the end of an execution, each step and each failure.

    Args:
        record: the claimed run.
        others: other observers of the execution.
    """

    def __init__(self, record: RunRecord, *others: Observer) -> None:
        self._run_id: RunId = record.run_id
        self._others = others
        began = "started" if record.claims == 1 else "resumed"
        log.info("%s %s", record.pipeline, began, extra=self._about_run)

    @property
    def _about_run(self) -> dict[str, CurrentStep]:
        return about(CurrentStep(self._run_id, ROOT))

    def learned(self, entries: Sequence[Entry]) -> None:
        """Pass on the entries of earlier executions; they were logged then."""
        for other in self._others:
            other.learned(entries)

    def recorded(self, entry: Entry) -> None:
        """Log the end or a failure of a step; decisions are details."""
        step = about(CurrentStep(self._run_id, entry.path, entry.attempt))
        level = logging.DEBUG if entry.kind is EntryKind.DECISION else logging.INFO
        if entry.status is EntryStatus.FAILED and entry.error is not None:
            error = read_error(entry.error)
            log.warning("failed: %s [%s]", error.message, error.code, extra=step)
        elif log.isEnabledFor(level):
            seconds = max(0.0, entry.ended_at - entry.started_at)
            log.log(
                level, "%s %s in %.3f s", entry.fingerprint or entry.kind, entry.status, seconds, extra=step
            )
        for other in self._others:
            other.recorded(entry)

    def requested(self, step: CurrentStep, number: int, request: ModelRequest) -> None:
        """Log a request to a model."""
        seconds, used = request.ended_at - request.started_at, request.usage
        log.info(
            "request to %s:%s took %.3f s, %d tokens in, %d out",
            *(request.provider, request.model, seconds, used.input_tokens, used.output_tokens),
            extra=about(step),
        )
        for other in self._others:
            other.requested(step, number, request)

    def traceparent(self, step: CurrentStep, number: int) -> str | None:
        """Return that of the other observer."""
        found = (other.traceparent(step, number) for other in self._others)
        return next(filter(None, found), None)

    def worked(self, step: CurrentStep, work: RemoteWork) -> None:
        """Log where a unit was executed."""
        log.info(
            "executed on %s, host %s, process %d, in %.3f s",
            *(work.executor, work.host, work.pid, work.seconds),
            extra=about(step),
        )
        for other in self._others:
            other.worked(step, work)

    def enter(self, step: CurrentStep) -> Callable[[], None]:
        """Make the step known to other observers."""
        left = [other.enter(step) for other in self._others]

        def leave() -> None:
            for each in left:
                each()

        return leave

    def ended(self, status: RunStatus, error: ErrorInfo | None, usage: Usage) -> None:
        """Log the end of the execution."""
        if error is None:
            log.info("%s", status, extra=self._about_run)
        else:
            log.warning("%s: %s [%s]", status, error.message, error.code, extra=self._about_run)
        for other in self._others:
            other.ended(status, error, usage)


def observer_of(record: RunRecord, telemetry: Observer | None) -> Observer | None:
    """Return what observes an execution: the log, telemetry, both, or None."""
    if not log.isEnabledFor(logging.INFO):
        return telemetry
    return RunLog(record, *(() if telemetry is None else (telemetry,)))
