"""A simulated event loop: time jumps instead of passing, and a seed determines the order of callbacks."""

from __future__ import annotations

import asyncio
import heapq
import random  # noqa: TID251 - the randomness of a simulation comes only from its seed
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Coroutine

T = TypeVar("T")


class Stuck(Exception):
    """No callback is ready or scheduled, so the waiting tasks would wait indefinitely."""


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop in which the same seed gives the same run: no clock, no threads, no network.

    It uses private names of CPython (`_run_once`, `_ready`, `_scheduled`); a test fails when one of them
    changes.

    Args:
        seed: determines the order of callbacks that are ready at the same time.
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
        skew_s: the error of this clock; durable decisions must not depend on it.
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
        """Sleep in simulated time."""
        await asyncio.sleep(seconds)


def simulate(seed: int, work: Coroutine[Any, Any, T], *, loop: SimulatedLoop | None = None) -> T:
    """Run `work` on a simulated loop, and return its result.

    Raises:
        Stuck: it waits for something that never happens.
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
