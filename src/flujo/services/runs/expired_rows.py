"""Deletes rows that are not needed any more: events that no run took, and feeds that were left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain import feed, sent_events
from flujo.services.runs.periodic_duty import PeriodicDuty

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flujo.domain.store import StateStore

_FIRST_S, _EVERY_S = 60.0, feed.KEPT_S
"""A process that lives for a minute deletes them, then each time a feed may be old."""
_BATCH = 500


class ExpiredRows(PeriodicDuty):
    """The periodic duty of a process that recovers runs.

    Args:
        store: returns the store with the events and feeds.
    """

    def __init__(self, store: Callable[[], Awaitable[StateStore]]) -> None:
        super().__init__(_FIRST_S, _EVERY_S)
        self._store = store

    async def perform(self) -> None:
        """Delete the rows that have expired."""
        store = await self._store()
        await store.delete_old_feeds()
        while await store.delete_old_events(sent_events.KEPT_S, limit=_BATCH) == _BATCH:
            pass
