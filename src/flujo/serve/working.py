"""The worker of `flujo serve --workers`: it executes runs of queues in the process of the server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flujo import __version__
from flujo.governance.logs import logger
from flujo.services.admin.retention import Retention
from flujo.services.runs.worker import Worker, WorkerOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.services.runs.worker import WorkerEvents
    from flujo.services.workspace import Workspace

log = logger("flujo.serve")

GRACE_S = 25.0
"""How long runs may continue after SIGTERM before they are released, as for `flujo worker`."""
_LOOK_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The runs that a server executes beside its pages."""

    at_once: int = 0
    """The most concurrent runs; 0 for none."""
    isolated: tuple[str, ...] = ()
    """The command of a process for a run that may have ended its worker; see `WorkerOptions`."""


NO_WORK = Work()


class Working:
    """A worker at work. It ends with `finish`.

    Args:
        workspace: the project; the caller closes it.
        work: how much it executes, which is not nothing.
    """

    def __init__(self, workspace: Workspace, work: Work) -> None:
        policy = replace(workspace.recovery_policy, at_once=work.at_once)
        options = WorkerOptions(version=__version__, isolated=work.isolated)
        self._worker = Worker(workspace, policy, _report, options, duties=[Retention(workspace)])
        self._task = asyncio.create_task(self._worker.work(), name="flujo-serve-worker")
        self._task.add_done_callback(_ended)

    async def finish(self, is_forced: Callable[[], bool], grace_s: float = GRACE_S) -> None:
        """Take no further run, let those in execution end, and release the ones that have not.

        Args:
            is_forced: whether they are released at once, because of a second signal.
            grace_s: for how many seconds they may continue.
        """
        self._task.cancel()
        await asyncio.wait([self._task])
        finishing = asyncio.ensure_future(self._worker.finish())
        until = asyncio.get_running_loop().time() + grace_s
        while not finishing.done() and not is_forced() and asyncio.get_running_loop().time() < until:
            await asyncio.wait([finishing], timeout=_LOOK_S)
        finishing.cancel()
        await asyncio.wait([finishing])
        await self._worker.aclose()


def _report(event: WorkerEvents) -> None:
    words = [event.event, event.run_id, event.pipeline, event.detail]
    log.info("worker: %s", " ".join(filter(None, words)))


def _ended(task: asyncio.Task[None]) -> None:
    """Report a worker that has ended by an error: the pages stay, and nothing is executed."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the worker of this server has ended, and it executes no runs: %s", error)
