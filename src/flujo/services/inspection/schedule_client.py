"""Lists, applies, pauses and triggers schedules, for the command line and programs."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.acts import OF_SCHEDULES, Act, ActQuery, Verb, Via
from flujo.domain.commands import command
from flujo.domain.cron import times_after, zone
from flujo.domain.schedule_records import ScheduleChange, ScheduleOutcome, Schedules
from flujo.domain.wording import repr_short, suggest
from flujo.exceptions import DatabaseMissing, ScheduleBusy, ScheduleConflict, ScheduleNotFound, SettingsError
from flujo.services.given import text, text_or_none, whole_number
from flujo.services.inspection.schedule_views import (
    Applied,
    ScheduleView,
    Triggered,
    after_apply,
    applied,
    view_of,
)
from flujo.services.lifetime import ClosedAtExit, Lifetime
from flujo.services.project.project import find_project
from flujo.services.project.system import SystemClock, actor
from flujo.services.runs.run_services import RunServices
from flujo.services.runs.schedule_definitions import defined_schedules
from flujo.services.runs.schedules import scheduled_run
from flujo.services.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from flujo.domain.acts import Actor
    from flujo.domain.schedule_records import Changed, ScheduleRecord
    from flujo.domain.schedules import Schedule
    from flujo.services.runs.schedule_definitions import Defined

    Change = Callable[[ScheduleRecord, float], ScheduleChange | None]
    """Returns the change of a schedule as it is now, given the store's time; None when it needs none."""

_TRIES = 10
"""How often a change is tried again after another process has changed the schedule."""

_MOST_NEXT = 1000


class ScheduleClient(ClosedAtExit):
    """Lists, applies, pauses and triggers the schedules of a project."""

    def __init__(self, workspace: Workspace | None = None, *, by: str | None = None) -> None:
        """Set the project; opens nothing yet.

        Args:
            workspace: the project, which the caller closes. Default: the project of this folder.
            by: the name recorded for acts of this client. Default: the user of this process.
        """
        if workspace is not None and not isinstance(workspace, Workspace):
            raise SettingsError(f"`workspace` is {repr_short(workspace)}, not a `Workspace`")
        self._by = text_or_none(by, "by")
        self._via = Via.API
        self._workspace = workspace
        self._lifetime = Lifetime("this ScheduleClient")

    @classmethod
    def for_commands(cls, workspace: Workspace, who: Actor | None = None) -> ScheduleClient:
        """Return the client of a command, whose acts are those of `who`."""
        made = cls(workspace, by=None if who is None else who.by)
        made._via = Via.CLI
        return made

    async def aclose(self) -> None:
        """Close what this client opened; every later call raises `RunnerClosed`. Idempotent."""
        await self._lifetime.close()

    async def list_schedules(self) -> list[ScheduleView]:
        """Return the schedules of the database and of the files, by name.

        Raises:
            SettingsError | ScheduleConflict | BlueprintError: the files do not define schedules correctly.
        """
        defined, found = await self._defined(), await self._stored()
        names = sorted({*defined, *(record.name for record in found.records)})
        return [view_of(defined.get(name), found.named(name), found.now) for name in names]

    async def get(self, name: str) -> ScheduleView:
        """Return one schedule.

        Raises:
            ScheduleNotFound: there is none of this name.
        """
        views = await self.list_schedules()
        found = next((view for view in views if view.name == text(name, "name")), None)
        if found is None:
            raise _unknown(name, [view.name for view in views])
        return found

    async def acts(self, name: str, limit: int = 20) -> list[Act]:
        """Return who changed a schedule, the newest act first."""
        store = await (await self._opened()).store()
        return await store.recorded_acts(
            ActQuery(object=text(name, "name"), verbs=OF_SCHEDULES, limit=whole_number(limit, "limit"))
        )

    async def next_times(self, name: str, count: int = 5) -> list[datetime]:
        """Return the next times of a schedule in its time zone, from its next time on.

        Raises:
            ScheduleNotFound: there is none of this name.
        """
        if not 1 <= whole_number(count, "count") <= _MOST_NEXT:
            raise SettingsError(f"`count` is {count}", hint=f"ask for 1 to {_MOST_NEXT} times")
        view = await self.get(name)
        if view.next_at is None:
            return []
        schedule, where = view.schedule, zone(view.schedule.timezone)
        times = times_after(schedule.cron, schedule.timezone, view.next_at - 1e-3)
        return [datetime.fromtimestamp(each, where) for each in islice(times, count)]

    async def apply(self, *, dry_run: bool = False, by: str | None = None) -> list[Applied]:
        """Make the database's schedules those of the files: add, change and remove.

        A schedule keeps whether it is paused. One of a changed cron line or time zone continues with its next
        time from now. Schedules of projects with another `[project] name` are left alone.

        Args:
            dry_run: only return what would be done.
            by: who applies, instead of the client's `by`.

        Raises:
            ScheduleConflict: a schedule of this name belongs to another project.
            SettingsError | BlueprintError | LockMismatch: the files cannot be used.
        """
        workspace, defined = await self._opened(), await self._defined()
        there = await self._stored() if dry_run else await (await workspace.store()).schedules()
        project, done = workspace.project.settings.project.name, []
        own = {record.name for record in there.records if record.project == project}
        for name in sorted({*defined, *own}):
            each, before = defined.get(name), there.named(name)
            what = applied(name, each, before, project)
            done.append(what)
            if dry_run or what.change == "unchanged":
                continue
            verb = Verb.SCHEDULE_REMOVE if each is None else Verb.SCHEDULE_APPLY
            act = self._act(verb, name, by, before)
            after = None if each is None else after_apply(each, before, there.now)
            change = ScheduleChange(before=before, after=after, act=act)
            changed = await (await workspace.store()).change_schedule(change)
            if changed.outcome is ScheduleOutcome.LOST:
                raise _moved(name)
        return done

    async def pause(self, name: str, *, by: str | None = None) -> None:
        """Fire no time of a schedule until it is resumed. A paused schedule stays paused.

        Raises:
            ScheduleNotFound: the database has none of this name.
        """

        def change(record: ScheduleRecord, _now: float) -> ScheduleChange | None:
            if record.is_paused:
                return None
            act = self._act(Verb.SCHEDULE_PAUSE, name, by)
            return ScheduleChange(before=record, after=replace(record, is_paused=True), act=act)

        await self._change(name, change)

    async def resume(self, name: str, *, by: str | None = None) -> None:
        """Fire a paused schedule again, from its next time on; times during the pause are not fired.

        Raises:
            ScheduleNotFound: the database has none of this name.
        """

        def change(record: ScheduleRecord, now: float) -> ScheduleChange | None:
            if not record.is_paused:
                return None
            after = replace(record, is_paused=False, next_at=record.schedule.after(now))
            return ScheduleChange(before=record, after=after, act=self._act(Verb.SCHEDULE_RESUME, name, by))

        await self._change(name, change)

    async def trigger(
        self, name: str, at: str | datetime | None = None, *, by: str | None = None
    ) -> Triggered:
        """Accept a run of a schedule now; a worker executes it. The times of the schedule stay.

        Args:
            name: the schedule; it may be paused.
            at: the time that the run is for, for instance one that was skipped; a time without a zone is
                one in the schedule's. There is one run for each time. Default: now.
            by: who triggers, instead of the client's `by`.

        Raises:
            ScheduleNotFound: there is none of this name.
            ScheduleConflict: the database has another definition than the files.
            ScheduleBusy: an earlier run has not ended, and `overlap` is not `allow`.
            InputRejected: the input or the context does not fit.
        """
        workspace, defined = await self._opened(), (await self._defined()).get(text(name, "name"))
        there = await (await workspace.store()).schedules()
        record = _required(there, name)
        if defined is None or not defined.fits(record):
            raise ScheduleConflict(
                f"schedule {name!r} in the database is not the one that these files define",
                hint=f"`{command('flujo', 'schedules', 'apply')}` makes it that",
                schedule=name,
            )
        time = there.now if at is None else _time(at, defined.schedule)
        service = defined.service(await RunServices.of_project(workspace))
        run = await scheduled_run(service, defined, time)

        def change(record: ScheduleRecord, _now: float) -> ScheduleChange:
            return ScheduleChange(
                before=record,
                after=record,
                run=run,
                blobs=service.blobs,
                overlap="allow" if defined.schedule.overlap == "allow" else "queue",
                act=replace(self._act(Verb.SCHEDULE_TRIGGER, name, by), after=canonical.encode(run.run_id)),
            )

        changed = await self._change(name, change)
        if changed is not None and changed.outcome is ScheduleOutcome.BLOCKED:
            raise ScheduleBusy(
                f"run {changed.blocker} of schedule {name!r} has not ended",
                hint="wait for it or cancel it; "
                f"`{command('flujo', 'tasks', 'show', changed.blocker or '')}` shows it",
                schedule=name,
                run_id=changed.blocker,
            )
        existed = changed is not None and changed.outcome is ScheduleOutcome.EXISTED
        return Triggered(run_id=run.run_id, existed=existed)

    async def _stored(self) -> Schedules:
        """Return the schedules of the database; none when it does not exist and may not be created."""
        try:
            return await (await (await self._opened()).store()).schedules()
        except DatabaseMissing:
            return Schedules(SystemClock().now())

    async def _change(self, name: str, change: Change) -> Changed | None:
        """Change a schedule as it is now; try again when another process was faster."""
        store = await (await self._opened()).store()
        for _ in range(_TRIES):
            there = await store.schedules()
            wanted = change(_required(there, text(name, "name")), there.now)
            if wanted is None:
                return None
            changed = await store.change_schedule(wanted)
            if changed.outcome is not ScheduleOutcome.LOST:
                return changed
        raise _moved(name)

    def _act(self, verb: Verb, name: str, by: str | None, before: ScheduleRecord | None = None) -> Act:
        who = actor(self._by if by is None else by, self._via)
        return Act(verb=verb, actor=who, object=name, before=None if before is None else before.definition)

    async def _defined(self) -> Mapping[str, Defined]:
        return defined_schedules(await self._opened())

    async def _opened(self) -> Workspace:
        self._lifetime.require_open()
        if self._workspace is None:
            async with self._lifetime.opening() as exits:
                if self._workspace is None:
                    opened = Workspace(find_project(Path.cwd()))
                    self._workspace = await exits.enter_async_context(opened)
        return self._workspace


def _time(at: Any, schedule: Schedule) -> float:
    """Return a moment in seconds since the epoch; one without a zone is one of the schedule's."""
    try:
        given = datetime.fromisoformat(at) if isinstance(at, str) else at
    except ValueError:
        given = None
    if not isinstance(given, datetime):
        hint = "write it like 2026-11-28T02:30, or with a zone like 2026-11-28T01:30Z"
        raise SettingsError(f"{repr_short(at)} is not a time", hint=hint)
    there = given if given.tzinfo is not None else given.replace(tzinfo=zone(schedule.timezone))
    return float(int(there.timestamp()))


def _required(there: Schedules, name: str) -> ScheduleRecord:
    record = there.named(name)
    if record is None:
        raise _unknown(name, [each.name for each in there.records])
    return record


def _unknown(name: str, known: list[str]) -> ScheduleNotFound:
    apply = command("flujo", "schedules", "apply")
    hint = suggest(name, known, what="there are") or f"`{apply}` adds the schedules of the files"
    return ScheduleNotFound(f"no schedule is called {name!r}", hint=hint, schedule=name)


def _moved(name: str) -> ScheduleConflict:
    return ScheduleConflict(
        f"another process changes schedule {name!r} at the same time", hint="try again", schedule=name
    )
