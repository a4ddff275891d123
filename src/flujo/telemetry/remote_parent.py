"""Makes a span of another process the parent of the spans that the current code creates."""

from __future__ import annotations

from opentelemetry import context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()


def make_parent(traceparent: str) -> None:
    """Set the current context to a span, for the rest of the current task.

    Args:
        traceparent: the span, in the form of W3C Trace Context. One that cannot be read changes nothing.
    """
    context.attach(_PROPAGATOR.extract({"traceparent": traceparent}))
