"""A simulated event loop: time jumps instead of passing, and a seed decides who goes first."""

from __future__ import annotations

import asyncio
import heapq
import random  # noqa: TID251 - a simulation's chance comes from its seed alone
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Coroutine

T = TypeVar("T")


class Stuck(Exception):
    """Nothing is ready and nothing is scheduled: whoever waits would wait for ever."""


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop in which the same seed gives the same run: no clock, no threads, no network.

    It rests on names that CPython keeps to itself (`_run_once`, `_ready`, `_scheduled`); a test says when one
    of them has changed.

    Args:
        seed: decides in which order the callbacks run that are ready at the same time.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(selectors.SelectSelector())
        self.chance = random.Random(seed)  # noqa: S311 - not for secrets
        self._moment = 0.0
        self._clock_resolution = 1e-9

    def time(self) -> float:
        """Return the simulated seconds since the loop began."""
        return self._moment

    def _run_once(self) -> None:
        ready: deque[Any] = self._ready  # type: ignore[attr-defined]
        scheduled: list[Any] = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not ready and scheduled:
            self._moment = max(self._moment, scheduled[0]._when)
        if not ready and not scheduled and not self._stopping:  # type: ignore[attr-defined]
            raise Stuck("nothing is ready, and nothing is scheduled")
        if len(ready) > 1:
            shuffled = list(ready)
            self.chance.shuffle(shuffled)
            ready.clear()
            ready.extend(shuffled)
        super()._run_once()  # type: ignore[misc]


class SimulatedClock:
    """The `Clock` of a simulation: its loop's time.

    Args:
        skew_s: how far this clock is off; nothing that matters may depend on it.
    """

    def __init__(self, loop: SimulatedLoop, *, skew_s: float = 0.0) -> None:
        self._loop = loop
        self._skew_s = skew_s

    def now(self) -> float:
        """Seconds since the epoch of the simulation."""
        return self._loop.time() + self._skew_s

    def monotonic(self) -> float:
        """Seconds that never go backwards."""
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        """Wait, in no time."""
        await asyncio.sleep(seconds)


def simulate(seed: int, work: Coroutine[Any, Any, T], *, loop: SimulatedLoop | None = None) -> T:
    """Return what `work` returns when it is run on a simulated loop.

    Raises:
        Stuck: it waits for something that will never happen.
    """
    loop = loop or SimulatedLoop(seed)
    try:
        return loop.run_until_complete(work)
    finally:
        while rest := asyncio.all_tasks(loop):
            for task in rest:
                task.cancel()
            loop.run_until_complete(asyncio.wait(rest))
        loop.close()
