"""Loggers whose lines have no secrets and no control characters."""

from __future__ import annotations

import logging

from flujo.governance.screen import visible, visible_line
from flujo.governance.sink import GATE


def logger(name: str) -> logging.Logger:
    """Return the logger `name`, whose messages and tracebacks are safe to show."""
    found = logging.getLogger(name)
    if _REDACTION not in found.filters:
        found.addFilter(_REDACTION)
    return found


def is_alone(handler: logging.Handler, name: str) -> bool:
    """Return whether no other handler gets the records of the logger `name`."""
    each: logging.Logger | None = logging.getLogger(name)
    while each is not None:
        if any(other is not handler for other in each.handlers):
            return False
        each = each.parent if each.propagate else None
    return True


class _Redaction(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = visible_line(GATE.text(record.getMessage())), None
        if record.exc_info:
            # A formatter uses `exc_text` when it is set, instead of formatting the traceback again.
            record.exc_text = visible(GATE.text(logging.Formatter().formatException(record.exc_info)))
            record.exc_info = None  # other formatters would format it again, with its secrets
        if record.stack_info:
            record.stack_info = visible(GATE.text(record.stack_info))
        return True


_REDACTION = _Redaction()
