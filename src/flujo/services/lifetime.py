"""The lifetime of what is opened at first use and closed once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from flujo.exceptions import RunnerClosed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


class Lifetime:
    """Opens resources one at a time, closes them once, and refuses every use afterwards.

    Args:
        owner: what is opened and closed, as errors name it.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._opening = asyncio.Lock()
        self._exits = AsyncExitStack()
        self._closing: asyncio.Future[None] | None = None

    def require_open(self) -> None:
        """Return while nothing has begun to close it.

        Raises:
            RunnerClosed: it is closed, or being closed.
        """
        if self._closing is not None:
            raise RunnerClosed(f"{self._owner} is closed")

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[AsyncExitStack]:
        """Wait until nothing else is being opened, and yield the stack of what to close, the newest first.

        Raises:
            RunnerClosed: it is closed; at the exit as well, when that began meanwhile.
        """
        async with self._opening:
            self.require_open()
            yield self._exits
            self.require_open()

    async def close(self, before: Callable[[], Awaitable[None]] | None = None) -> None:
        """Close what was opened, once, however often this is called and whatever cancels the caller.

        Args:
            before: what to do first, when nothing new can be opened any more.
        """
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close(before))
        await asyncio.shield(self._closing)

    async def release(self) -> None:
        """Close what was opened; the next use opens it again."""
        async with self._opening:
            exits, self._exits = self._exits, AsyncExitStack()
            await exits.aclose()

    async def _close(self, before: Callable[[], Awaitable[None]] | None) -> None:
        try:
            if before is not None:
                await before()
        finally:
            await self.release()
