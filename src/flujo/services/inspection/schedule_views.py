"""What lists of schedules show, and what `apply` changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from flujo.domain import canonical
from flujo.exceptions import ScheduleConflict

if TYPE_CHECKING:
    from flujo.domain.schedule_records import ScheduleRecord
    from flujo.domain.schedules import Schedule
    from flujo.services.runs.schedule_definitions import Defined

State = Literal["active", "paused", "late", "ended", "differs", "not applied", "not in files"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleView:
    """A schedule as the database has it, or as the files define it when the database does not have it."""

    name: str
    pipeline: str
    schedule: Schedule
    state: State
    """`active`; `paused`; `late`: a time has passed and no worker has fired it; `ended`: there is no further
    time; `differs`: workers with these files do not fire it before `apply`; `not applied`: only in the files;
    `not in files`: only in the database."""
    place: str | None
    """The file that defines it, or `file:line`; None when none does."""
    next_at: float | None
    """The next time, in seconds since the epoch."""
    last_at: float | None = None
    """The last time that was fired or skipped."""
    last_run: str | None = None
    """The run that was started last by a time."""
    skipped: bool = False
    """Whether the last time was skipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What `apply` does, or would do, with one schedule."""

    name: str
    change: Literal["added", "changed", "removed", "unchanged"]
    keys: tuple[str, ...] = ()
    """What differs: keys of the schedule, and `files` for those that its runs pin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Triggered:
    """The run that a trigger has started."""

    run_id: str
    existed: bool
    """Whether the schedule had a run for this time already; then none was started."""


def view_of(defined: Defined | None, record: ScheduleRecord | None, now: float) -> ScheduleView:
    """Return a schedule of the files, of the database, or of both."""
    place = None if defined is None else defined.place
    if record is None and defined is not None:
        return ScheduleView(
            name=defined.name,
            pipeline=defined.pipeline.name,
            schedule=defined.schedule,
            state="not applied",
            place=place,
            next_at=defined.schedule.after(now),
        )
    assert record is not None  # noqa: S101 - for the type checker; there is one of the two
    return ScheduleView(
        name=record.name,
        pipeline=record.pipeline,
        schedule=record.schedule,
        state=_state(defined, record, now),
        place=place,
        next_at=record.next_at,
        last_at=record.last_at,
        last_run=record.last_run,
        skipped=record.has_skipped,
    )


def _state(defined: Defined | None, record: ScheduleRecord, now: float) -> State:
    if defined is None:
        return "not in files"
    if not defined.fits(record):
        return "differs"
    if record.is_paused:
        return "paused"
    return "late" if record.is_late(now) else "ended" if record.next_at is None else "active"


def applied(name: str, defined: Defined | None, before: ScheduleRecord | None, project: str) -> Applied:
    """Return what `apply` does with a schedule of a project.

    Raises:
        ScheduleConflict: the schedule belongs to another project.
    """
    if defined is None:
        return Applied(name=name, change="removed")
    if before is None:
        return Applied(name=name, change="added")
    if before.project != project:
        raise ScheduleConflict(
            f"schedule {name!r} belongs to project {before.project!r}, which shares this database",
            hint="give one of them another `name`, or keep the name of the project: "
            f"`[project] name = {before.project!r}`",
            schedule=name,
        )
    own = defined.record()
    old, new = canonical.decode(before.definition), canonical.decode(own.definition)
    keys = [key for key in new if old.get(key) != new[key]]
    keys += ["files"] if before.closure != own.closure else []
    return Applied(name=name, change="changed" if keys else "unchanged", keys=tuple(keys))


def after_apply(defined: Defined, before: ScheduleRecord | None, now: float) -> ScheduleRecord:
    """Return what the database has after `apply`."""
    own, schedule = defined.record(), defined.schedule
    if before is None:
        return replace(own, next_at=schedule.after(now))
    old = before.schedule
    is_moved = (old.cron, old.timezone) != (schedule.cron, schedule.timezone)
    next_at = schedule.after(now) if is_moved else before.next_at
    return replace(before, definition=own.definition, closure=own.closure, next_at=next_at)
