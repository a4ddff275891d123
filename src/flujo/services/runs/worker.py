"""A worker: executes the runs of queues, fires schedules, resumes orphaned runs and handles deadlines."""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flujo.domain.commands import command
from flujo.domain.events import RunStarted
from flujo.domain.journal import RunId
from flujo.domain.queues import DEFAULT_QUEUE, RunKind, WorkerRecord, WorkerState
from flujo.domain.run import Due, RunCondition, RunGroup, RunQuery, RunStatus
from flujo.exceptions import CallableError, FlujoError, RunNotFound
from flujo.governance.logs import logger
from flujo.services.project.imports import importable
from flujo.services.runs.deliveries import Deliveries
from flujo.services.runs.expired_rows import ExpiredRows
from flujo.services.runs.heartbeat import HeartbeatFile
from flujo.services.runs.hooks import combine_hooks
from flujo.services.runs.isolation import OF_QUEUES, Isolation
from flujo.services.runs.queue_consumer import QueueConsumer
from flujo.services.runs.queue_metrics import QueueMetrics
from flujo.services.runs.queues import claim_order, queue_table
from flujo.services.runs.recovery import Duty, Recovery
from flujo.services.runs.run_services import RunServices, notifier_of
from flujo.services.runs.schedules import Scheduler
from flujo.services.runs.stuck_runs import StuckRuns
from flujo.state.rules import MAX_LIMIT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from flujo.domain.events import Event
    from flujo.domain.ports import Sink
    from flujo.domain.run import RunRecord
    from flujo.domain.store import StateStore
    from flujo.services.project.recovery_policy import RecoveryPolicy
    from flujo.services.runs.execution import Stop
    from flujo.services.runs.notices import Notifier
    from flujo.services.workspace import Workspace

SIGN_S = 5.0
"""How often a worker reports that it is alive."""

log = logger("flujo.queues")

_LEFT = (RunStatus.PAUSED, RunStatus.INTERRUPTED, RunStatus.PARKED, RunStatus.WAITING)


@dataclass(frozen=True, slots=True)
class WorkerEvents:
    """An event of a worker about one run."""

    event: str
    """`begun`, `ended`, `skipped`, `failed` or `deadline`; `fired` and `schedule` about a schedule."""
    run_id: str
    pipeline: str = ""
    detail: str = ""
    """The status for `ended`, the reason for `skipped` and `failed`, the question for `deadline`, the name of
    the schedule for `fired`."""


@dataclass(frozen=True, slots=True)
class Drained:
    """What a worker has done, and which runs it has left."""

    resumed: int
    skipped: tuple[WorkerEvents, ...]
    """The runs that could be resumed, but not by this worker; `detail` is the reason."""
    waiting: Mapping[RunStatus, int]
    """How many runs cannot continue yet, by status: `waiting` ones need no human, the others do."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a worker does."""

    queues: tuple[str, ...] = (DEFAULT_QUEUE,)
    resumes_orphans: bool = True
    """Whether it also resumes orphaned runs that are in no queue."""
    is_paused: bool = False
    """Whether it begins without taking runs, until `flujo workers resume`."""
    version: str = ""
    """The version of Flujo, for the list of workers."""
    heartbeat_file: Path | None = None
    """A file that it touches while its event loop runs."""
    isolated: tuple[str, ...] = ()
    """The command line of a process that calls `execute_suspect` with the word that is added to it. Without
    one, a run that may have ended its worker is executed in this process, by itself."""


class Worker:
    """Executes the runs in a project's database.

    Args:
        workspace: the project; the caller closes it.
        policy: the polling interval and the number of concurrent runs.
        on_event: called with each event.
        options: the queues that it serves, and how it begins.
        duties: what it does beside executing runs and delivering messages.

    Raises:
        QueueUnknown: the settings have no such queue.
    """

    def __init__(
        self,
        workspace: Workspace,
        policy: RecoveryPolicy,
        on_event: Callable[[WorkerEvents], None],
        options: WorkerOptions = WorkerOptions(),
        duties: Sequence[Duty] = (),
    ) -> None:
        self._workspace = workspace
        self._policy = policy
        self._on_event = on_event
        self._options = options
        self._services: RunServices | None = None
        self._opening = asyncio.Lock()
        self._resumed = 0
        self._not_here: dict[str, str] = {}
        """The closures that cannot be executed here, with the reason."""
        self._failed: dict[RunId, str] = {}
        """The runs that could not be resumed, with the reason."""
        self._spread: set[RunId] = set()
        """The runs of which it has executed batches since it last looked whether they can continue."""
        self._signs: asyncio.Task[None] | None = None
        self._heartbeat = HeartbeatFile(options.heartbeat_file) if options.heartbeat_file else None
        self._state = WorkerState.PAUSED if options.is_paused else WorkerState.WORKING
        settings, isolates = workspace.project.settings, bool(options.isolated)
        scheduler = Scheduler(workspace, self._services_here, self._report, every_s=policy.every_s)
        self._recovery = Recovery(
            workspace.store,
            policy,
            self._take_over,
            tell=self._report,
            duties=(
                scheduler,
                Deliveries(workspace, workspace.store),
                ExpiredRows(workspace.store),
                StuckRuns(workspace),
                QueueMetrics(workspace),
                *([Isolation(options.isolated, self._suspect, self._isolated)] if isolates else ()),
                *duties,
            ),
            adopts=options.resumes_orphans and not options.is_paused,
            others=lambda: self._consumer.places,
            notifier=self._notifier_of,
            isolates=isolates,
        )
        self._consumer = QueueConsumer(
            workspace.store,
            claim_order(settings, options.queues),
            at_once=policy.at_once,
            retries={name: queue_table(settings, name).max_retries for name in options.queues},
            prepare=self._prepare,
            others=lambda: self._recovery.places,
            tell=self._tell,
            isolates=isolates,
        )
        self._consumer.is_paused = options.is_paused

    async def begin(self) -> StateStore:
        """Open the database and report this worker, as each of the calls below does first.

        Raises:
            StateError: the database cannot be opened.
            SettingsError: the heartbeat file cannot be written.
        """
        store = await self._workspace.store()
        self._begin_signs()
        return store

    async def work(self) -> None:
        """Execute runs as they come, until cancelled.

        Raises:
            StateError: the database cannot be opened.
            SettingsError: the heartbeat file cannot be written.
        """
        await self.begin()
        await asyncio.gather(self._recovery.watch(), self._consumer.consume())

    async def drain(self, *, later: bool = False) -> Drained:
        """Execute due runs and deadlines until this worker can execute no further run.

        With `later`, also runs of its queues that are delayed, rest, or wait for a limit of their queue.
        Without orphaned runs, it still continues those without a queue whose batches it has executed.

        Raises:
            StateError: the database cannot be queried.
            SettingsError: the heartbeat file cannot be written.
        """
        store, began = await self.begin(), 1
        while began:
            began = await self._recovery.look() + await self._consumer.drain(later=later)
            began += await self._continue_spread(store)
            await self._recovery.settled()
            await self._tasks_settled()
        skipped = [event async for event in self._skipped(store)]
        kinds = tuple(RunKind)
        asked = RunQuery(statuses=_LEFT, kinds=kinds)
        found = await store.count_runs(asked, RunGroup.STATUS)
        settled = RunQuery(statuses=(RunCondition.ANSWERED,), kinds=kinds)
        answered = await store.count_runs(settled, RunGroup.STATUS)
        waiting = {status: found.get(status, 0) - answered.get(status, 0) for status in _LEFT}
        return Drained(
            resumed=self._resumed,
            skipped=tuple(skipped),
            waiting={status: count for status, count in waiting.items() if count > 0},
        )

    async def _continue_spread(self, store: StateStore) -> int:
        """Continue runs whose batches this worker has executed, unless recovery does; return how many."""
        spread, self._spread, found = self._spread, set(), 0
        if self._recovery.adopts or self._consumer.is_paused:
            return 0
        for run_id in sorted(spread):
            with suppress(RunNotFound):  # purged since
                record = await store.run(run_id)
                if record.queued is None and record.status is RunStatus.WAITING and record.is_answered:
                    await self._recovery.take_over_alone(run_id)
                    found += 1
        return found

    async def execute_suspect(self, suspect: str) -> None:
        """Execute a run that may have ended its worker, and nothing else in this process.

        Args:
            suspect: its id, or `OF_QUEUES` for the next one of the queues.

        Raises:
            StateError: the database cannot be read or written.
        """
        await self.begin()
        if suspect != OF_QUEUES:
            await self._recovery.take_over_alone(RunId(suspect))
        elif await self._consumer.look_for_suspect():
            await self._consumer.settled()
        await self._tasks_settled()

    async def _suspect(self) -> str | None:
        return OF_QUEUES if await self._consumer.has_suspect() else await self._recovery.suspect()

    def _isolated(self, event: Mapping[str, Any]) -> None:
        """Pass on what the process of a suspect says."""
        self._resumed += event["event"] == "begun"
        if event["event"] == "skipped":
            self._recovery.rest(event["run_id"])
            self._failed[event["run_id"]] = event["detail"]
        self._on_event(WorkerEvents(**event))

    async def finish(self) -> None:
        """Take no further run, and wait until those in execution have ended or paused."""
        self._set_state(WorkerState.DRAINING)
        with suppress(FlujoError):
            await (await self._workspace.store()).report_worker(self._sign())
        await self._recovery.settled()
        await self._consumer.settled()
        await self._tasks_settled()

    async def _tasks_settled(self) -> None:
        """Wait until the background tasks that its runs have launched here have ended or paused."""
        if self._services is not None:
            await self._services.tasks.settled()

    @property
    def executing(self) -> int:
        """How many runs it executes now."""
        return self._recovery.executing + self._consumer.executing

    async def _skipped(self, store: StateStore) -> AsyncIterator[WorkerEvents]:
        due = await store.due(limit=MAX_LIMIT) if self._options.resumes_orphans else Due()
        left = [run_id for run_id in self._failed if run_id not in due.runs]
        for run_id in (*due.runs, *left):
            with suppress(RunNotFound):  # purged since
                record = await store.run(run_id)
                if reason := self._failed.get(run_id) or self._not_here.get(record.closure):
                    yield WorkerEvents("skipped", run_id, record.pipeline, reason)

    async def aclose(self) -> None:
        """Stop and release the running runs, so that another process can claim them at once."""
        await self._recovery.aclose()
        await self._consumer.aclose()
        if self._services is not None:
            await self._services.tasks.aclose(0)
        if self._signs is not None:
            self._signs.cancel()
            await asyncio.wait([self._signs])
            with suppress(FlujoError):
                await (await self._workspace.store()).forget_worker()
        if self._heartbeat is not None:
            await self._heartbeat.aclose()

    async def _prepare(self, record: RunRecord) -> Callable[[Stop], Awaitable[None]]:
        """Return what executes a run that was claimed from its queue."""
        service = await (await self._services_here()).of_run(record)
        await service.runtime.binding.prepare()

        async def execute(stop: Stop) -> None:
            sink = combine_hooks([self._begun(record)])
            most = self._policy.max_recoveries
            status = await service.execute(record, max_recoveries=most, sink=sink, stop=stop)
            if record.kind is RunKind.ITEM and record.parent is not None:
                self._spread.add(record.parent.run_id)
            self._on_event(WorkerEvents("ended", record.run_id, record.pipeline, str(status)))

        return execute

    def _begun(self, record: RunRecord) -> Sink:
        async def begun(event: Event) -> None:
            if isinstance(event, RunStarted):
                self._resumed += 1
                self._failed.pop(record.run_id, None)
                self._on_event(WorkerEvents("begun", record.run_id, record.pipeline))

        return begun

    # Signs of life ----------------------------------------------------------------------------------------

    def _begin_signs(self) -> None:
        if self._signs is None:
            if self._heartbeat is not None:
                self._heartbeat.begin()
            self._signs = asyncio.create_task(self._give_signs(), name="flujo-worker-signs")

    async def _give_signs(self) -> None:
        """Report this worker every few seconds, and do what its row says: pause or resume."""
        while True:
            try:
                state = await (await self._workspace.store()).report_worker(self._sign())
                if state is not self._state and self._state is not WorkerState.DRAINING:
                    self._set_state(state)
            except FlujoError as error:
                log.warning("this worker could not report itself: %s", error)
            await asyncio.sleep(SIGN_S)

    def _set_state(self, state: WorkerState) -> None:
        self._state = state
        takes = state is WorkerState.WORKING
        self._consumer.is_paused = not takes
        self._recovery.adopts = takes and self._options.resumes_orphans

    def _sign(self) -> WorkerRecord:
        return WorkerRecord(
            owner="",
            host=socket.gethostname(),
            pid=os.getpid(),
            version=self._options.version,
            queues=self._options.queues,
            concurrency=self._policy.at_once,
            state=self._state,
        )

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

        result = await service.recover(
            run_id,
            max_recoveries=self._policy.max_recoveries,
            sink=combine_hooks([self._begun(record)]),
            stop=stop,
        )
        self._on_event(WorkerEvents("ended", run_id, record.pipeline, str(result.status)))

    async def _notifier_of(self, record: RunRecord) -> Notifier:
        return await notifier_of(self._workspace, await self._workspace.store(), record)

    async def _services_here(self) -> RunServices:
        async with self._opening:
            if self._services is None:
                self._services = await RunServices.of_project(self._workspace)
            return self._services

    def _report(self, event: str, run_id: str, detail: str) -> None:
        if event == "failed":
            self._failed[RunId(run_id)] = detail
        self._on_event(WorkerEvents(event, run_id, detail=detail))

    def _tell(self, event: str, record: RunRecord, detail: str) -> None:
        self._failed[record.run_id] = detail
        self._on_event(WorkerEvents(event, record.run_id, record.pipeline, detail))


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
