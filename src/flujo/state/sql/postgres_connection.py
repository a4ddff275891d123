"""Connections to Postgres that do not wait for ever: a server that is silent for too long is taken for gone.

A wire may stay open and carry nothing more: a proxy that hangs, a server that is stopped. The kernel is
content with it, since its packets are acknowledged, so only who waits for the answer can tell.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

from flujo.state.sql.retry import ANSWER_S

if TYPE_CHECKING:
    from collections.abc import Generator

    from psycopg.abc import PQGen

T = TypeVar("T")

_LOOK_S = 0.1


class Connection(psycopg.Connection[Any]):
    """A connection that closes itself when it has waited for `answer_s` and heard nothing."""

    answer_s: float | None = ANSWER_S
    """None waits for ever."""

    def wait(self, gen: PQGen[T], interval: float = _LOOK_S, timeout: float | None = None) -> T:
        """Return what a conversation with the server comes to; see psycopg.

        Raises:
            OperationalError: the server fell silent; the connection is closed.
        """
        if self.answer_s is not None:
            gen = self._impatient(gen, self.answer_s)
        return super().wait(gen, interval, timeout)

    def _impatient(self, gen: PQGen[T], answer_s: float) -> Generator[Any, Any, T]:
        # psycopg's own timeout is for the whole conversation; a long answer may take longer than any silence.
        try:
            wants = next(gen)
            heard = time.monotonic()
            while True:
                ready = yield wants
                if ready:
                    heard = time.monotonic()
                elif time.monotonic() - heard > answer_s:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"nothing was heard from the server for {answer_s:g} s")
                wants = gen.send(ready)
        except StopIteration as end:
            result: T = end.value
            return result
