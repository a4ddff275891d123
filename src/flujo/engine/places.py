"""Places of concurrent branches: how many branches of a step execute at one time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable

T = TypeVar("T")


class Places:
    """The places of the concurrent branches of one step, which is in the place `around` it or in none."""

    def __init__(self, limit: int, around: Place | None = None) -> None:
        self.around = around
        self._free = max(1, limit)
        self._changed = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Whether all places are taken."""
        return self._free <= 0

    def add(self, number: int) -> None:
        """Free a place (1), or take one (-1)."""
        self._free += number
        if number > 0:
            self._changed.set()

    async def change(self) -> None:
        """Wait until a place is freed."""
        self._changed.clear()
        await self._changed.wait()


class Place:
    """The place of one branch. It is free while everything in the branch waits.

    To continue, a branch needs the places around its own as well. All of them are taken in one go, without an
    await between them: a branch that waits for a place holds none, so two branches never wait for each other.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._is_held = False
        self._branches = 0
        """How many branches of a step in this branch have begun and not ended."""
        self._waiting = 0
        """How many of them wait; 1 when the branch itself waits."""

    async def begin(self) -> None:
        """Wait for a free place, and let a new branch hold it."""
        await self._room()
        if (around := self._places.around) is not None:
            around._branches += 1
            around._settle()
        self._is_held = True
        self._places.add(-1)

    def end(self, _task: object = None) -> None:
        """Free the place of a branch that has ended."""
        self._is_held = False
        self._places.add(1)
        if (around := self._places.around) is not None:
            around._branches -= 1
            around._settle()

    async def while_free(self, waiting: Awaitable[T]) -> T:
        """Wait without the place, then take it again."""
        self._waiting += 1
        self._settle()
        try:
            found = await waiting
            await self._room()
            return found
        finally:  # a branch that is cut off takes its place above the limit if need be, and ends
            self._waiting -= 1
            self._settle()

    async def _room(self) -> None:
        while (full := self._full()) is not None:
            await full.change()

    def _full(self) -> Places | None:
        """Return the outermost places that prevent the branch from continuing."""
        if self._is_held:
            return None
        around = self._places.around
        outer = None if around is None else around._full()
        return outer or (self._places if self._places.is_full else None)

    def _settle(self) -> None:
        """Free the place when everything in the branch waits, and take it when something continues."""
        is_held = not self._waiting or self._waiting < self._branches
        if is_held is self._is_held:
            return
        self._is_held = is_held
        self._places.add(-1 if is_held else 1)
        if (around := self._places.around) is not None:
            around._waiting += -1 if is_held else 1
            around._settle()


async def without_place(place: Place | None, waiting: Awaitable[T]) -> T:
    """Wait; the places among concurrent branches are free meanwhile."""
    return await (waiting if place is None else place.while_free(waiting))
