"""A worker: resumes orphaned runs and handles expired deadlines; it starts no runs."""

from __future__ import annotations

import asyncio
import importlib
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.domain.commands import command
from flujo.domain.events import RunStarted
from flujo.domain.run import RunCondition, RunGroup, RunQuery, RunStatus
from flujo.exceptions import CallableError, FlujoError, RunNotFound
from flujo.services.project.imports import importable
from flujo.services.runs.hooks import combine_hooks
from flujo.services.runs.recovery import Recovery
from flujo.services.runs.run_services import RunServices
from flujo.state.rules import MAX_LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from flujo.domain.events import Event
    from flujo.domain.journal import RunId
    from flujo.domain.store import StateStore
    from flujo.services.project.recovery_policy import RecoveryPolicy
    from flujo.services.runs.execution import Stop
    from flujo.services.workspace import Workspace


_WAIT_FOR_A_HUMAN = (RunStatus.PAUSED, RunStatus.INTERRUPTED, RunStatus.PARKED)


@dataclass(frozen=True, slots=True)
class WorkerEvents:
    """An event of a worker about one run."""

    event: str
    """`begun`, `ended`, `skipped`, `failed` or `deadline`."""
    run_id: str
    pipeline: str = ""
    detail: str = ""
    """The status for `ended`, the reason for `skipped` and `failed`, the question for `deadline`."""


@dataclass(frozen=True, slots=True)
class Drained:
    """What a worker has done, and which runs it has left."""

    resumed: int
    skipped: tuple[WorkerEvents, ...]
    """The runs that could be resumed, but not by this worker; `detail` is the reason."""
    waiting: Mapping[RunStatus, int]
    """How many runs wait for a human, by status."""


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
        self._resumed = 0
        self._not_here: dict[str, str] = {}
        """The closures that cannot be executed here, with the reason."""
        self._failed: dict[RunId, str] = {}
        """The runs that could not be resumed, with the reason."""
        self._recovery = Recovery(workspace.store, policy, self._take_over, tell=self._report)

    async def work(self) -> None:
        """Poll the database every few seconds until cancelled.

        Raises:
            StateError: the database cannot be opened.
        """
        await self._workspace.store()
        await self._recovery.watch()

    async def drain(self) -> Drained:
        """Process due runs and deadlines until this worker can resume no further run.

        Raises:
            StateError: the database cannot be queried.
        """
        while await self._recovery.look():
            await self._recovery.settled()
        store = await self._workspace.store()
        skipped = [event async for event in self._skipped(store)]
        found = await store.count_runs(RunQuery(statuses=_WAIT_FOR_A_HUMAN), RunGroup.STATUS)
        answered = await store.count_runs(RunQuery(statuses=(RunCondition.ANSWERED,)), RunGroup.STATUS)
        waiting = {status: found.get(status, 0) - answered.get(status, 0) for status in _WAIT_FOR_A_HUMAN}
        return Drained(
            resumed=self._resumed,
            skipped=tuple(skipped),
            waiting={status: count for status, count in waiting.items() if count > 0},
        )

    async def _skipped(self, store: StateStore) -> AsyncIterator[WorkerEvents]:
        due = await store.due(limit=MAX_LIMIT)
        for run_id in due.runs:
            with suppress(RunNotFound):  # purged since
                record = await store.run(run_id)
                if reason := self._failed.get(run_id) or self._not_here.get(record.closure):
                    yield WorkerEvents("skipped", run_id, record.pipeline, reason)

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
            reason = self._not_here[record.closure] = f"{error} [{error.code}]"
            self._on_event(WorkerEvents("skipped", run_id, record.pipeline, reason))
            return

        async def begun(event: Event) -> None:
            if isinstance(event, RunStarted):
                self._resumed += 1
                self._failed.pop(run_id, None)
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
        if event == "failed":
            self._failed[run_id] = detail
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
