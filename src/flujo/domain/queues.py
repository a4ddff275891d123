"""Where a run comes from, and the queue in which it waits for a worker."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from flujo.domain.journal import RunId
    from flujo.domain.paths import StepPath

_PRIORITY_S = 60.0

TASK_ID = "b-"
"""The beginning of the id of every background task."""


class RunKind(StrEnum):
    """What a run is."""

    RUN = "run"
    """A caller started it."""
    TASK = "task"
    """A background step of another run launched it."""
    EVAL = "eval"
    """It scores the output of another run."""
    CASE = "case"
    """It runs one case of a file of cases."""
    ITEM = "item"
    """It executes a batch of items of a map of another run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """Where a background task, a batch of items or an evaluation comes from, and what it executes."""

    run_id: RunId
    path: StepPath
    """The step that launched it, or whose output is scored; the root for the output of the run."""
    entry: str
    """The step that a task executes: its path in the tree of the parent's closure, without counts. Of an
    evaluation, the name of the evaluator."""
    kind: RunKind = RunKind.TASK


def task_id(parent: RunId, path: StepPath, attempt: int) -> RunId:
    """Return the id of the task that an attempt of a step launches; the same for each repetition."""
    digest = hashlib.sha256(f"{parent}|{path}|{attempt}".encode()).digest()
    return cast("RunId", TASK_ID + base64.b32encode(digest).decode().lower()[:26])


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


MAX_PRIORITY = 1_000_000
"""The highest priority; its negative is the lowest."""
PRIORITIES = f"{-MAX_PRIORITY:,} to {MAX_PRIORITY:,}"
"""The priorities that there are, in words."""


def priority_problem(priority: int, where: str) -> tuple[str, str] | None:
    """Return why a number is not a priority, and what to do; None if it is one.

    Args:
        priority: the number.
        where: what has it, such as `the run`; the message begins with it.
    """
    if abs(priority) <= MAX_PRIORITY:
        return None
    return f"{where} has the priority {priority}", f"use a whole number from {PRIORITIES}"


DEFAULT_QUEUE = "default"
"""The queue of a run whose caller names none."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def is_queue_name(text: str) -> bool:
    """Return whether a text can name a queue: 1 to 63 letters, digits, `.`, `_` and `-`."""
    return _NAME.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Rate:
    """How many runs of a queue may start within any span of time."""

    count: int
    per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """What all workers of a queue together may execute. A run counts while it is `running`."""

    concurrency: int | None = None
    rate: Rate | None = None
    one_per_key: bool = False
    """Whether runs with one key are executed one after another."""

    @property
    def are_shared(self) -> bool:
        """Whether a claim depends on what other workers execute."""
        return self.concurrency is not None or self.rate is not None or self.one_per_key

    def room(self, running: int, started: int) -> int | None:
        """Return how many more runs may start; None for any number.

        Args:
            running: how many runs of the queue are executed.
            started: how many have started within the span of `rate`.
        """
        left = []
        if self.concurrency is not None:
            left.append(self.concurrency - running)
        if self.rate is not None:
            left.append(self.rate.count - started)
        return max(0, min(left)) if left else None


NO_LIMITS = QueueLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimOrder:
    """Which runs of which queues a worker claims next."""

    queues: tuple[tuple[str, QueueLimits], ...]
    """The names of the queues, each once, with their limits."""
    limit: int
    without: Collection[str] = ()
    """Excludes runs that have pinned one of these closures."""
    suspects: bool = False
    """Only runs that were cut off together with other runs, and then once more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """What is in a queue, as of one read."""

    queue: str
    depth: int = 0
    """Runs that a worker may take now, or could if the limits of the queue allowed it."""
    delayed: int = 0
    """Runs that no worker takes yet: delayed by their caller, or at rest after a failed start."""
    in_flight: int = 0
    """Runs with a living owner."""
    paused: int = 0
    """Runs that wait for a human, an event or a time."""
    parked: int = 0
    oldest_s: float | None = None
    """How long the run that became available first has been waiting for a worker."""


class WorkerState(StrEnum):
    """What a worker does."""

    WORKING = "working"
    PAUSED = "paused"
    """It takes no run until it is resumed."""
    DRAINING = "draining"
    """It takes no run, finishes those that it executes, and ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """A worker, as the database lists it."""

    owner: str
    """As `owner` of the runs that it executes."""
    host: str
    pid: int
    version: str
    queues: tuple[str, ...]
    """The queues that it serves; with none, it executes only runs without a queue."""
    concurrency: int
    state: WorkerState = WorkerState.WORKING
    started_at: float = 0.0
    seen_at: float = 0.0
    """Its last sign of life, by the store's clock, as `started_at`."""
    silent_s: float = 0.0
    """How long ago that was."""
    runs: tuple[RunId, ...] = ()
    """What it executes."""


SILENT_S = 30.0
"""After how many seconds without a sign of life a worker is no longer listed."""
