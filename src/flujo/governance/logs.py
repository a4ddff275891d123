"""Loggers that mask secrets."""

from __future__ import annotations

import logging

from flujo.governance.sink import GATE


def logger(name: str) -> logging.Logger:
    """Return the logger `name`, whose messages and tracebacks have secrets masked."""
    found = logging.getLogger(name)
    if _REDACTION not in found.filters:
        found.addFilter(_REDACTION)
    return found


class _Redaction(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = GATE.text(record.getMessage()), None
        if record.exc_info:
            # A formatter uses `exc_text` when it is set, instead of formatting the traceback again.
            record.exc_text = GATE.text(logging.Formatter().formatException(record.exc_info))
        return True


_REDACTION = _Redaction()
