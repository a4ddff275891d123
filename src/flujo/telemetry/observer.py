"""Observes one execution of a run, and leaves the rest to the thread of the exporter."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from opentelemetry import context, trace

from flujo.domain.trace_ids import span_id, trace_id
from flujo.telemetry.run_spans import RunSpans, unit_span_id
from flujo.telemetry.span import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from flujo.domain.current_step import CurrentStep
    from flujo.domain.journal import Entry, ErrorInfo
    from flujo.domain.model_requests import ModelRequest
    from flujo.domain.ports import Clock
    from flujo.domain.remote_work import RemoteWork
    from flujo.domain.run import RunRecord, RunStatus
    from flujo.domain.usage import Usage
    from flujo.telemetry.exporter import Exporter
    from flujo.telemetry.outlet import Outlet
    from flujo.telemetry.span import Span


class RunObserver:
    """The port `Observer`. The span that is current now is linked to that of the run.

    Args:
        record: the claimed run.
        exporter: sends what it observes.
        clock: the time of the end.
        sends_content: whether prompts, answers, inputs and outputs are sent.
    """

    def __init__(self, record: RunRecord, exporter: Exporter, clock: Clock, *, sends_content: bool) -> None:
        self._spans = RunSpans(record, sends_content=sends_content)
        self._exporter = exporter
        self._clock = clock
        caller = trace.get_current_span().get_span_context()
        self._links = [Link(caller.trace_id, caller.span_id)] if caller.is_valid else []

    def learned(self, entries: Sequence[Entry]) -> None:
        """Note entries whose spans were sent by an earlier execution."""
        self._exporter.put(partial(_learn, self._spans, entries))

    def recorded(self, entry: Entry) -> None:
        """Send the span of a new entry."""
        self._send(partial(self._spans.recorded, entry))

    def requested(self, step: CurrentStep, number: int, request: ModelRequest) -> None:
        """Send the span of a request."""
        self._send(partial(self._spans.requested, step, number, request))

    def traceparent(self, step: CurrentStep, number: int) -> str:
        """Return the context of the span of a unit, which is sent with it."""
        unit = unit_span_id(step, number)
        return f"00-{trace_id(step.run_id):032x}-{unit:016x}-{self._flags(step):02x}"

    def worked(self, step: CurrentStep, work: RemoteWork) -> None:
        """Send the span of a unit that a worker has executed."""
        self._send(partial(self._spans.worked, step, work))

    def enter(self, step: CurrentStep) -> Callable[[], None]:
        """Make the span of the step the parent of the spans that its code creates."""
        own = trace.SpanContext(
            trace_id(step.run_id),
            span_id(step.run_id, step.path),
            is_remote=False,
            trace_flags=self._flags(step),
        )
        token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(own)))
        return partial(context.detach, token)

    def _flags(self, step: CurrentStep) -> trace.TraceFlags:
        """Return whether the trace of the run is sampled."""
        outlet = self._exporter.outlet
        is_sampled = outlet is None or outlet.samples(trace_id(step.run_id))
        return trace.TraceFlags(trace.TraceFlags.SAMPLED if is_sampled else trace.TraceFlags.DEFAULT)

    def ended(self, status: RunStatus, error: ErrorInfo | None, usage: Usage) -> None:
        """Send the spans that are still open once the run has ended, and count the execution."""
        self._send(partial(self._spans.ended, status, error, usage, self._clock.now(), self._links))
        self._exporter.put(partial(_count, self._spans.record.pipeline, status))

    def _send(self, spans: Callable[[], Iterator[Span]]) -> None:
        self._exporter.put(partial(_send, spans))


def _send(spans: Callable[[], Iterator[Span]], outlet: Outlet) -> None:
    for span in spans():
        outlet.send(span)


def _learn(spans: RunSpans, entries: Sequence[Entry], _: Outlet) -> None:
    for entry in entries:
        spans.learned(entry)


def _count(pipeline: str, status: RunStatus, outlet: Outlet) -> None:
    outlet.instruments.count_run(pipeline, status)
