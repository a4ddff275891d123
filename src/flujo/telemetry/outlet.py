"""The SDK of OpenTelemetry: its tracer and its meter, of the program or of Flujo's own making.

Imported in the thread of the exporter, and only when the extra `otel` is installed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import Decision

from flujo.telemetry import names
from flujo.telemetry.instruments import Instruments
from flujo.telemetry.otlp_json import nanoseconds
from flujo.telemetry.sdk_logs import limit_sdk_logs

if TYPE_CHECKING:
    from opentelemetry.util.types import Attributes

    from flujo.telemetry.options import TelemetryOptions
    from flujo.telemetry.span import Span

_KINDS = {"internal": trace.SpanKind.INTERNAL, "client": trace.SpanKind.CLIENT}
_SAMPLED = trace.TraceFlags(trace.TraceFlags.SAMPLED)


class _DerivedIds(IdGenerator):
    """Gives the SDK the ids of the span that is sent next; used by one thread."""

    trace_id = 0
    span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class Outlet:
    """A tracer and a meter.

    A program that has set its own providers gets the spans and metrics there, unless `endpoint` is set.

    Args:
        options: what is sent, and where to.
        version: the version of Flujo.
    """

    def __init__(self, options: TelemetryOptions, version: str) -> None:
        self._ids = _DerivedIds()
        self._own: list[TracerProvider | MeterProvider] = []
        self._tracer = _with_ids(self._tracers(options), self._ids, version) if options.sends_traces else None
        meters = self._meters(options) if options.sends_metrics else metrics.NoOpMeterProvider()
        self.instruments = Instruments(meters.get_meter(names.SCOPE, version))

    def send(self, span: Span) -> None:
        """Give a span to the SDK, and count it in the metrics."""
        self.instruments.measure(span)
        if self._tracer is None or not self.samples(span.trace_id):
            return
        self._ids.trace_id, self._ids.span_id = span.trace_id, span.span_id
        started = self._tracer.start_span(
            span.name,
            _inside(span.trace_id, span.parent_id),
            _KINDS[span.kind],
            _attributes(span),
            [trace.Link(_context(*each)) for each in span.links],
            nanoseconds(span.started_at),
        )
        if span.error is not None:
            started.set_status(trace.Status(trace.StatusCode.ERROR, span.error))
        started.end(nanoseconds(span.ended_at))

    def samples(self, trace_id: int) -> bool:
        """Return whether a trace is sent: every process decides the same, because the id decides."""
        return self._tracer is not None and _is_sampled(self._tracer, trace_id)

    def flush(self, timeout_s: float) -> None:
        """Send what the SDK has in its queues."""
        for provider in self._own:
            provider.force_flush(round(timeout_s * 1000))

    def close(self) -> None:
        """Send the rest, and close the providers that are Flujo's own."""
        for provider in self._own:
            provider.shutdown()

    def _tracers(self, options: TelemetryOptions) -> TracerProvider:
        known = trace.get_tracer_provider()
        if isinstance(known, TracerProvider) and options.endpoint is None:
            return known
        provider = TracerProvider(resource=_resource(options), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(
            endpoint=_address(options, "traces"), headers=dict(options.headers) or None
        )
        provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=options.max_waiting))
        self._own.append(provider)
        limit_sdk_logs()
        return provider

    def _meters(self, options: TelemetryOptions) -> metrics.MeterProvider:
        known = metrics.get_meter_provider()
        if isinstance(known, MeterProvider) and options.endpoint is None:
            return known
        exporter = OTLPMetricExporter(
            endpoint=_address(options, "metrics"), headers=dict(options.headers) or None
        )
        reader = PeriodicExportingMetricReader(exporter)
        provider = MeterProvider([reader], resource=_resource(options), shutdown_on_exit=False)
        self._own.append(provider)
        limit_sdk_logs()
        return provider


def _address(options: TelemetryOptions, signal: str) -> str | None:
    """Return the address of a signal; None for that of the `OTEL_` variables."""
    return None if options.endpoint is None else f"{options.endpoint.rstrip('/')}/v1/{signal}"


@lru_cache(maxsize=4)
def _resource(options: TelemetryOptions) -> Resource:
    return Resource.create({names.SERVICE_NAME: options.service_name} if options.service_name else None)


def _with_ids(provider: TracerProvider, ids: IdGenerator, version: str) -> Tracer | None:
    """Return Flujo's tracer of a provider with the given ids; None when the SDK is disabled."""
    tracer = provider.get_tracer(names.SCOPE, version)
    if not isinstance(tracer, Tracer):
        return None
    tracer.id_generator = ids  # only this tracer: those of the program keep theirs
    return tracer


@lru_cache(maxsize=4096)
def _is_sampled(tracer: Tracer, trace_id: int) -> bool:
    decision = tracer.sampler.should_sample(None, trace_id, names.INVOKE_WORKFLOW).decision
    return decision is Decision.RECORD_AND_SAMPLE


def _inside(trace_id: int, parent_id: int | None) -> Context:
    if parent_id is None:
        return Context()
    return trace.set_span_in_context(trace.NonRecordingSpan(_context(trace_id, parent_id)), Context())


def _context(trace_id: int, span_id: int) -> trace.SpanContext:
    return trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=_SAMPLED)


def _attributes(span: Span) -> Attributes:
    return dict(span.attributes)
