"""Pipelines to Postgres after which the server minds how long a transaction stands idle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import generators

if TYPE_CHECKING:
    from collections.abc import Iterator


class Pipeline(psycopg.Pipeline):
    """A pipeline whose last word is its Sync.

    psycopg's own asks for a flush after it. To the server that is a message that begins something: it stops
    the clock of `idle_in_transaction_session_timeout`, and a process that is frozen now would keep its locks.
    """

    def _exit_gen(self) -> Iterator[Any]:  # type: ignore[override]  # psycopg's type for this is private
        try:
            self._enqueue_sync()
            yield from self._communicate_gen()
            yield from generators.send(self.pgconn)  # what did not fit into the socket at once
        finally:
            yield from self._fetch_gen(flush=False)
