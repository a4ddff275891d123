"""What a run has spent so far, by step, and the reservations for requests without a confirmed outcome."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from flujo.domain.paths import StepPath, is_within
from flujo.domain.usage import NOTHING, Usage

if TYPE_CHECKING:
    from flujo.domain.shared_budgets import Share


class HoldState(StrEnum):
    """The state of a reserved request."""

    HELD = "held"
    """The request may be in progress."""
    SETTLED = "settled"
    """The usage is recorded in a journal entry."""
    UNCONFIRMED = "unconfirmed"
    """The request may have been made and its usage stays unknown, so the largest possible usage counts."""
    TIMED = "timed"
    """No request, but a body under a limit on time: its time counts until the claim of this number ends."""
    LENT = "lent"
    """No request, but what a background task may use: held from its launch until its last commit."""
    SPENT = "spent"
    """What a background task has used; its last commit writes this in place of what was lent."""


OF_TASKS = (HoldState.LENT, HoldState.SPENT)
"""The states of holds for background tasks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """The largest possible usage of one attempt beyond the usage in the journal.

    It is durable before the first request of the attempt and replaced before each further one, so it
    includes the usage of the attempt so far. The entry of the attempt settles it in the same commit.
    """

    path: StepPath
    number: int
    """The number of the hold within the step, from 1; of a body's time the fence of the claim."""
    state: HoldState
    usage: Usage = NOTHING
    shares: tuple[Share, ...] = ()
    """The budgets of several runs that it counts in, while its process has it."""
    used: Usage = NOTHING
    """What the attempt is known to have used, once it has ended: the shared budgets count it with `usage`."""
    spare: Usage = NOTHING
    """What must be left for one more request, in shared budgets with `on_exhausted: finish`."""
    is_shared: bool = False
    """Whether the database has counted it in budgets of several runs."""

    @property
    def is_counted(self) -> bool:
        """Whether budgets of several runs count it."""
        return bool(self.shares) or self.is_shared

    @property
    def is_open(self) -> bool:
        """Whether it is of a request, and counts toward the budget."""
        return self.state in (HoldState.HELD, HoldState.UNCONFIRMED)


@dataclass(frozen=True, slots=True)
class Spending:
    """The usage and time of one journal entry, or the time of a body under a limit in an earlier claim."""

    path: StepPath
    usage: Usage
    started_at: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class Ledger:
    """The usage in a run's journal, and its open holds."""

    spendings: tuple[Spending, ...] = ()
    """The usage of every attempt, in journal order, and the times of bodies."""
    holds: tuple[Hold, ...] = ()
    """The open holds of requests."""
    tasks: tuple[Hold, ...] = ()
    """What background tasks may use, or have used when they have ended; at the paths of their launches."""

    def below(self, path: StepPath) -> Ledger:
        """Return the part of the ledger for the step at `path` and the steps inside it."""
        return Ledger(
            tuple(each for each in self.spendings if is_within(each.path, path)),
            tuple(each for each in self.holds if is_within(each.path, path)),
            tuple(each for each in self.tasks if is_within(each.path, path)),
        )

    @property
    def usage(self) -> Usage:
        """The sum over all attempts."""
        return sum((each.usage for each in self.spendings), NOTHING)

    @property
    def unconfirmed(self) -> Usage:
        """The sum over all holds: the largest possible usage in addition."""
        return sum((hold.usage for hold in self.holds), NOTHING)

    @property
    def most(self) -> Usage:
        """What the run and its background tasks have used at most, requests of unknown outcome included."""
        of_tasks = sum((hold.usage for hold in self.tasks), NOTHING)
        return self.usage + self.unconfirmed + of_tasks

    @property
    def worked_s(self) -> float:
        """Seconds in which an attempt, or a body under a limit, was running; what overlaps counts once."""
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
