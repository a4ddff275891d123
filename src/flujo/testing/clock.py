"""A clock for tests of pipelines that wait: days pass in milliseconds."""

from __future__ import annotations

import asyncio
import itertools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from flujo.exceptions import SettingsError
from flujo.state.memory_store import MemoryStateStore
from flujo.state.sql.functions import DAY_S, EPOCH_DAY, julian_day
from flujo.state.store import SqlStateStore

if TYPE_CHECKING:
    from pathlib import Path

_START = datetime(2026, 1, 1, tzinfo=UTC)
_IDLE_S = 0.005
"""How long a clock that advances by itself lets other tasks work before it jumps."""


class TestClock:
    """A clock that stands still until the test moves it. Runs, waits, deadlines and stores all go by it.

    Pass it to a runner, together with one of its stores: `Flujo(…, clock=clock, store=clock.memory_store())`.
    Leases, and time limits of attempts (`timeout_s`), keep real time.

    Args:
        start: the time at which it begins, with a time zone. Default: the beginning of 2026 in UTC.
        auto_advance: whether it jumps by itself to the end of the next sleep, once no task works.
    """

    __test__ = False  # not a class of tests

    def __init__(self, start: datetime = _START, *, auto_advance: bool = False) -> None:
        if start.tzinfo is None:
            raise SettingsError(
                "`start` has no time zone", hint="for instance `datetime(2026, 1, 1, tzinfo=UTC)`"
            )
        self._now = self._began = _reached(start.timestamp())
        self._auto_advance = auto_advance
        self._sleepers: dict[int, tuple[float, asyncio.Future[None]]] = {}
        self._numbers = itertools.count()
        self._jump: asyncio.TimerHandle | None = None

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._now

    def monotonic(self) -> float:
        """Seconds since the start of this clock."""
        return self._now - self._began

    @property
    def time(self) -> datetime:
        """The time of this clock, in UTC."""
        return datetime.fromtimestamp(self._now, UTC)

    async def sleep(self, seconds: float) -> None:
        """Sleep until this clock has moved on by so many seconds."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        loop, number = asyncio.get_running_loop(), next(self._numbers)
        awake: asyncio.Future[None] = loop.create_future()
        self._sleepers[number] = (self._now + seconds, awake)
        if self._auto_advance:
            self._jump_later(loop)
        try:
            await awake
        finally:
            self._sleepers.pop(number, None)

    async def advance(self, delta: timedelta | None = None, **parts: float) -> None:
        """Move this clock on, and wake the sleepers that it passes, in the order of their times.

        Args:
            delta: by how much.
            parts: the same as arguments of `timedelta`: `days=3`, `hours=12`.

        Raises:
            SettingsError: the clock would go back.
        """
        by = (delta or timedelta(0)) + timedelta(**parts)
        if by < timedelta(0):
            raise SettingsError(f"a clock does not go back by {-by}")
        until = self._now + by.total_seconds()
        while (first := self._first()) is not None and first <= until:
            self._move_to(first)
            await asyncio.sleep(0)
        self._now = _reached(until)
        await asyncio.sleep(0)

    def memory_store(self) -> MemoryStateStore:
        """Return a store in memory that goes by this clock."""
        return MemoryStateStore(now=self.now)

    def sqlite_store(self, path: Path | str, **options: Any) -> SqlStateStore:
        """Return a store in a SQLite file that goes by this clock; close it with `aclose`."""
        return SqlStateStore(f"sqlite:///{path}", now=self.now, **options)

    def _first(self) -> float | None:
        return min((at for at, awake in self._sleepers.values() if not awake.done()), default=None)

    def _move_to(self, at: float) -> None:
        self._now = max(self._now, _reached(at))
        for time, awake in sorted(self._sleepers.values(), key=lambda sleeper: sleeper[0]):
            if time <= self._now and not awake.done():
                awake.set_result(None)

    def _jump_later(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._jump is not None:
            self._jump.cancel()  # a task has just worked
        self._jump = loop.call_later(_IDLE_S, self._jump_now, loop)

    def _jump_now(self, loop: asyncio.AbstractEventLoop) -> None:
        self._jump = None
        if (first := self._first()) is not None:
            self._move_to(first)
            self._jump_later(loop)


def _reached(at: float) -> float:
    """Return the first time from `at` on that SQLite can tell, so that no store is behind this clock."""
    return (julian_day(at) - EPOCH_DAY) * DAY_S
