"""Which changes of schedules are made: the same rules for SQL and for memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flujo.domain.schedule_records import NOT_ENDED, Changed, ScheduleOutcome
from flujo.domain.schedules import is_run_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flujo.domain.journal import RunId
    from flujo.domain.run import RunStatus
    from flujo.domain.schedule_records import ScheduleChange, ScheduleRecord


def blocker(change: ScheduleChange, runs: Iterable[tuple[RunId, RunStatus]]) -> RunId | None:
    """Return the run of this schedule that has not ended, the oldest first, except the one of the change."""
    own = None if change.run is None else change.run.run_id
    found = (
        run_id
        for run_id, status in runs
        if run_id != own and status in NOT_ENDED and is_run_of(change.name, run_id)
    )
    return min(found, default=None)


def judged(change: ScheduleChange, there: ScheduleRecord | None, blocker: RunId | None) -> Changed:
    """Return what becomes of a change of a schedule, as it is stored, before its run is accepted."""
    if there != change.before:
        return Changed(ScheduleOutcome.LOST)
    if change.run is None or change.overlap == "allow" or blocker is None:
        return Changed(ScheduleOutcome.DONE)
    outcome = ScheduleOutcome.SKIPPED if change.overlap == "skip" else ScheduleOutcome.BLOCKED
    return Changed(outcome, blocker)


def written(change: ScheduleChange, outcome: ScheduleOutcome) -> ScheduleRecord | None:
    """Return the schedule as a change leaves it; None when it is deleted."""
    before, after = change.before, change.after
    if outcome is ScheduleOutcome.SKIPPED and before is not None and after is not None:
        return replace(after, last_run=before.last_run)
    return after
