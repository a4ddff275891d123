"""Loggers whose records pass the gate."""

from __future__ import annotations

import logging

from flujo.governance.sink import GATE


def logger(name: str) -> logging.Logger:
    """Return the logger called `name`; handlers see its messages and tracebacks without secrets."""
    found = logging.getLogger(name)
    if _REDACTION not in found.filters:
        found.addFilter(_REDACTION)
    return found


class _Redaction(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = GATE.text(record.getMessage()), None
        if record.exc_info:
            # A formatter takes `exc_text` where there is one, and does not write the traceback again.
            record.exc_text = GATE.text(logging.Formatter().formatException(record.exc_info))
        return True


_REDACTION = _Redaction()
