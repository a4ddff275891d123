"""Deletes old runs by `[retention]` of the settings: a duty of workers, which one of them does each hour."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flujo.domain.acts import Via
from flujo.domain.run import RunStatus
from flujo.exceptions import FlujoError
from flujo.governance.logs import logger
from flujo.services.admin.purge import purge
from flujo.services.project.system import actor

if TYPE_CHECKING:
    from flujo.services.workspace import Workspace

EVERY_S = 3600.0
"""How often the workers of a database delete what is old, all of them together."""
_ASK_S = 300.0
"""How often one worker looks whether it is time again."""

log = logger("flujo.retention")


class Retention:
    """Does in the background what `flujo purge` does, for each status with an age.

    Args:
        workspace: the project; the caller closes it.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._ages = workspace.project.settings.retention.ages
        self._next_look = 0.0
        self._purging: asyncio.Task[None] | None = None

    async def look(self) -> int:
        """Begin to delete, when no worker has begun within the last hour; return whether it began.

        Raises:
            StateError: the database cannot be written.
        """
        now = asyncio.get_running_loop().time()
        if not self._ages or now < self._next_look or (self._purging and not self._purging.done()):
            return 0
        self._next_look = now + _ASK_S
        store = await self._workspace.store()
        if not await store.take_turn("retention", EVERY_S):
            return 0
        self._purging = asyncio.create_task(self._purge(), name="flujo-retention")
        return 1

    async def settled(self) -> None:
        """Wait until what has begun is deleted."""
        if self._purging is not None:
            await asyncio.wait([self._purging])

    async def aclose(self) -> None:
        """Stop after the current batch; the rest is deleted an hour later. Idempotent."""
        if self._purging is not None:
            self._purging.cancel()
            await self.settled()

    async def _purge(self) -> None:
        store = await self._workspace.store()
        worker = actor("retention", Via.WORKER)
        for status, age_s in self._ages.items():
            try:
                gone = await purge(store, [RunStatus(status)], age_s, actor=worker)
            except FlujoError as error:
                log.warning("old runs could not be deleted: %s", error)
                return
            if gone.runs:
                log.info("deleted %d runs that were %s", gone.runs, status)
