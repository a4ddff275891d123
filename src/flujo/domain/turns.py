"""A lock for tasks of several event loops; `asyncio.Lock` belongs to one."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

LOOK_S = 0.1
"""How often a waiting task looks whether the holder's loop still runs."""


class Turn:
    """Admits one task at a time, of whatever event loop.

    A task whose loop has stopped cannot leave, so it loses its turn.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: object | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    @asynccontextmanager
    async def taken(
        self, waiting_in: Callable[[Awaitable[Any]], Awaitable[Any]] | None = None
    ) -> AsyncIterator[None]:
        """Wait for the turn, and hold it.

        Args:
            waiting_in: awaits the wait on behalf of the task; it may free meanwhile what the holder needs.
        """
        me, loop = object(), asyncio.get_running_loop()
        while (waiting := self._take(me, loop)) is not None:
            try:
                wait = asyncio.wait([waiting], timeout=LOOK_S)
                await (wait if waiting_in is None else waiting_in(wait))
            finally:
                with self._lock:
                    self._waiting.discard(waiting)
        try:
            yield
        finally:
            self._leave(me)

    def _take(self, me: object, loop: asyncio.AbstractEventLoop) -> asyncio.Future[None] | None:
        """Take the turn and return None, or return a future that is set when it is free."""
        with self._lock:
            if self._loop is None or not self._loop.is_running():
                self._holder, self._loop = me, loop
                return None
            waiting: asyncio.Future[None] = loop.create_future()
            self._waiting.add(waiting)
            return waiting

    def _leave(self, me: object) -> None:
        with self._lock:
            if self._holder is not me:  # another task took the turn while this loop stood still
                return
            self._holder = self._loop = None
            waiting, self._waiting = self._waiting, set()
        for each in waiting:
            with suppress(RuntimeError):  # its loop is closed
                each.get_loop().call_soon_threadsafe(_wake, each)


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
