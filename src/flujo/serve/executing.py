"""Runs that the server executes itself, because a request retries, resumes or forks one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from flujo.exceptions import FlujoError
from flujo.governance.logs import logger

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from flujo.domain.models import PipelineResult

    Result = PipelineResult[Any, Any]

log = logger("flujo.serve")


class Executing:
    """The runs that a server executes. Their requests need not wait for their ends."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Result]] = set()

    async def begin(self, work: Coroutine[Any, Any, Result], wait_s: float) -> Result | None:
        """Execute a run, and return its result if it ends or pauses within `wait_s` seconds.

        Raises:
            FlujoError: it could not begin.
        """
        task = asyncio.create_task(work)
        self._tasks.add(task)
        try:
            async with asyncio.timeout(wait_s):
                return await asyncio.shield(task)
        except TimeoutError:
            task.add_done_callback(_report)
            return None
        finally:
            task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """Stop the runs. They have no owner then, so that a worker continues them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _report(task: asyncio.Task[Result]) -> None:
    """Log why a run could not be executed, after its request was answered."""
    if not task.cancelled() and (error := task.exception()) is not None:
        message = error.message if isinstance(error, FlujoError) else repr(error)
        log.error("a run that was begun by a request could not be executed: %s", message)
