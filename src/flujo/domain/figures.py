"""Figures of runs and of model calls over time: their number, status, usage and duration."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from flujo.domain.queues import RunKind
from flujo.domain.reach import EVERYWHERE, Reach
from flujo.domain.run import RunQuery
from flujo.domain.usage import NOTHING, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping


class Every(StrEnum):
    """The lengths of periods."""

    HOUR = "hour"
    DAY = "day"

    @property
    def seconds(self) -> int:
        """The length."""
        return 3600 if self is Every.HOUR else 86400


class FigureGroup(StrEnum):
    """What figures are grouped by."""

    BLUEPRINT = "blueprint"
    """Runs and background tasks, by the name of their blueprint."""
    AGENT = "agent"
    """Model calls, by the agent: attempts of steps with usage, retries included."""
    MODEL = "model"
    """The same, by the model that answered."""

    @property
    def counts_runs(self) -> bool:
        """Whether runs are counted, and not attempts."""
        return self is FigureGroup.BLUEPRINT

    @property
    def keys(self) -> tuple[str, ...]:
        """Where the detail of an entry has the name of its group; a Python object is an agent too."""
        return {FigureGroup.AGENT: ("agent", "call"), FigureGroup.MODEL: ("model",)}.get(self, ())


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureQuery:
    """Which runs the figures are of, and how they are grouped. A run belongs to the time of its start."""

    since: float
    """The earliest start, in seconds since the epoch."""
    until: float
    """The time before which it must be."""
    by: FigureGroup = FigureGroup.BLUEPRINT
    every: Every | None = None
    """The length of a period, in UTC. None: one period for the whole time."""
    pipeline: str | None = None
    reach: Reach = EVERYWHERE

    @property
    def runs(self) -> RunQuery:
        """The condition on the runs."""
        kinds = (RunKind.RUN, RunKind.TASK, RunKind.ITEM)
        return RunQuery(
            kinds=kinds, since=self.since, until=self.until, pipeline=self.pipeline, reach=self.reach
        )

    def period(self, at: float) -> float:
        """Return the start of the period in which a time is."""
        length = None if self.every is None else self.every.seconds
        return self.since if length is None else float(at // length * length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What is known of one group in one period."""

    at: float
    """The start of the period, in seconds since the epoch."""
    name: str
    """The blueprint, the agent or the model; empty when that is not recorded."""
    statuses: Mapping[str, int] = field(default_factory=dict)
    """How many there are, by status."""
    usage: Usage = NOTHING
    p50_s: float | None = None
    """Half of those that have completed took at most this long; None when none has completed."""
    p95_s: float | None = None
    """19 of 20 took at most this long."""

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(self.statuses.values())


def rank(percent: int, count: int) -> int:
    """Return which of `count` ordered values is the percentile, counted from 1 (nearest rank)."""
    return -(-percent * count // 100)
