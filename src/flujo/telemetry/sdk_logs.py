"""Limits the log lines of the SDK: a collector that is away for a day must not fill the log."""

from __future__ import annotations

import logging
import time

from flujo.governance.logs import logger

EVERY_S = 60.0
"""How often each of its loggers writes at most."""

_OF_EXPORTERS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.sdk.metrics._internal.export",
)


class _Seldom(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._next_at = 0.0

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - the base class requires it
        now = time.monotonic()
        if now < self._next_at:
            return False
        self._next_at = now + EVERY_S
        return True


def limit_sdk_logs() -> None:
    """Let each logger of the SDK's exporters write once a minute, with secrets masked. Idempotent."""
    for name in _OF_EXPORTERS:
        found = logger(name)
        if not any(isinstance(each, _Seldom) for each in found.filters):
            found.addFilter(_Seldom())
