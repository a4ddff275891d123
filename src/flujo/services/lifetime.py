"""The lifetime of resources that open at first use and close once, in whatever event loop."""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from flujo.domain.forks import renew_in_children
from flujo.domain.turns import Turn
from flujo.exceptions import RunnerClosed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

LOOK_S = 0.1
"""How often work in another event loop is checked for a loop that has stopped."""


class ClosedAtExit(ABC):
    """Is closed at the end of `async with`."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @abstractmethod
    async def aclose(self) -> None:
        """Close all resources. Idempotent."""


class Lifetime:
    """Opens resources one at a time, closes them once, and rejects later use.

    Args:
        owner: the name of the owner, for error messages.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._exits = AsyncExitStack()
        self._closed: Future[None] | None = None
        """Set when closing begins, done when all is closed."""
        self._renew()
        renew_in_children(self, type(self)._renew)

    def _renew(self) -> None:
        """Forget the tasks of the parent process; what it had closed stays closed."""
        self._turn = Turn()
        self._guard = threading.Lock()
        if self._closed is not None and not self._closed.done():
            self._closed = None

    def require_open(self) -> None:
        """Check that it is open.

        Raises:
            RunnerClosed: it is closed or closing.
        """
        if self._closed is not None:
            raise RunnerClosed(f"{self._owner} is closed")

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[AsyncExitStack]:
        """Hold the opening lock and yield the exit stack, which closes in reverse order.

        Raises:
            RunnerClosed: it is closed, or closing began before the block ended.
        """
        async with self._turn.taken():
            self.require_open()
            yield self._exits
            self.require_open()

    async def close(self, before: Callable[[], Awaitable[None]] | None = None) -> None:
        """Close all resources once. Repeated calls wait for the first; cancelling a caller does not stop it.

        Args:
            before: called first, when no new resource can be opened.
        """
        with self._guard:
            closed = self._closed
            if closed is None:
                closed = self._closed = Future()
                closing = asyncio.ensure_future(self._close(before))
                closing.add_done_callback(lambda ended: _settle(closed, ended))
        await asyncio.shield(asyncio.wrap_future(closed))

    def detach(self) -> AsyncExitStack:
        """Return the exit stack of the open resources; the next use opens others."""
        exits, self._exits = self._exits, AsyncExitStack()
        return exits

    async def release(self) -> None:
        """Close all resources; the next use opens them again."""
        async with self._turn.taken():
            await self.detach().aclose()

    async def _close(self, before: Callable[[], Awaitable[None]] | None) -> None:
        try:
            if before is not None:
                await before()
        finally:
            await self.release()


def _settle(closed: Future[None], ended: asyncio.Task[None] | asyncio.Future[None]) -> None:
    """Pass the outcome of closing on to those who wait in any event loop."""
    error = None if ended.cancelled() else ended.exception()
    if error is not None:
        closed.set_exception(error)
    else:
        closed.set_result(None)


async def within(loop: asyncio.AbstractEventLoop, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do `work` in its event loop and wait for it; work of a loop that has stopped is left undone."""
    if loop is asyncio.get_running_loop():
        await work()
        return
    done: Future[None] = Future()
    begun: list[asyncio.Task[None]] = []  # a loop keeps only weak references to its tasks

    def begin() -> None:
        begun.append(loop.create_task(work()))
        begun[0].add_done_callback(lambda ended: _settle(done, ended))

    if not loop.is_running():
        return
    loop.call_soon_threadsafe(begin)
    ended = asyncio.wrap_future(done)
    while not ended.done() and loop.is_running():
        await asyncio.wait([ended], timeout=LOOK_S)
    if ended.done():
        ended.result()
