"""Wakes what waits in this process for a run whose wait is settled, without a look at the database."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from flujo.domain.forks import renew_in_children

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flujo.domain.journal import RunId

_MOST_OWNERS = 256
"""How many stores are remembered: a notification of a store comes soon after its commit."""

_by_database: WeakValueDictionary[str, Wakes] = WeakValueDictionary()


class Wakes:
    """The callbacks of one database, which all its stores in this process share."""

    def __init__(self) -> None:
        self._renew()
        renew_in_children(self, Wakes._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: dict[object, tuple[asyncio.AbstractEventLoop, Callable[[RunId], None]]] = {}
        self._owners: deque[str] = deque(maxlen=_MOST_OWNERS)

    def join(self, owner: str) -> None:
        """Add a store, which calls the callbacks for what it settles itself."""
        self._owners.append(owner)

    def has(self, owner: str) -> bool:
        """Return whether a store shares these callbacks, or did so before it was closed."""
        return owner in self._owners

    def on_settled(self, callback: Callable[[RunId], None]) -> Callable[[], None]:
        """Call `callback` in this loop for each run with a settled wait; return what ends it."""
        key = object()
        with self._lock:
            self._callbacks[key] = asyncio.get_running_loop(), callback

        def end() -> None:
            with self._lock:
                self._callbacks.pop(key, None)

        return end

    def tell(self, run_ids: Iterable[RunId]) -> None:
        """Call the callbacks for these runs."""
        with self._lock:
            told = list(self._callbacks.values())
        for run_id in dict.fromkeys(run_ids):
            for loop, callback in told:
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(callback, run_id)


def wakes_of(database: str) -> Wakes:
    """Return the callbacks of a database, which is named by its URI and schema."""
    return _by_database.setdefault(database, Wakes())
