"""The background tasks that this process executes beside the runs that launched them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from flujo.domain.evaluations import EVALUATION_ID
from flujo.domain.forks import renew_in_children
from flujo.domain.queues import RunKind
from flujo.domain.run import Move, RunCondition, RunQuery, RunStatus, Write
from flujo.exceptions import FlujoError, ResumeConflict
from flujo.governance.logs import logger
from flujo.governance.sink import GATE
from flujo.services.lifetime import within
from flujo.services.runs.execution import settled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from typing import Any

    from flujo.domain.journal import RunId
    from flujo.domain.ports import Sink
    from flujo.domain.run import RunRecord
    from flujo.domain.store import StateStore
    from flujo.services.runs.queues import WorkerCheck
    from flujo.services.runs.service import RunService

GRACE_S = 5.0
"""How long a closing process lets its tasks continue, before it leaves them to recovery."""

MAX_EVALUATIONS = 4
"""How many evaluations an event loop executes at once: a run with many scored steps must slow no other."""

MAX_RECOVERIES = 3
"""How often a task may lose its process before a command that adopts it parks it."""

_UNATTENDED = (RunCondition.ORPHANED, RunStatus.ACCEPTED, RunStatus.PAUSED, RunStatus.WAITING)

log = logger("flujo.recovery")


@dataclass(frozen=True, slots=True)
class _Executed:
    """A task in execution."""

    work: asyncio.Task[None]
    parent: RunId
    is_evaluation: bool


class BackgroundTasks:
    """Executes background tasks, each in an asyncio task of the event loop that launched it.

    Args:
        store: has the runs.
        service_of: returns the service that executes a task.
        workers: reports tasks in a queue that no worker serves.
        sink: gets the events of all tasks.
    """

    def __init__(
        self,
        store: StateStore,
        service_of: Callable[[RunRecord], Awaitable[RunService]],
        workers: WorkerCheck,
        sink: Sink | None = None,
    ) -> None:
        self._store = store
        self._workers = workers
        self._service_of = service_of
        self._sink = sink
        self._renew()
        renew_in_children(self, type(self)._renew)

    def _renew(self) -> None:
        """Forget the tasks of the parent process; called in a forked child."""
        self._executed: dict[RunId, _Executed] = {}
        self._places: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    def begin(self, task_id: RunId, parent: RunId, queue: str | None) -> None:
        """Execute a task that this process has launched, and whose lease it has; called inside the loop.

        One in a queue is left to a worker; when none is alive, the log `flujo.runs` reports it.
        """
        if queue is not None:
            work = self._workers.look(self._store, task_id, queue)
        elif _is_evaluation(task_id):
            work = self._evaluated(task_id)
        else:
            work = self._launched(task_id)
        self._start(task_id, parent, work)

    async def adopt(self, parent: RunId) -> None:
        """Resume the tasks of a run that no process executes, and that wait for nothing."""
        found = await self._store.runs(
            RunQuery(parent=parent, kinds=(RunKind.TASK, RunKind.ITEM), statuses=_UNATTENDED, limit=1000)
        )
        for task in found:
            if task.run_id not in self._executed and task.queued is None and await self._is_free(task):
                self._start(task.run_id, parent, self._adopted(task))

    async def _is_free(self, task: RunRecord) -> bool:
        """Return whether a task can be resumed now: it was cut off, or its pause is settled."""
        if task.status not in (RunStatus.PAUSED, RunStatus.WAITING):
            return True
        return not any(pause.is_open for pause in await self._store.pauses(task.run_id))

    def executing(self, parent: RunId) -> list[asyncio.Task[None]]:
        """Return the asyncio tasks of this loop that execute tasks of a run."""
        own = [each.work for each in self._here() if each.parent == parent and not each.is_evaluation]
        return [work for work in own if not work.done()]

    @asynccontextmanager
    async def stay(self) -> AsyncIterator[None]:
        """After the block, wait until all tasks have ended or paused; an error releases them at once.

        Evaluations continue until the workspace closes, so that the answer of a run does not wait for them.
        """
        try:
            yield
            await self._tasks_settled()
        except BaseException:
            await self.release()
            raise

    async def settled(self, grace_s: float = GRACE_S) -> None:
        """Wait until the tasks of this event loop, and the tasks that these launch, have ended or paused.

        Evaluations are waited for no longer than `grace_s` seconds after the last task.
        """
        await self._tasks_settled()
        await self._wait(grace_s)

    async def _tasks_settled(self) -> None:
        while executed := [each.work for each in self._here() if not each.is_evaluation]:
            await asyncio.wait(executed)

    async def aclose(self, grace_s: float = GRACE_S) -> None:
        """Let all tasks continue for a while, then release the rest for recovery. Idempotent."""
        loops = {each.work.get_loop() for each in self._executed.values()}
        await asyncio.gather(*(within(loop, lambda: self._close_here(grace_s)) for loop in loops))

    async def release(self) -> None:
        """Release the tasks of this event loop for recovery."""
        await self._close_here(0)

    async def _close_here(self, grace_s: float) -> None:
        await self._wait(grace_s)
        while left := [each.work for each in self._here()]:
            for work in left:
                work.cancel()
            await asyncio.wait(left)

    async def _wait(self, grace_s: float) -> None:
        now = asyncio.get_running_loop().time
        until = now() + grace_s
        while (executed := [each.work for each in self._here()]) and (left_s := until - now()) > 0:
            await asyncio.wait(executed, timeout=left_s)

    def _here(self) -> list[_Executed]:
        loop = asyncio.get_running_loop()
        return [each for each in self._executed.values() if each.work.get_loop() is loop]

    def _start(self, task_id: RunId, parent: RunId, work: Coroutine[Any, Any, None]) -> None:
        executed = asyncio.create_task(work, name=f"flujo-task-{task_id}")
        self._executed[task_id] = _Executed(executed, parent, _is_evaluation(task_id))
        executed.add_done_callback(lambda _: self._executed.pop(task_id, None))

    async def _evaluated(self, run_id: RunId) -> None:
        """Execute a run that evaluates, when fewer than `MAX_EVALUATIONS` are executed."""
        places = self._places.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(MAX_EVALUATIONS))
        try:
            await places.acquire()
        except asyncio.CancelledError:
            await settled(self._release(run_id))
            raise
        try:
            await self._launched(run_id)
        finally:
            places.release()

    async def _launched(self, task_id: RunId) -> None:
        what = "evaluation" if _is_evaluation(task_id) else "background task"
        sink = None if _is_evaluation(task_id) else self._sink
        try:
            record = await self._store.run(task_id)
            service = await self._service_of(record)
            await service.runtime.binding.prepare()
        except BaseException as error:
            await settled(self._release(task_id))
            if not isinstance(error, Exception):
                raise
            _log(task_id, error)
            return
        try:
            result = await service.execute_launched(record, sink=sink)
            if result.status is RunStatus.FAILED and result.error is not None:
                reason = GATE.text(f"{result.error.message} [{result.error.code}]")
                log.warning("%s %s has failed: %s", what, task_id, reason)
        except Exception as error:  # noqa: BLE001 - an error of one task must not end the others
            _log(task_id, error)

    async def _release(self, task_id: RunId) -> None:
        """Release the lease of a launched task whose execution has not begun."""
        try:
            await self._store.write(Write(run_id=task_id, fence=1, move=Move(status=RunStatus.RUNNING)))
        except FlujoError:
            self._store.let_go(task_id)

    async def _adopted(self, task: RunRecord) -> None:
        try:
            service = await self._service_of(task)
            await service.recover(task.run_id, max_recoveries=MAX_RECOVERIES, sink=self._sink)
        except ResumeConflict:
            log.debug("task %s: another process was faster", task.run_id)
        except Exception as error:  # noqa: BLE001 - as above
            _log(task.run_id, error)


def _is_evaluation(run_id: RunId) -> bool:
    return run_id.startswith(EVALUATION_ID)


def _log(task_id: RunId, error: Exception) -> None:
    code = f" [{error.code}]" if isinstance(error, FlujoError) else ""
    what = "evaluation" if _is_evaluation(task_id) else "background task"
    log.warning("%s %s is left to recovery: %s", what, task_id, GATE.text(f"{error}{code}"))
    log.debug("%s %s", what, task_id, exc_info=error)
