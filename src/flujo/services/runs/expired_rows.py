"""Deletes rows that are not needed any more: events that no run took, and feeds that were left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flujo.domain import feed, sent_events

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flujo.domain.store import StateStore

_FIRST_S, _EVERY_S = 60.0, feed.KEPT_S
"""A process that lives for a minute deletes them, then each time a feed may be old."""
_BATCH = 500


class ExpiredRows:
    """The periodic duty of a process that recovers runs.

    Args:
        store: returns the store with the events and feeds.
    """

    def __init__(self, store: Callable[[], Awaitable[StateStore]]) -> None:
        self._store = store
        self._next: float | None = None

    async def look(self) -> int:
        """Delete expired rows when it is time; return 0: it starts no work in the background.

        Raises:
            StateError: the database cannot be written.
        """
        now = asyncio.get_running_loop().time()
        if self._next is None:
            self._next = now + _FIRST_S
        if now < self._next:
            return 0
        self._next = now + _EVERY_S
        store = await self._store()
        await store.delete_old_feeds()
        while await store.delete_old_events(sent_events.KEPT_S, limit=_BATCH) == _BATCH:
            pass
        return 0

    async def settled(self) -> None:
        """Return at once."""

    async def aclose(self) -> None:
        """Do nothing. Idempotent."""
