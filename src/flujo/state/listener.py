"""Hears from other processes, on Postgres, that a run has come into a queue or that a wait is settled."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from flujo.domain.forks import renew_in_children

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.journal import RunId
    from flujo.state.sql.database import Database

_CLOSING_S = 2.0


class Listener:
    """A thread with a connection of its own, which begins when something of this process waits.

    Args:
        database: on SQLite there is nothing to hear.
        ring: called when a run has come into a queue.
        tell: called with the owner that has settled a wait, and its run.
    """

    def __init__(
        self, database: Database, ring: Callable[[], None], tell: Callable[[str, RunId], None]
    ) -> None:
        self._database = database
        self._ring = ring
        self._tell = tell
        self._renew()
        renew_in_children(self, type(self)._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Listen from now on. Idempotent."""
        with self._lock:
            if self._database.is_postgres and self._thread is None and not self._closing.is_set():
                self._thread = threading.Thread(target=self._listen, name="flujo-listener", daemon=True)
                self._thread.start()

    def close(self) -> None:
        """End the thread; blocks for a moment. Idempotent."""
        self._closing.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_CLOSING_S)  # it may be waiting for a server that is away

    def _listen(self) -> None:
        from flujo.state.sql import postgres_listener

        postgres_listener.listen(self._database, self._ring, self._tell, self._closing)
