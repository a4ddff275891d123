"""Schedules as a store keeps them, and the changes that it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.run import RunStatus
from flujo.domain.schedules import GRACE_S, Overlap, Schedule, run_id_of

if TYPE_CHECKING:
    from flujo.domain.acts import Act
    from flujo.domain.journal import RunId
    from flujo.domain.run import NewRun

NOT_ENDED = (
    RunStatus.ACCEPTED,
    RunStatus.RUNNING,
    RunStatus.PAUSED,
    RunStatus.WAITING,
    RunStatus.INTERRUPTED,
    RunStatus.PARKED,
)
"""The statuses of a run that `overlap` waits for."""


def definition(schedule: Schedule, pipeline: str, project: str) -> bytes:
    """Return a schedule as canonical JSON, with its name, its pipeline and its project."""
    said: dict[str, Any] = {each.name: getattr(schedule, each.name) for each in fields(schedule)}
    said |= {"name": schedule.name or pipeline, "pipeline": pipeline, "project": project}
    return canonical.encode(said, what="schedule")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRecord:
    """A schedule as a store keeps it. Times are seconds since the epoch."""

    name: str
    definition: bytes
    """What the function `definition` returns."""
    closure: str
    """What its runs pin."""
    is_paused: bool = False
    next_at: float | None = None
    """The first time that is not decided; None when there is no further one."""
    last_at: float | None = None
    """The last time that was decided: fired or skipped."""
    last_run: RunId | None = None
    """The run that was started last."""
    updated_at: float = 0.0
    """When the row last changed, by the store's clock."""

    @property
    def digest(self) -> str:
        """The digest of the definition."""
        return canonical.digest(self.definition)

    @property
    def pipeline(self) -> str:
        """The pipeline of its runs."""
        return str(canonical.decode(self.definition)["pipeline"])

    @property
    def project(self) -> str:
        """The name of the project that defines it."""
        return str(canonical.decode(self.definition)["project"])

    @property
    def schedule(self) -> Schedule:
        """The schedule that the definition describes; what only a newer version knows is left out."""
        said = canonical.decode(self.definition)
        return Schedule(**{each.name: said[each.name] for each in fields(Schedule) if each.name in said})

    def is_late(self, now: float) -> bool:
        """Return whether a time has passed long ago, and no worker has fired it."""
        if self.is_paused or self.next_at is None:
            return False
        return self.schedule.fires_at(self.next_at) + 2 * GRACE_S < now

    @property
    def has_skipped(self) -> bool:
        """Whether the last time was skipped."""
        last = self.last_at
        return last is not None and self.last_run != run_id_of(self.name, last)


@dataclass(frozen=True, slots=True)
class Schedules:
    """The schedules of a store by name, and its clock at the time of reading."""

    now: float
    records: Sequence[ScheduleRecord] = ()

    def named(self, name: str) -> ScheduleRecord | None:
        """Return the schedule of a name."""
        return next((record for record in self.records if record.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleChange:
    """One change of a schedule, made in one transaction if the schedule is still what `before` says."""

    before: ScheduleRecord | None
    """As it was read; None for a schedule that does not exist."""
    after: ScheduleRecord | None
    """As it is then; None to delete it."""
    run: NewRun | None = None
    """A run that is accepted with the change."""
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    """What the run needs: digest → bytes."""
    overlap: Overlap = "allow"
    """`skip`: without the run, if an earlier one has not ended. `queue`: then nothing is changed."""
    act: Act | None = None
    """Recorded with the change, unless its run existed already."""

    @property
    def name(self) -> str:
        """The schedule's name."""
        there = self.before or self.after
        return "" if there is None else there.name


class ScheduleOutcome(StrEnum):
    """What became of a change."""

    DONE = "done"
    """It was made; a run of it is accepted."""
    LOST = "lost"
    """Another process has changed the schedule; nothing was changed."""
    EXISTED = "existed"
    """It was made, and the run's id existed already."""
    SKIPPED = "skipped"
    """It was made without its run, because an earlier run has not ended."""
    BLOCKED = "blocked"
    """Nothing was changed, because an earlier run has not ended."""


@dataclass(frozen=True, slots=True)
class Changed:
    """The outcome of a change, and the run that has not ended, if it decided."""

    outcome: ScheduleOutcome
    blocker: RunId | None = None
