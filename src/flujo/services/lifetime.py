"""The lifetime of resources that open at first use and close once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from flujo.exceptions import RunnerClosed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


class Lifetime:
    """Opens resources one at a time, closes them once, and rejects later use.

    Args:
        owner: the name of the owner, for error messages.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._opening = asyncio.Lock()
        self._exits = AsyncExitStack()
        self._closing: asyncio.Future[None] | None = None

    def require_open(self) -> None:
        """Check that it is open.

        Raises:
            RunnerClosed: it is closed or closing.
        """
        if self._closing is not None:
            raise RunnerClosed(f"{self._owner} is closed")

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[AsyncExitStack]:
        """Hold the opening lock and yield the exit stack, which closes in reverse order.

        Raises:
            RunnerClosed: it is closed, or closing began before the block ended.
        """
        async with self._opening:
            self.require_open()
            yield self._exits
            self.require_open()

    async def close(self, before: Callable[[], Awaitable[None]] | None = None) -> None:
        """Close all resources once. Repeated calls wait for the first; cancelling a caller does not stop it.

        Args:
            before: called first, when no new resource can be opened.
        """
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close(before))
        await asyncio.shield(self._closing)

    async def release(self) -> None:
        """Close all resources; the next use opens them again."""
        async with self._opening:
            exits, self._exits = self._exits, AsyncExitStack()
            await exits.aclose()

    async def _close(self, before: Callable[[], Awaitable[None]] | None) -> None:
        try:
            if before is not None:
                await before()
        finally:
            await self.release()
