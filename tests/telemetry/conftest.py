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
    """End the thread of the telemetry that the environment names, after the block."""
    try:
        yield
    finally:
        if (found := telemetry_of(Settings())) is not None:
            found.exporter.close(0.2)


def flush() -> None:
    """Send what waits to the collector that the environment names."""
    found = telemetry_of(Settings())
    assert found is not None
    assert found.exporter.flush(20)
