"""Fires schedules: starts their runs at the due times, each once, whichever worker is first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flujo.domain.commands import command
from flujo.domain.journal import RunId
from flujo.domain.queues import Queued
from flujo.domain.schedule_records import ScheduleChange, ScheduleOutcome
from flujo.domain.schedules import GRACE_S, due, run_id_of
from flujo.exceptions import FlujoError, RunnerClosed, StateError
from flujo.governance.logs import logger
from flujo.services.runs.schedule_definitions import defined_schedules

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from flujo.domain.run import NewRun
    from flujo.domain.schedule_records import Changed, ScheduleRecord, Schedules
    from flujo.domain.schedules import Firing, Schedule
    from flujo.domain.store import ScheduleStore
    from flujo.services.runs.run_services import RunServices
    from flujo.services.runs.schedule_definitions import Defined
    from flujo.services.runs.service import RunService
    from flujo.services.workspace import Workspace

    Tell = Callable[[str, str, str], None]


log = logger("flujo.schedules")


class Scheduler:
    """Fires the schedules of a project that the database has as this process's files define them.

    Args:
        workspace: the project. Its files are read at the first look.
        services: returns what accepts runs.
        tell: called with `fired`, a run and the name of its schedule, and with `schedule`, nothing and a
            sentence about a schedule; each sentence once.
        every_s: how often `look` is called.
    """

    def __init__(
        self,
        workspace: Workspace,
        services: Callable[[], Awaitable[RunServices]],
        tell: Tell,
        *,
        every_s: float,
    ) -> None:
        self._workspace = workspace
        self._services = services
        self._tell = tell
        self._grace_s = max(GRACE_S, 2 * every_s)
        self._defined: Mapping[str, Defined] | None = None
        self._made: dict[str, RunService] = {}
        self._told: set[str] = set()

    async def look(self) -> int:
        """Fire what is due; return how many runs were started. The first look adds missing schedules.

        An error is reported, once: it must not stop the recovery of runs. The next look tries again.
        """
        try:
            return await self._look()
        except RunnerClosed:
            raise
        except FlujoError as error:
            self._say(f"no schedule is fired: {error} [{error.code}]")
        except Exception as error:  # code of the project, such as a function that makes a pipeline
            log.debug("schedules", exc_info=error)
            self._say(f"no schedule is fired: {type(error).__name__}: {error}")
        return 0

    async def _look(self) -> int:
        if self._defined is not None and not self._defined:
            return 0
        store = await self._workspace.store()
        there = await store.schedules()
        if self._defined is None:
            self._defined = defined_schedules(self._workspace, self._could_not_read)
            if await self._add_missing(store, there):
                there = await store.schedules()
        fired = 0
        while started := await self._round(store, there):
            fired += started
            there = await store.schedules()  # of several times that were missed, each look fires one
        return fired

    async def settled(self) -> None:
        """Do nothing: what `look` has begun is done when it returns."""

    async def aclose(self) -> None:
        """Do nothing: the workspace is closed by its owner."""

    async def _add_missing(self, store: ScheduleStore, there: Schedules) -> bool:
        missing = [each for name, each in (self._defined or {}).items() if there.named(name) is None]
        for each in missing:
            await store.change_schedule(
                ScheduleChange(before=None, after=with_next(each.record(), each.schedule, there.now))
            )
        return bool(missing)

    async def _round(self, store: ScheduleStore, there: Schedules) -> int:
        """Fire at most one time of each schedule; return how many were fired."""
        started = 0
        for record in there.records:
            defined = self._matching(record)
            if defined is None or record.is_paused or record.next_at is None:
                continue
            firing = due(defined.schedule, record.next_at, there.now, grace_s=self._grace_s)
            if firing is not None:
                started += await self._fired(store, defined, record, firing)
        return started

    def _matching(self, record: ScheduleRecord) -> Defined | None:
        """Return this process's definition of a stored schedule; None, and say why, when it differs."""
        defined = (self._defined or {}).get(record.name)
        if defined is not None and defined.fits(record):
            return defined
        apply = command("flujo", "schedules", "apply")
        why = "is not in its files" if defined is None else f"differs from {defined.place}"
        does = "removes" if defined is None else "updates"
        self._say(f"this worker does not fire {record.name}, which {why}; `{apply}` {does} it")
        return None

    async def _fired(
        self, store: ScheduleStore, defined: Defined, record: ScheduleRecord, firing: Firing
    ) -> bool:
        """Decide one time of a schedule; return whether a run was started."""
        try:
            changed = await self._change(store, defined, record, firing)
        except StateError:
            raise
        except FlujoError as error:
            self._say(f"{defined.name} cannot start a run: {error} [{error.code}]")
            return False
        if firing.skips and changed.outcome not in (ScheduleOutcome.LOST, ScheduleOutcome.BLOCKED):
            self._tell("schedule", "", f"{defined.name} was late: skipped the times that it missed")
        if changed.outcome is ScheduleOutcome.SKIPPED:
            skipped = run_id_of(defined.name, firing.last_at)
            self._tell("schedule", "", f"{skipped} is skipped: run {changed.blocker} has not ended")
        if changed.outcome is not ScheduleOutcome.DONE or firing.time is None:
            return False
        self._tell("fired", run_id_of(defined.name, firing.time), defined.name)
        return True

    async def _change(
        self, store: ScheduleStore, defined: Defined, record: ScheduleRecord, firing: Firing
    ) -> Changed:
        after = replace(record, next_at=firing.next_at, last_at=firing.last_at)
        if firing.time is None:
            return await store.change_schedule(ScheduleChange(before=record, after=after))
        service = await self._service(defined)
        run = await scheduled_run(service, defined, firing.time)
        return await store.change_schedule(
            ScheduleChange(
                before=record,
                after=replace(after, last_run=run.run_id),
                run=run,
                blobs=service.blobs,
                overlap=defined.schedule.overlap,
            )
        )

    async def _service(self, defined: Defined) -> RunService:
        if defined.name not in self._made:
            self._made[defined.name] = defined.service(await self._services())
        return self._made[defined.name]

    def _could_not_read(self, place: str, error: FlujoError) -> None:
        self._say(f"{place} is left out: {error} [{error.code}]")

    def _say(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            self._tell("schedule", "", sentence)


def with_next(record: ScheduleRecord, schedule: Schedule, now: float) -> ScheduleRecord:
    """Return a schedule whose next time is the first one after `now`."""
    return replace(record, next_at=schedule.after(now))


async def scheduled_run(service: RunService, defined: Defined, time: float) -> NewRun:
    """Return the run for a time of a schedule.

    Raises:
        InputRejected: the input or the context does not fit.
    """
    schedule = defined.schedule
    new = await service.new_run(defined.request(run_id_of(defined.name, time)))
    if schedule.queue is not None:
        new = replace(new, queued=Queued(queue=schedule.queue, priority=schedule.priority))
    return replace(new, run_id=RunId(new.run_id))
