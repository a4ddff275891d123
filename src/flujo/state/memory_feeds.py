"""Feeds in memory: who watches a run, and what its owner says."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flujo.domain.feed import MAX_LINES, WATCH_S, first_number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flujo.domain.feed import FeedLine
    from flujo.domain.journal import RunId


@dataclass(slots=True)
class _Feed:
    """The feed of a run that was watched."""

    lines: deque[FeedLine] = field(default_factory=lambda: deque(maxlen=MAX_LINES))
    last: int = 0
    until: float = 0.0
    """Until when the run is watched."""
    told: Callable[[bool], None] | None = None
    """The owner's callback that knows that the run is watched."""


@dataclass(slots=True)
class MemoryFeeds:
    """The feeds of a database in memory."""

    by_run: dict[RunId, _Feed] = field(default_factory=dict)
    """Those of runs that were watched."""
    owners: dict[RunId, tuple[asyncio.AbstractEventLoop, Callable[[bool], None]]] = field(
        default_factory=dict
    )
    """The callbacks of the owners of runs, each with its loop."""

    def watch(self, run_id: RunId, now: Callable[[], float]) -> None:
        """Note that a run is watched, and tell its owner."""
        self.by_run.setdefault(run_id, _Feed()).until = now() + WATCH_S
        self._tell(run_id, now)

    def on_watched(self, run_id: RunId, callback: Callable[[bool], None], now: Callable[[], float]) -> None:
        """Tell the owner of a run from now on whether it is watched; called inside its loop."""
        self.owners[run_id] = asyncio.get_running_loop(), callback
        self._tell(run_id, now)

    def add(self, run_id: RunId, lines: Sequence[FeedLine], now: float) -> None:
        """Add lines to a feed."""
        feed = self.by_run.setdefault(run_id, _Feed())
        for number, line in enumerate(lines, first_number(feed.last, now)):
            feed.lines.append(replace(line, number=number))
            feed.last = number

    def after(self, run_id: RunId, number: int) -> list[FeedLine]:
        """Return the lines of a feed behind a number."""
        feed = self.by_run.get(run_id)
        return [] if feed is None else [line for line in feed.lines if line.number > number]

    def _tell(self, run_id: RunId, now: Callable[[], float]) -> None:
        feed, owner = self.by_run.get(run_id), self.owners.get(run_id)
        if feed is None or owner is None or feed.until <= now() or feed.told is owner[1]:
            return
        loop, callback = owner
        feed.told = callback

        def look() -> None:
            if feed.told is not callback:
                return
            left = feed.until - now()
            if left > 0:
                loop.call_later(left, look)
            else:
                feed.told = None
                callback(False)

        def begin() -> None:
            callback(True)
            look()

        with suppress(RuntimeError):  # the loop is closed, and its run with it
            loop.call_soon_threadsafe(begin)
