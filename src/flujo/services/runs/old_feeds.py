"""Deletes the feeds of runs whose owners have left them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flujo.domain.feed import KEPT_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flujo.domain.store import StateStore

_FIRST_S = 60.0
"""A process that lives for a minute deletes them, then each time they may be old."""


class OldFeeds:
    """The periodic duty of a process that recovers runs.

    Args:
        store: returns the store with the feeds.
    """

    def __init__(self, store: Callable[[], Awaitable[StateStore]]) -> None:
        self._store = store
        self._next: float | None = None

    async def look(self) -> int:
        """Delete old feeds when it is time; return 0: it starts no work in the background.

        Raises:
            StateError: the database cannot be written.
        """
        now = asyncio.get_running_loop().time()
        if self._next is None:
            self._next = now + _FIRST_S
        if now >= self._next:
            self._next = now + KEPT_S
            await (await self._store()).delete_old_feeds()
        return 0

    async def settled(self) -> None:
        """Return at once."""

    async def aclose(self) -> None:
        """Do nothing. Idempotent."""
