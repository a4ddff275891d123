"""The telemetry of a process: one per settings, however many runners use it."""

from __future__ import annotations

import sys
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from flujo.telemetry.exporter import Exporter
from flujo.telemetry.observer import RunObserver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.ports import Clock
    from flujo.domain.queues import QueueState
    from flujo.domain.run import RunRecord
    from flujo.telemetry.options import TelemetryOptions
    from flujo.telemetry.outlet import Outlet


class Telemetry:
    """Sends what happens in runs.

    Args:
        options: what is sent, and where to.
        exporter: sends it.
    """

    def __init__(self, options: TelemetryOptions, exporter: Exporter) -> None:
        self.options = options
        self.exporter = exporter

    def observe(self, record: RunRecord, clock: Clock) -> RunObserver:
        """Return what observes the execution of a claimed run."""
        return RunObserver(record, self.exporter, clock, sends_content=self.options.sends_content)

    def report_queues(self, states: Sequence[QueueState]) -> None:
        """Send what waits in the queues now."""
        self.exporter.put(lambda outlet: outlet.instruments.report_queues(states))


@lru_cache(maxsize=16)
def telemetry(options: TelemetryOptions) -> Telemetry:
    """Return the telemetry of this process for these options; nothing is opened before the first run."""

    def connect() -> Outlet:
        from flujo.telemetry.outlet import Outlet

        return Outlet(options, version("flujo"))

    return Telemetry(options, Exporter(connect, max_waiting=options.max_waiting))


def is_installed() -> bool:
    """Return whether the extra `otel` is installed."""
    return all(_is_there(name) for name in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"))


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # of a package around it
        return False


def has_provider() -> bool:
    """Return whether the program has set a tracer provider of the SDK; imports nothing."""
    sdk: Any = sys.modules.get("opentelemetry.sdk.trace")
    return sdk is not None and isinstance(trace.get_tracer_provider(), sdk.TracerProvider)
