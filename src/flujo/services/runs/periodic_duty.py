"""A duty that is due from time to time, and is done at once."""

from __future__ import annotations

import asyncio


class PeriodicDuty:
    """A `Duty` that is done within `look`: it starts no work in the background.

    Args:
        first_s: the seconds until it is due for the first time.
        every_s: the seconds until it is due again.
    """

    def __init__(self, first_s: float, every_s: float) -> None:
        self._first_s, self._every_s = first_s, every_s
        self._next: float | None = None

    async def perform(self) -> None:
        """Do what is due. Subclasses define it."""
        raise NotImplementedError

    async def look(self) -> int:
        """Perform the duty when it is due; return 0, because nothing has begun.

        Raises:
            StateError: the database cannot be read or written.
        """
        now = asyncio.get_running_loop().time()
        if self._next is None:
            self._next = now + self._first_s
        if now >= self._next:
            self._next = now + self._every_s
            await self.perform()
        return 0

    async def settled(self) -> None:
        """Return at once."""

    async def aclose(self) -> None:
        """Do nothing. Idempotent."""
