"""Where a run comes from, and the queue in which it waits for a worker."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flujo.domain.journal import RunId
    from flujo.domain.paths import StepPath

_PRIORITY_S = 60.0


class RunKind(StrEnum):
    """What a run is."""

    RUN = "run"
    """A caller started it."""
    TASK = "task"
    """A background step of another run launched it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """Where a background task comes from, and what it executes."""

    run_id: RunId
    path: StepPath
    """The step that launched it."""
    entry: str
    """The step that it executes: the names from the root of its closure to it, joined by `.`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued:
    """The place of a run in a queue; only workers of that queue execute it."""

    queue: str
    key: str | None = None
    """What `per_key` of the queue limits."""
    priority: int = 0
    """A run is preferred to those of one priority less that became available up to a minute before it."""
    delay_s: float = 0.0
    """How long after its acceptance no worker takes it; for a new run."""
    available_at: float | None = None
    """When a worker may take it, in seconds since the epoch by the store's clock; of a stored run."""
    tries: int = 0
    """How often its queue has retried it."""

    def rank(self, available_at: float) -> float:
        """Return its place in the order of claims: the lowest is first."""
        return available_at - _PRIORITY_S * self.priority
