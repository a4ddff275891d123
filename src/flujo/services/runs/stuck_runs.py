"""Warns of runs that wait without a reason: a bug, a restored database, or no fitting worker."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flujo.domain.commands import command
from flujo.governance.logs import logger
from flujo.services.runs.periodic_duty import PeriodicDuty
from flujo.state.sql.stuck import stuck

if TYPE_CHECKING:
    from flujo.services.workspace import Workspace

EVERY_S = 600.0

log = logger("flujo.recovery")


class StuckRuns(PeriodicDuty):
    """A duty of workers: what `flujo doctor` reports about runs, in the log, once for each run.

    Args:
        workspace: the project; the caller closes it.
    """

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(EVERY_S, EVERY_S)
        self._project = workspace.project
        self._reported: frozenset[str] = frozenset()

    async def perform(self) -> None:
        """Warn of the runs that were not stuck before."""
        found = await asyncio.to_thread(stuck, self._project.state_uri, self._project.postgres_schema)
        for run in found:
            if run.run_id not in self._reported:
                log.warning("%s; `%s` shows it", run.described, command("flujo", "tasks", "show", run.run_id))
        self._reported = frozenset(run.run_id for run in found)
