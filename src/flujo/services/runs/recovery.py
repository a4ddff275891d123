"""Finds expired deadlines and orphaned runs, and resumes them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from flujo.exceptions import FlujoError, ResumeConflict, RunnerClosed, StateError
from flujo.governance.logs import logger
from flujo.governance.sink import GATE
from flujo.services.runs.execution import Stop
from flujo.services.runs.life_limits import end_late
from flujo.services.runs.notices import silent
from flujo.services.runs.waits import Alarm

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from flujo.domain.journal import RunId
    from flujo.domain.ports import StateStore
    from flujo.domain.run import Due, RunRecord
    from flujo.services.project.recovery_policy import RecoveryPolicy
    from flujo.services.runs.notices import NotifierOf

    Tell = Callable[[str, RunId, str], None]

REST_S = 60.0
"""How many seconds a process waits before it retries a run that it could not resume."""

log = logger("flujo.recovery")


class Duty(Protocol):
    """Something that a process does again and again, beside executing runs."""

    async def look(self) -> int:
        """Begin what is due, and return how many pieces of work have begun.

        Raises:
            StateError: the database cannot be read or written.
        """
        ...

    async def settled(self) -> None:
        """Wait until what has begun is done."""
        ...

    async def aclose(self) -> None:
        """Stop. Idempotent."""
        ...


class Recovery:
    """A background task that fires deadlines and resumes orphaned runs. Started once, stopped by `aclose`.

    Args:
        store: returns the store; first called at the first look.
        policy: how often it looks, and how many runs it executes at once.
        take_over: claims and executes a run; raises `ResumeConflict` when another process was faster.
        pipeline: resumes only runs of this pipeline; None for any.
        tell: called for deadlines (`deadline`) and failures (`failed`); writes to the log by default.
        adopts: whether it resumes runs; without, it only fires deadlines.
        others: returns how many of the places of `policy.at_once` are taken by runs that it has not started.
        duties: what else is done at each look: messages are delivered, schedules fired, old events deleted.
        notifier: returns what sends messages about a run that is ended here without being executed.
        isolates: whether suspects are left to processes of their own, instead of being executed here by
            themselves.
    """

    def __init__(
        self,
        store: Callable[[], Awaitable[StateStore]],
        policy: RecoveryPolicy,
        take_over: Callable[[RunId, Stop], Awaitable[object]],
        *,
        pipeline: str | None = None,
        tell: Tell | None = None,
        adopts: bool = True,
        others: Callable[[], int] = lambda: 0,
        duties: Sequence[Duty] = (),
        notifier: NotifierOf = silent,
        isolates: bool = False,
    ) -> None:
        self.without: set[str] = set()
        """Closures that cannot be executed here; their runs are left to other processes."""
        self._store = store
        self._policy = policy
        self._take_over = take_over
        self._pipeline = pipeline
        self._tell = tell or _log
        self._others = others
        self.adopts = adopts
        """Whether it resumes runs; deadlines are fired in any case."""
        self._duties = duties
        self._notifier = notifier
        self._isolates = isolates
        self._watch: asyncio.Task[None] | None = None
        self._alarm = Alarm()
        self._running: dict[RunId, asyncio.Task[None]] = {}
        self._suspect: RunId | None = None
        """The run that was last started by itself."""
        self._stop = Stop()
        self._resting: dict[RunId, float] = {}
        """Runs that could not be resumed here, and the loop's time at which each is retried."""

    @property
    def executing(self) -> int:
        """How many runs it executes now."""
        return len(self._running)

    @property
    def places(self) -> int:
        """How many places its runs take: all of them while a suspect is executed by itself."""
        alone = self._suspect in self._running
        return self._policy.at_once if alone else len(self._running)

    def start(self) -> None:
        """Start the background task, once; call it inside the event loop."""
        if self._watch is None:
            self._watch = asyncio.create_task(self._watch_later(), name="flujo-recovery")

    async def watch(self) -> None:
        """Look for due runs every few seconds, and when this process sends an event, until cancelled."""
        while True:
            try:
                await self.look()
            except RunnerClosed:
                return
            except FlujoError as error:
                log.warning("could not look for runs to resume: %s", error)
            await self._alarm.rest(self._policy.every_s)

    async def look(self) -> int:
        """Fire expired deadlines, and start due runs and duties; return how many were started.

        Raises:
            StateError: the database cannot be read.
        """
        store = await self._store()
        self._alarm.listen(store)
        executed = set(self._running)  # what is read of these runs is old once they have ended
        due = await self._due(store)
        if due.questions or due.overdue:
            await self._fire(store, due)
            due = await self._due(store)  # the runs that waited for these answers can be resumed now
        room = max(0, self._policy.at_once - len(self._running) - self._others()) if self.adopts else 0
        now = asyncio.get_running_loop().time()
        self._resting = {run_id: until for run_id, until in self._resting.items() if until > now}
        busy = {*executed, *self._running, *self._resting}
        fresh = self._chosen(due, busy)[:room]
        for run_id in fresh:
            task = asyncio.create_task(self._attended(run_id), name=f"flujo-recovered-{run_id}")
            self._running[run_id] = task
        return len(fresh) + sum([await duty.look() for duty in self._duties])

    def _chosen(self, due: Due, busy: Collection[RunId]) -> list[RunId]:
        """Return the runs to start: any number that are beyond suspicion, or else one suspect by itself.

        A run is a suspect when it was cut off twice together with others. Alone it shows whether it ends its
        process, and it ends no other run with it.
        """
        if self._suspect in self._running:
            return []
        waiting = [run_id for run_id in due.runs if run_id not in busy]
        clear = [run_id for run_id in waiting if run_id not in due.suspects]
        if clear or self._isolates or self._running or self._others() or not waiting:
            return clear
        self._suspect = waiting[0]
        return waiting[:1]

    async def suspect(self) -> RunId | None:
        """Return a due run that is better executed alone, if there is one and runs are resumed here.

        Raises:
            StateError: the database cannot be read.
        """
        if not self.adopts:
            return None
        due = await self._due(await self._store())
        free = (run_id for run_id in due.runs if run_id in due.suspects and run_id not in self._resting)
        return next(free, None)

    async def take_over_alone(self, run_id: RunId) -> None:
        """Claim and execute one run, and wait for its end."""
        self._running[run_id] = asyncio.create_task(self._attended(run_id), name=f"flujo-recovered-{run_id}")
        await self.settled()

    async def settled(self) -> None:
        """Wait until the started runs have ended, paused or moved, and the duties have been done."""
        while self._running:
            await asyncio.wait(self._running.values())
        for duty in self._duties:
            await duty.settled()

    async def aclose(self) -> None:
        """Stop looking, and release the runs in execution for other processes. Idempotent."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        self._alarm.stop()
        for task in self._running.values():
            task.cancel()
        for duty in self._duties:
            await duty.aclose()
        await self.settled()

    def leave(self, record: RunRecord, error: FlujoError) -> None:
        """Leave the runs of a closure to other processes, because of an error that every run of it gets here.

        Raises:
            FlujoError: the error is that of a database that may answer the next time.
        """
        if isinstance(error, StateError) and error.retryable:
            raise error
        self.without.add(record.closure)

    def rest(self, run_id: RunId) -> None:
        """Leave a run alone for a while."""
        self._resting[run_id] = asyncio.get_running_loop().time() + REST_S

    def _failed(self, run_id: RunId, reason: str) -> None:
        self.rest(run_id)
        self._tell("failed", run_id, reason)

    async def _fire(self, store: StateStore, due: Due) -> None:
        for run_id, pause_id in due.questions:
            pause = await store.expire(run_id, pause_id)
            if pause.is_expired:
                self._tell("deadline", run_id, pause_id)
        for run_id in due.overdue:
            with suppress(ResumeConflict):  # another process was faster
                await end_late(store, run_id, self._notifier)
                self._tell("deadline", run_id, "of the run")

    async def _due(self, store: StateStore) -> Due:
        # Runs executed here may be listed between two claims, so the limit is larger than the free room.
        limit = self._policy.at_once + len(self._running) + len(self._resting)
        return await store.due(pipeline=self._pipeline, without=self.without, limit=limit)

    async def _watch_later(self) -> None:
        # A runner that is used once and closed does not query the database.
        with suppress(FlujoError):
            self._alarm.listen(await self._store())
        await self._alarm.rest(self._policy.every_s)
        await self.watch()

    async def _attended(self, run_id: RunId) -> None:
        try:
            await self._take_over(run_id, self._stop)
        except ResumeConflict:
            log.debug("run %s: another process was faster", run_id)
        except FlujoError as error:
            self._failed(run_id, GATE.text(f"{error} [{error.code}]"))
        except Exception as error:  # an error in one run must not end the recovery of others
            log.debug("run %s", run_id, exc_info=error)
            self._failed(run_id, GATE.text(f"{type(error).__name__}: {error}"))
        finally:
            self._running.pop(run_id, None)


def _log(event: str, run_id: RunId, detail: str) -> None:
    log.log(logging.INFO if event == "deadline" else logging.WARNING, "run %s: %s %s", run_id, event, detail)
