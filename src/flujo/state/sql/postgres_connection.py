"""Connections to Postgres on which neither side waits indefinitely for the other.

A silent server: a wire may stay open and carry nothing more (a proxy that hangs, a server that is stopped).
Its packets are acknowledged, so neither `tcp_user_timeout` nor a timeout of the server's ends the wait.
A frozen process: the server ends a transaction that stands idle, unless a pipeline has kept it from counting.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import generators

from flujo.state.sql.postgres_transactions import Guarded
from flujo.state.sql.retry import ANSWER_S

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from psycopg.abc import PQGen

T = TypeVar("T")

_LOOK_S = 0.1


class Pipeline(psycopg.Pipeline):
    """A pipeline whose last message is its Sync.

    psycopg's own ends with a request to flush, which stops the server's clock for
    `idle_in_transaction_session_timeout`: a process that is frozen right then would keep its locks.
    """

    def _exit_gen(self) -> Iterator[Any]:  # type: ignore[override]  # psycopg's type for this is private
        try:
            self._enqueue_sync()
            yield from self._communicate_gen()
            yield from generators.send(self.pgconn)  # what did not fit into the socket at once
        finally:
            yield from self._fetch_gen(flush=False)


class Connection(psycopg.Connection[Any]):
    """A connection that closes itself after `answer_s` without a byte from the server."""

    answer_s: float | None = ANSWER_S
    """None waits indefinitely."""
    _kept_cursor: psycopg.Cursor[Any] | None = None

    @property
    def kept_cursor(self) -> psycopg.Cursor[Any]:
        """One cursor for results that are read at once: each new one copies the adapters of psycopg."""
        if self._kept_cursor is None:
            self._kept_cursor = self.cursor()
        return self._kept_cursor

    def wait(self, gen: PQGen[T], interval: float = _LOOK_S, timeout: float | None = None) -> T:
        """Return the result of a conversation with the server; see psycopg.

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

    def guarded(self, timeout_s: float) -> Guarded:
        """Return the transaction of this connection for a tool, which cannot end it."""
        return Guarded(self, timeout_s)

    @contextmanager
    def pipelined(self) -> Iterator[None]:
        """Send statements without waiting for the answer to each: one round trip where many would be."""
        self._pipeline = Pipeline(self)  # which psycopg enters instead of making one of its own
        with self.pipeline():
            yield
