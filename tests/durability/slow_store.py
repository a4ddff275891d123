"""A remote database for the simulation: slow, sometimes unavailable, and lost with its process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from flujo.exceptions import StateBackendUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from random import Random

    from flujo.domain.journal import RunId
    from flujo.domain.run import Write
    from flujo.state.memory_store import MemoryStateStore


class Crashed(BaseException):
    """The process has crashed: none of its code runs any more, not even error handlers."""


class SlowStore:
    """A remote database: it is slow, fails sometimes, and dies with its process.

    A write may fail before or after it is applied. In the second case the caller does not know that it was applied.
    """

    def __init__(self, store: MemoryStateStore, chance: Random, failures: float) -> None:
        self.owner = store.owner
        self._store = store
        self._chance = chance
        self.failures = failures
        self.zombies: list[str] = []
        """Writes that were applied although their worker had lost the run."""
        self._turn = asyncio.Lock()
        self.dead = False
        self.away = False
        """Whether no read or write succeeds, lease renewals included."""
        self.frozen_until = 0.0
        """Until when its process and its pending writes are frozen."""
        self.faults = 0

    def write(self, write: Write) -> Awaitable[bool]:
        return self._in_turn(write)

    def may_begin(self, run_id: RunId) -> bool:
        return self._store.may_begin(run_id)

    def on_wish(self, run_id: RunId, callback: Callable[[], None]) -> None:
        self._store.on_wish(run_id, callback)

    def on_watched(self, run_id: RunId, callback: Callable[[bool], None]) -> None:
        self._store.on_watched(run_id, callback)

    def on_settled(self, callback: Callable[[RunId], None]) -> Callable[[], None]:
        return lambda: None  # the others are other processes

    def on_queued(self, callback: Callable[[], None]) -> Callable[[], None]:
        return lambda: None  # as above: the worker looks by itself

    def let_go(self, run_id: RunId) -> None:
        if not self.dead:
            self._store.let_go(run_id)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def slowly(*arguments: Any, **options: Any) -> Any:
            return await self._slowly(lambda: method(*arguments, **options))

        return slowly

    async def _in_turn(self, write: Write) -> bool:
        async with self._turn:  # writes keep their order
            answered: bool = await self._slowly(lambda: self._written(write))
            return answered

    async def _written(self, write: Write) -> bool:
        fence = self._store.database.runs[write.run_id].record.fence
        answered = await self._store.write(write)
        if write.fence != fence:
            self.zombies.append(f"fence {write.fence} wrote when the run had {fence}")
        return answered

    async def _slowly(self, work: Any) -> Any:
        await self._travel()
        if self._is_lost():
            self.faults += 1
            raise StateBackendUnavailable("the network is down")
        result = await work()
        await self._travel()
        if self._is_lost():
            self.faults += 1
            raise StateBackendUnavailable("the network is down after the write was applied")
        return result

    def _is_lost(self) -> bool:
        return self.away or self._chance.random() < self.failures

    async def _travel(self) -> None:
        self._alive()
        await asyncio.sleep(self._chance.expovariate(100))
        await self.thawed()
        self._alive()

    async def thawed(self) -> None:
        """Wait while the process is frozen."""
        loop = asyncio.get_running_loop()
        while self.frozen_until > loop.time():  # noqa: ASYNC110 - it may be frozen again
            await asyncio.sleep(self.frozen_until - loop.time())

    def _alive(self) -> None:
        if self.dead:
            raise Crashed
