"""What this process has done to its databases so far, for metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakSet

from flujo.domain.forks import renew_in_children


class Pool(Protocol):
    """The connections to a database."""

    def in_use(self) -> int:
        """Return how many of them are in use now."""
        ...


@dataclass(eq=False)
class ProcessCounts:
    """Counts that only grow, each changed by the thread of a writer."""

    requests: int = 0
    """Requests of writers that are settled: writes of runs, claims, answers."""
    commits: int = 0
    """Transactions with them. The requests of one commit are a batch."""
    renewals: int = 0
    """Leases that were renewed."""
    pools: WeakSet[Pool] = field(default_factory=WeakSet)
    """The connections of all open databases."""

    def __post_init__(self) -> None:
        """Count from zero in each forked child."""
        renew_in_children(self, type(self)._renew)

    def _renew(self) -> None:
        self.requests = self.commits = self.renewals = 0


COUNTS = ProcessCounts()
"""Those of this process."""
