"""Schedules: when workers start runs of a blueprint, and which of the times that are due they fire."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from flujo.domain.chains import first_of
from flujo.domain.cron import newest_times, times_after

CatchUp = Literal["none", "last", "all"]
Overlap = Literal["skip", "queue", "allow"]

MOST_MISSED = 100
"""How many missed times `catch_up: all` fires; older ones are skipped."""

GRACE_S = 60.0
"""How late a time may be fired with `catch_up: none`; one that is later is missed."""

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")
"""The names of schedules: the ids of their runs begin with them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When a blueprint is run, and with what. Times of day are those of `timezone`."""

    cron: str
    """Five fields: minute, hour, day of month, month, day of week."""
    name: str = ""
    """The name of the schedule; empty for the name of its pipeline."""
    timezone: str = "UTC"
    """A name of the IANA database."""
    catch_up: CatchUp = "last"
    """Which of the times that passed while no worker ran are fired."""
    overlap: Overlap = "skip"
    """What happens at a time when an earlier run of the schedule has not ended."""
    jitter_s: float = 0.0
    """How many seconds a run is delayed at most; the delay of a time is always the same."""
    input: Any = None
    """The input of its runs, as JSON data."""
    context: Mapping[str, Any] = field(default_factory=dict)
    """The fields that the context of its runs starts with."""
    queue: str | None = None
    """The queue of its runs; None for the worker that fires them."""
    priority: int = 0
    """The priority of its runs in the queue, from -1,000,000 to 1,000,000."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The metadata of its runs, beside `schedule` with the name of the schedule."""

    def after(self, at: float) -> float | None:
        """Return the next time after a moment; None when there is none in the next 50 years."""
        return next(times_after(self.cron, self.timezone, at), None)

    def fires_at(self, time: float) -> float:
        """Return the moment at which a time is fired: with its jitter, and before the next time."""
        if not self.jitter_s:
            return time
        longest = min(self.jitter_s, (self.after(time) or time + self.jitter_s) - time)
        digest = hashlib.sha256(f"{self.name}|{time:.0f}".encode()).digest()
        return time + longest * int.from_bytes(digest[:6]) / 2**48


@dataclass(frozen=True, slots=True)
class Firing:
    """What is to be done about a schedule now."""

    time: float | None
    """The time for which a run starts; None when every due time is skipped."""
    next_at: float | None
    """The next time after it; None when the schedule has ended."""
    skips: bool
    """Whether earlier due times are skipped."""
    last_at: float
    """The last time that is decided by this."""


def due(schedule: Schedule, next_at: float, now: float, *, grace_s: float = GRACE_S) -> Firing | None:
    """Return which due time of a schedule is fired; None when none is due.

    Of several due times, `catch_up: all` fires the oldest of the newest `MOST_MISSED` first. Then the next
    look finds the others.

    Args:
        schedule: with its own name.
        next_at: its first time that is not decided.
        now: by the store's clock.
        grace_s: how late a time may be fired with `catch_up: none`.
    """
    times = newest_times(schedule.cron, schedule.timezone, next_at, now, MOST_MISSED + 1)
    while times and schedule.fires_at(times[-1]) > now:
        times.pop()
    if not times:
        return None
    times = times[-MOST_MISSED:]
    chosen = times[0] if schedule.catch_up == "all" else times[-1]
    is_missed = schedule.catch_up == "none" and now - schedule.fires_at(chosen) > grace_s
    return Firing(
        time=None if is_missed else chosen,
        next_at=schedule.after(chosen),
        skips=is_missed or chosen > next_at,
        last_at=chosen,
    )


_INSTANT = "%Y%m%dT%H%M%SZ"


def run_id_of(name: str, time: float) -> str:
    """Return the id of the run for a time of a schedule: `nightly-20261128T023000Z`."""
    return f"{name}-{datetime.fromtimestamp(time, UTC).strftime(_INSTANT)}"


def is_run_of(name: str, run_id: str) -> bool:
    """Return whether an id is that of a run of a schedule, or of one that continues it."""
    return re.fullmatch(rf"{re.escape(name)}-\d{{8}}T\d{{6}}Z", first_of(run_id), re.ASCII) is not None
