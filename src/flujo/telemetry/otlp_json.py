"""Spans as OTLP in JSON, which any collector accepts at `/v1/traces`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.telemetry import names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.telemetry.span import Link, Span, Value

_KINDS = {"internal": 1, "client": 3}
_ERROR = 2


def otlp_json(spans: Sequence[Span], *, service_name: str, version: str) -> dict[str, Any]:
    """Return a request to export spans, in the JSON of OTLP: hexadecimal ids, times in nanoseconds."""
    scope = {"name": names.SCOPE, "version": version}
    resource = {"attributes": _attributes({names.SERVICE_NAME: service_name})}
    scoped = [{"scope": scope, "spans": [_span(each) for each in spans]}]
    return {"resourceSpans": [{"resource": resource, "scopeSpans": scoped}]}


def _span(span: Span) -> dict[str, Any]:
    written = {
        "traceId": f"{span.trace_id:032x}",
        "spanId": f"{span.span_id:016x}",
        "parentSpanId": "" if span.parent_id is None else f"{span.parent_id:016x}",
        "name": span.name,
        "kind": _KINDS[span.kind],
        "startTimeUnixNano": str(nanoseconds(span.started_at)),
        "endTimeUnixNano": str(nanoseconds(span.ended_at)),
        "attributes": _attributes(span.attributes),
        "links": [_link(each) for each in span.links],
    }
    if span.error is not None:
        written["status"] = {"code": _ERROR, "message": span.error}
    return written


def _link(link: Link) -> dict[str, str]:
    return {"traceId": f"{link.trace_id:032x}", "spanId": f"{link.span_id:016x}"}


def _attributes(attributes: Mapping[str, Value]) -> list[dict[str, Any]]:
    return [{"key": name, "value": _value(value)} for name, value in attributes.items()]


def _value(value: Value) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
        case _:
            return {"arrayValue": {"values": [_value(each) for each in value]}}


def nanoseconds(at: float) -> int:
    """Return a time in nanoseconds since the epoch, exact to the microsecond that a float has."""
    return round(at * 1_000_000) * 1_000
