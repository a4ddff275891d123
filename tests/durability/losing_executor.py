"""An executor of the simulation, whose workers are sometimes lost before or after a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.agents.thread_pool import THREADS
from flujo.exceptions import WorkerLost

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable, Collection
    from random import Random

    from flujo.domain.executor import Unit

MOST = 2
"""How often a unit of one step and one input is lost; an attempt of its step is left for the next one."""


class LosingExecutor:
    """Executes units on the simulated loop.

    Args:
        chance: decides what is lost.
        parts: the names of the steps whose units may be lost.
        losses: counts them, by step and input.
        wait: lets the time of an answer pass.
    """

    name = "far"
    leaves_process = False

    def __init__(
        self,
        chance: Random,
        parts: Collection[str],
        losses: Counter[str],
        wait: Callable[[], Awaitable[None]],
    ) -> None:
        self._chance = chance
        self._parts = parts
        self._losses = losses
        self._wait = wait

    async def submit(self, unit: Unit) -> Any:
        """Execute a unit, at most once."""
        assert unit.step is not None
        assert unit.here is not None
        name = unit.step.path.rpartition("/")[2]
        call = f"lost {name}:{unit.data!r}"
        way = "kept"
        if name in self._parts and self._losses[call] < MOST:
            way = self._chance.choices(("before", "after", "kept"), (1, 1, 6))[0]
        self._losses[call] += way != "kept"
        if way == "before":
            await self._wait()
            raise WorkerLost("the worker was gone before it began", executor=self.name)
        output = await unit.here(THREADS)
        await self._wait()
        if way == "after":
            raise WorkerLost("the worker was gone before it answered", executor=self.name)
        return output

    async def check(self) -> Any: ...

    async def aclose(self) -> None: ...
