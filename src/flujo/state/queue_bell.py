"""Wakes workers when a run has come into a queue: those of this process, and on Postgres those of others.

A call is a hint. A worker also looks by itself every second or so: a pooler in transaction mode passes no
notifications on, and a run that rests or is delayed becomes available without any event.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from flujo.domain.forks import renew_in_children

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.state.sql.database import Database


_CLOSING_S = 2.0


class QueueBell:
    """Calls the workers of this process; listens to other processes while a worker is called."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._begin()
        renew_in_children(self, type(self)._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: dict[object, tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = {}
        self._listening = False
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` in this event loop from now on; return what ends that."""
        key = object()
        with self._lock:
            self._callbacks[key] = asyncio.get_running_loop(), callback
            if self._database.is_postgres and self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="flujo-listener", daemon=True)
                self._thread.start()
        return lambda: self._remove(key)

    def _remove(self, key: object) -> None:
        with self._lock:
            self._callbacks.pop(key, None)

    def ring(self) -> None:
        """Call each worker in its own event loop."""
        with self._lock:
            called = list(self._callbacks.values())
        for loop, callback in called:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(callback)

    def close(self) -> None:
        """End the listener; blocks for a moment. Idempotent."""
        self._closing.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_CLOSING_S)  # it may be waiting for a server that is away

    def _listen(self) -> None:
        from flujo.state.sql import postgres_listener

        postgres_listener.listen(self._database, self.ring, self._closing)
