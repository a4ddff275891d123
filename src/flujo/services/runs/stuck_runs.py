"""Warns of runs that wait without a reason: a bug, a restored database, or no fitting worker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flujo.domain.commands import command
from flujo.governance.logs import logger
from flujo.state.sql.stuck import stuck

if TYPE_CHECKING:
    from flujo.services.workspace import Workspace

EVERY_S = 600.0

log = logger("flujo.recovery")


class StuckRuns:
    """A duty of workers: what `flujo doctor` reports about runs, in the log, once for each run.

    Args:
        workspace: the project; the caller closes it.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._project = workspace.project
        self._next: float | None = None
        self._reported: frozenset[str] = frozenset()

    async def look(self) -> int:
        """Look when it is time; return 0: it starts no work in the background.

        Raises:
            StateError: the database cannot be read.
        """
        now = asyncio.get_running_loop().time()
        if self._next is None:
            self._next = now + EVERY_S
        if now < self._next:
            return 0
        self._next = now + EVERY_S
        found = await asyncio.to_thread(stuck, self._project.state_uri, self._project.postgres_schema)
        for run in found:
            if run.run_id not in self._reported:
                log.warning("%s; `%s` shows it", run.described, command("flujo", "tasks", "show", run.run_id))
        self._reported = frozenset(run.run_id for run in found)
        return 0

    async def settled(self) -> None:
        """Return at once."""

    async def aclose(self) -> None:
        """Do nothing. Idempotent."""
