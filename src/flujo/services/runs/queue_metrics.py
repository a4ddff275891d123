"""Reports the depth and the age of queues to telemetry: a duty of workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flujo.services.workspace import Workspace

EVERY_S = 15.0
"""How often a worker reads the queues."""


class QueueMetrics:
    """Reads the queues while telemetry is on. All workers of a database report the same numbers.

    Args:
        workspace: the project; the caller closes it.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._next_look = 0.0

    async def look(self) -> int:
        """Report the queues when it is time. No work has begun, so it returns 0.

        Raises:
            StateError: the database cannot be read.
        """
        telemetry, now = self._workspace.telemetry, asyncio.get_running_loop().time()
        if telemetry is not None and now >= self._next_look:
            self._next_look = now + EVERY_S
            telemetry.report_queues(await (await self._workspace.store()).queue_states())
        return 0

    async def settled(self) -> None:
        """Return at once."""

    async def aclose(self) -> None:
        """Return at once."""
