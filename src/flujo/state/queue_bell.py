"""Wakes the workers of this process when a run has come into a queue.

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


class QueueBell:
    """Calls the workers of this process."""

    def __init__(self) -> None:
        self._begin()
        renew_in_children(self, type(self)._begin)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: dict[object, tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = {}

    def add(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` in this event loop from now on; return what ends that."""
        key = object()
        with self._lock:
            self._callbacks[key] = asyncio.get_running_loop(), callback
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
