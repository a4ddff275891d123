"""The queue between runs and a collector is bounded, and its errors stay in its thread."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest

from flujo.telemetry.exporter import Exporter

if TYPE_CHECKING:
    from flujo.telemetry.outlet import Outlet


class Quiet:
    """Stands for the SDK."""

    def __init__(self) -> None:
        self.is_closed = False

    def flush(self, _: float) -> None:
        pass

    def close(self) -> None:
        self.is_closed = True


def opened(outlet: Any, *, after: threading.Event | None = None, max_waiting: int = 100) -> Exporter:
    def connect() -> Outlet:
        if after is not None:
            after.wait(60)
        if isinstance(outlet, Exception):
            raise outlet
        return cast("Outlet", outlet)

    return Exporter(connect, max_waiting=max_waiting)


def test_what_does_not_fit_into_the_queue_is_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    go, done = threading.Event(), list[int]()
    exporter = opened(Quiet(), after=go, max_waiting=3)
    for number in range(10):
        exporter.put(lambda _, number=number: done.append(number))  # type: ignore[misc]  # a default in a lambda
    assert exporter.dropped == 7
    go.set()
    assert exporter.flush(20)
    exporter.close()
    assert done == [0, 1, 2]
    assert "7 records did not fit" in caplog.text


def test_an_error_of_the_sdk_ends_neither_the_thread_nor_the_program(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outlet, done = Quiet(), list[int]()

    def fail(_: Outlet) -> None:
        raise RuntimeError("a processor of somebody")

    exporter = opened(outlet)
    exporter.put(fail)
    exporter.put(fail)
    exporter.put(lambda _: done.append(1))
    assert exporter.flush(20)
    exporter.close()
    assert done == [1]
    assert outlet.is_closed
    assert caplog.text.count("a processor of somebody") == 1, "once a minute"


def test_an_sdk_that_cannot_be_opened_turns_telemetry_off(caplog: pytest.LogCaptureFixture) -> None:
    exporter = opened(ValueError("OTEL_TRACES_SAMPLER"))
    exporter.put(lambda _: None)
    exporter.close(20)
    exporter.put(lambda _: None)
    assert "telemetry is off: ValueError: OTEL_TRACES_SAMPLER" in caplog.text
    assert exporter.dropped == 0


def test_closing_does_not_wait_longer_than_its_bound() -> None:
    stuck = threading.Event()
    exporter = opened(Quiet(), after=stuck)
    exporter.put(lambda _: None)
    exporter.close(0.01, 0.01)
    stuck.set()


@pytest.fixture(autouse=True)
def _warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
