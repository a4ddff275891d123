"""What a run has spent so far, and where; and what is held for requests without a confirmed outcome."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from flujo.domain.paths import StepPath, is_within
from flujo.domain.usage import NOTHING, Usage


class HoldState(StrEnum):
    """What is known of a request that was reserved."""

    HELD = "held"
    """It may be on its way."""
    SETTLED = "settled"
    """What it used stands in an entry of the journal."""
    UNCONFIRMED = "unconfirmed"
    """It may have been made, and its cost stays unknown: it counts at its worst case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """What one attempt of a step may cost beyond what the journal says, at worst.

    It is durable before the first request of the attempt and replaced before each further one, so it also
    has what the attempt has used already. The entry of the attempt settles it in the same commit.
    """

    path: StepPath
    number: int
    """Counts the holds of the step from 1."""
    state: HoldState
    usage: Usage = NOTHING

    @property
    def is_open(self) -> bool:
        """Whether it counts."""
        return self.state is not HoldState.SETTLED


@dataclass(frozen=True, slots=True)
class Spending:
    """What an entry of the journal says about usage and time."""

    path: StepPath
    usage: Usage
    started_at: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class Ledger:
    """The money side of a run's journal."""

    spendings: tuple[Spending, ...] = ()
    """Of every attempt, in the order of the journal."""
    holds: tuple[Hold, ...] = ()
    """Those that count."""

    def below(self, path: StepPath) -> Ledger:
        """Return what belongs to the step at `path` and to everything inside it."""
        return Ledger(
            tuple(each for each in self.spendings if is_within(each.path, path)),
            tuple(each for each in self.holds if is_within(each.path, path)),
        )

    @property
    def usage(self) -> Usage:
        """The sum over all attempts."""
        return sum((each.usage for each in self.spendings), NOTHING)

    @property
    def unconfirmed(self) -> Usage:
        """What may have been used in addition, at most."""
        return sum((hold.usage for hold in self.holds), NOTHING)

    @property
    def worked_s(self) -> float:
        """Seconds in which at least one attempt was under way; what runs at once counts once."""
        return sum(end - start for start, end in _merged((s.started_at, s.ended_at) for s in self.spendings))


def _merged(spans: Iterable[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    latest: tuple[float, float] | None = None
    for start, end in sorted(spans):
        if latest is not None and start <= latest[1]:
            latest = (latest[0], max(latest[1], end))
            continue
        if latest is not None:
            yield latest
        latest = (start, max(start, end))  # a clock may have been set back in between
    if latest is not None:
        yield latest
