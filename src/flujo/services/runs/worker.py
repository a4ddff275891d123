"""A worker: resumes orphaned runs and handles expired deadlines; it starts no runs."""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.domain.commands import command
from flujo.domain.events import RunStarted
from flujo.exceptions import CallableError, FlujoError
from flujo.services.project.imports import importable
from flujo.services.runs.hooks import combine_hooks
from flujo.services.runs.recovery import Recovery
from flujo.services.runs.run_services import RunServices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flujo.domain.events import Event
    from flujo.domain.journal import RunId
    from flujo.services.project.recovery_policy import RecoveryPolicy
    from flujo.services.runs.execution import Stop
    from flujo.services.workspace import Workspace


@dataclass(frozen=True, slots=True)
class WorkerEvents:
    """An event of a worker about one run."""

    event: str
    """`begun`, `ended`, `skipped`, `failed` or `deadline`."""
    run_id: str
    pipeline: str = ""
    detail: str = ""
    """The status for `ended`, the reason for `skipped` and `failed`, the question for `deadline`."""


class Worker:
    """Recovers the runs in a project's database.

    Args:
        workspace: the project; the caller closes it.
        policy: the polling interval and the number of concurrent runs.
        on_event: called with each event.
    """

    def __init__(
        self, workspace: Workspace, policy: RecoveryPolicy, on_event: Callable[[WorkerEvents], None]
    ) -> None:
        self._workspace = workspace
        self._policy = policy
        self._on_event = on_event
        self._services: RunServices | None = None
        self._opening = asyncio.Lock()
        self._recovery = Recovery(workspace.store, policy, self._take_over, tell=self._report)

    async def work(self) -> None:
        """Poll the database every few seconds until cancelled.

        Raises:
            StateError: the database cannot be opened.
        """
        await self._workspace.store()
        await self._recovery.watch()

    async def drain(self) -> int:
        """Process pending runs and deadlines until there are none; return the number of resumed runs.

        Raises:
            StateError: the database cannot be queried.
        """
        resumed = 0
        while fresh := await self._recovery.look():
            resumed += fresh
            await self._recovery.settled()
        return resumed

    async def aclose(self) -> None:
        """Stop and release the running runs, so that another process can claim them at once."""
        await self._recovery.aclose()

    async def _take_over(self, run_id: RunId, stop: Stop) -> None:
        store = await self._workspace.store()
        record = await store.run(run_id)
        try:
            service = await (await self._services_here()).of_run(record)
        except FlujoError as error:
            self._recovery.leave(record, error)
            self._on_event(WorkerEvents("skipped", run_id, record.pipeline, f"{error} [{error.code}]"))
            return

        async def begun(event: Event) -> None:
            if isinstance(event, RunStarted):
                self._on_event(WorkerEvents("begun", run_id, record.pipeline))

        result = await service.recover(
            run_id,
            max_recoveries=self._policy.max_recoveries,
            sink=combine_hooks([begun]),
            stop=stop,
        )
        self._on_event(WorkerEvents("ended", run_id, record.pipeline, str(result.status)))

    async def _services_here(self) -> RunServices:
        async with self._opening:
            if self._services is None:
                self._services = await RunServices.of_project(self._workspace)
            return self._services

    def _report(self, event: str, run_id: RunId, detail: str) -> None:
        self._on_event(WorkerEvents(event, run_id, detail=detail))


def import_modules(workspace: Workspace, names: Sequence[str]) -> None:
    """Import the modules that register pipelines.

    Raises:
        CallableError: one cannot be imported.
    """
    importable(workspace.project.root)
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:  # the module is foreign code
            raise CallableError(
                f"`{command('--import', name)}` raised {type(error).__name__}: {error}",
                hint="use a module that can be imported from the project's folder",
                module=name,
            ) from error
