"""A collector that the environment names."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from flujo.services.telemetry import telemetry_of
from flujo.settings import Settings
from telemetry.collector import Collector, collecting

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector to which everything is sent until the end of the test."""
    with collecting() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        with ending():
            yield running


@contextmanager
def ending() -> Iterator[None]:
    """End the telemetry that the environment names, after the block, also when its collector does not answer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")  # seconds in which a refused request is sent again
        try:
            yield
        finally:
            end_telemetry(Settings())


def end_telemetry(settings: Settings) -> None:
    """Send what waits to the collector of a project, and end the threads that send."""
    if (found := telemetry_of(settings)) is not None:
        found.exporter.close(20)


def flush() -> None:
    """Send what waits to the collector that the environment names."""
    found = telemetry_of(Settings())
    assert found is not None
    assert found.exporter.flush(20)
