"""The telemetry of a project: its settings, and the variables of OpenTelemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.exceptions import TelemetryUnavailable
from flujo.governance.logs import logger
from flujo.governance.sink import GATE
from flujo.settings import environment
from flujo.telemetry.options import TelemetryOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.settings import Settings
    from flujo.telemetry.telemetry import Telemetry

_ADDRESSES = (
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)
_HEADERS = (
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
)
_NAMES = ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES")

log = logger("flujo.telemetry")


def telemetry_of(settings: Settings) -> Telemetry | None:
    """Return the telemetry of a project; None when it sends nothing.

    Something is sent when `[telemetry] endpoint` or a variable of OpenTelemetry names a collector, or when
    the program has a tracer provider of its own.

    Raises:
        TelemetryUnavailable: flujo.toml names a collector, and the extra `otel` is not installed.
        SettingsError: a header needs a variable that is not set.
    """
    variables = environment()
    if not settings.telemetry.enabled or variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    from flujo.telemetry import telemetry  # loads OpenTelemetry's API, which takes a tenth of a short command

    is_named = any(variables.get(name) for name in _ADDRESSES)
    endpoint = None if is_named else settings.telemetry.endpoint
    if endpoint is None and not is_named and not telemetry.has_provider():
        return None
    if not telemetry.is_installed():
        if endpoint is not None:
            place = settings.origin("telemetry.endpoint")
            raise TelemetryUnavailable(f"{place} names a collector, and the extra `otel` is not installed")
        log.warning("no telemetry is sent: `pip install 'flujo[otel]'`, or unset OTEL_EXPORTER_OTLP_ENDPOINT")
        return None
    return telemetry.telemetry(_options(settings, endpoint, variables))


def _options(settings: Settings, endpoint: str | None, variables: Mapping[str, str]) -> TelemetryOptions:
    for name in _HEADERS:
        values = [pair.partition("=")[2] for pair in variables.get(name, "").split(",")]
        GATE.know([part for value in values for part in (value, value.rpartition(" ")[2])], of=name)
    is_own = not any(variables.get(name) for name in _NAMES)
    waiting = variables.get("OTEL_BSP_MAX_QUEUE_SIZE", "")
    return TelemetryOptions(
        variables=tuple(sorted(each for each in variables.items() if each[0].startswith("OTEL_"))),
        endpoint=endpoint,
        headers=() if endpoint is None else tuple(settings.telemetry_headers().items()),
        service_name=settings.telemetry.service_name if is_own else None,
        sends_content=settings.telemetry.content,
        sends_traces=variables.get("OTEL_TRACES_EXPORTER") != "none",
        sends_metrics=variables.get("OTEL_METRICS_EXPORTER") != "none",
        max_waiting=int(waiting) if waiting.isdigit() and int(waiting) else TelemetryOptions().max_waiting,
    )
