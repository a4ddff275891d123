"""The money of one command: what a run may cost at most is set aside before it starts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

_ROOM = 3
"""A run gets this many times the cost of the dearest one so far."""

_LEAST = 100
"""A run gets at least this part of the whole (one hundredth), also where runs cost nothing."""


@dataclass(slots=True)
class Purse:
    """US dollars that runs may cost together. Without a limit it only adds up."""

    limit: float | None = None
    is_empty: bool = False
    """Whether a run did not start for lack of money."""
    _spent: int = 0
    _held: int = 0
    _dearest: int | None = None
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def spent(self) -> float:
        """US dollars that runs have cost."""
        return self._spent / 1e6

    async def take(self) -> float | None:
        """Return the most that the next run may cost: 0 when it must not start, None without a limit.

        The first run gets everything, alone, because no cost is known yet. So what runs cost together, each
        within what it has taken, is never above the limit.
        """
        if self.limit is None:
            return None
        async with self._changed:
            while (given := self._given(round(self.limit * 1e6))) is None:
                await self._changed.wait()
            self._held += given
            self.is_empty = self.is_empty or given == 0
            return given / 1e6

    def _given(self, limit: int) -> int | None:
        """Return the most that a run may cost now; None while that depends on a run which is executed.

        All amounts are in millionths of a dollar: sums of them are exact.
        """
        free = limit - self._spent - self._held
        if self._dearest is None:
            return None if self._held else max(0, free)
        wanted = max(self._dearest * _ROOM, limit // _LEAST, 1)
        if free >= wanted:
            return wanted
        if self._held:
            return None
        return free if free > 0 and free >= self._dearest else 0

    async def settle(self, given: float | None, cost: float) -> None:
        """Return what a run has not spent of what it was given."""
        async with self._changed:
            self._spent += round(cost * 1e6)
            self._held -= round((given or 0.0) * 1e6)
            if given != 0:
                self._dearest = max(self._dearest or 0, round(cost * 1e6))
            self._changed.notify_all()
