"""What is sent, and where to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryOptions:
    """The settings of telemetry. Two equal ones share a connection in a process."""

    variables: tuple[tuple[str, str], ...] = ()
    """The variables of OpenTelemetry, which the SDK reads itself."""
    endpoint: str | None = None
    """The address of a collector, without the path of a signal; None for that of the `OTEL_` variables."""
    headers: tuple[tuple[str, str], ...] = ()
    service_name: str | None = None
    """None for `OTEL_SERVICE_NAME`, or that of `OTEL_RESOURCE_ATTRIBUTES`."""
    sends_content: bool = False
    """Whether prompts, answers, inputs and outputs are sent."""
    sends_traces: bool = True
    sends_metrics: bool = True
    max_waiting: int = 16_384
    """How many records wait at most; more are dropped."""
