"""Retries of database work: exponential backoff with a deadline."""

from __future__ import annotations

import time
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa

    from flujo.exceptions import StateBackendUnavailable

P = ParamSpec("P")
T = TypeVar("T")

RETRY_S = 60.0
"""How long a database may be away before waiting requests fail."""

OPENING_RETRY_S = 2.0
"""The same for a database that has never answered, because its name may be wrong."""

ANSWER_S = 30.0
"""How long a server may be silent: as long as a network may drop packets.

Less than `RETRY_S`, so that there is another try, which also finds the result of a commit."""

_FIRST_DELAY_S, _LONGEST_DELAY_S = 0.05, 5.0


class Backoff:
    """The delays between the tries of one piece of work.

    Args:
        limit_s: how long after the first try the last one may begin.
    """

    def __init__(self, limit_s: float) -> None:
        self._deadline = time.monotonic() + limit_s
        self._delay = _FIRST_DELAY_S

    def shorten(self, limit_s: float) -> None:
        """Begin no try later than `limit_s` from now."""
        self._deadline = min(self._deadline, time.monotonic() + limit_s)

    def next_delay(self, error: StateBackendUnavailable) -> float | None:
        """Return how long to wait before the next try; None when a retry cannot help or would be too late."""
        delay, self._delay = self._delay, min(self._delay * 2, _LONGEST_DELAY_S)
        if not error.retryable or time.monotonic() + delay > self._deadline:
            return None
        return delay


def without_timeout(
    work: Callable[Concatenate[sa.Connection, P], T],
) -> Callable[Concatenate[sa.Connection, P], T]:
    """Let `work(connection, …)` wait for as long as the server needs: it looks at whole tables."""

    @wraps(work)
    def waiting(connection: sa.Connection, /, *arguments: P.args, **named: P.kwargs) -> T:
        driver: Any = connection.connection.dbapi_connection
        before = getattr(driver, "answer_s", None)
        if before is None:
            return work(connection, *arguments, **named)
        driver.answer_s = None
        try:
            return work(connection, *arguments, **named)
        finally:
            driver.answer_s = before

    return waiting
