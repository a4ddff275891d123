"""How long to try again when a database is away: soon at first, then seldom, and not for ever."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flujo.exceptions import StateBackendUnavailable

RETRY_S = 60.0
"""How long a database may be away before those who wait are told."""

OPENING_RETRY_S = 2.0
"""How long, when it was never there: somebody may have mistyped its name."""

_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.05, 5.0


class Patience:
    """The delays between the tries of one piece of work.

    Args:
        limit_s: how long after the first try the last one may begin.
    """

    def __init__(self, limit_s: float) -> None:
        self._deadline = time.monotonic() + limit_s
        self._delay = _FIRST_DELAY_S

    def shorten(self, limit_s: float) -> None:
        """Be done `limit_s` from now at the latest."""
        self._deadline = min(self._deadline, time.monotonic() + limit_s)

    def next_delay(self, error: StateBackendUnavailable) -> float | None:
        """Return how long to wait before the next try; None when another one would be in vain or too late."""
        delay, self._delay = self._delay, min(self._delay * 2, _LONGEST_DELAY_S)
        if not getattr(error, "retryable", True) or time.monotonic() + delay > self._deadline:
            return None
        return delay
