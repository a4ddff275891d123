"""Queues and workers of the memory store: the same order and limits as in a database."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from flujo.domain.queues import SILENT_S, QueueState, WorkerRecord, WorkerState
from flujo.domain.run import AT_A_PAUSE, RunStatus
from flujo.state import rules

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from flujo.domain.journal import RunId
    from flujo.domain.queues import ClaimOrder, Queued, QueueLimits
    from flujo.domain.run import RunRecord


class QueuedRun(Protocol):
    """What the memory store keeps of a run, as far as it matters here."""

    record: RunRecord
    answered: bool
    rank_at: float
    """When a run of a queue became available first."""


@dataclass(slots=True)
class QueueTables:
    """What the stores of a memory database share about queues, beside the runs."""

    workers: dict[str, WorkerRecord] = field(default_factory=dict)
    starts: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """When runs of a queue with a rate were started."""
    bells: dict[object, tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = field(default_factory=dict)

    def ring(self) -> None:
        """Call the workers, each in its event loop."""
        for loop, callback in list(self.bells.values()):
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(callback)


class QueuedRuns(Protocol):
    """The database in memory, as far as it matters here."""

    @property
    def runs(self) -> Mapping[RunId, QueuedRun]:
        """The runs."""
        ...

    queues: QueueTables


class MemoryQueues:
    """The part of `MemoryStateStore` that is about queues and workers."""

    _tables: QueuedRuns
    owner: str
    _now: Callable[[], float]
    _claimed: Callable[..., RunRecord]
    _is_unattended: Callable[[Any], bool]

    async def claim_next(self, order: ClaimOrder) -> list[RunRecord]:
        """Claim the next runs of queues; see the port."""
        chosen: list[tuple[float, RunId, str]] = []
        for name, limits in order.queues:
            chosen += self._next_of(name, limits, order)
        taken = sorted(chosen)[: order.limit]
        for _, _, name in taken:
            self._tables.queues.starts[name].append(self._now())
        return [self._claimed(run_id, statuses=rules.FROM_QUEUE, recovering=True) for _, run_id, _ in taken]

    def _next_of(self, name: str, limits: QueueLimits, order: ClaimOrder) -> list[tuple[float, RunId, str]]:
        held = [queued for stored, queued in self._queued([name]) if self._is_held(stored)]
        room = limits.room(len(held), self._started(name, limits))
        busy = {queued.key for queued in held} - {None} if limits.one_per_key else set()
        now, taken = self._now(), []
        for stored, queued in sorted(self._queued([name], order.without), key=_rank):
            is_due = (queued.available_at or 0.0) <= now
            if not is_due or self._is_held(stored) or _is_suspect(stored) is not order.suspects:
                continue
            if limits.one_per_key and queued.key in busy:
                continue
            busy.update([] if queued.key is None else [queued.key])
            rank, run_id = _rank((stored, queued))
            taken.append((rank, run_id, name))
        return taken[: order.limit if room is None else min(order.limit, room)]

    def _started(self, name: str, limits: QueueLimits) -> int:
        starts, rate = self._tables.queues.starts[name], limits.rate
        if rate is not None:
            starts[:] = [at for at in starts if at > self._now() - rate.per_s]
        return len(starts)

    def _queued(self, names: Sequence[str], without: Collection[str] = ()) -> list[tuple[QueuedRun, Queued]]:
        """Return the runs that a worker may take, those that another one executes included."""
        return [
            (stored, queued)
            for stored in self._tables.runs.values()
            if (queued := stored.record.queued) is not None
            and queued.queue in names
            and stored.record.closure not in without
            and (
                stored.record.status in (RunStatus.ACCEPTED, RunStatus.RUNNING)
                or (stored.answered and stored.record.status in AT_A_PAUSE)
            )
        ]

    def _is_held(self, stored: QueuedRun) -> bool:
        return stored.record.status is RunStatus.RUNNING and not self._is_unattended(stored)

    async def next_available(
        self, queues: Sequence[str], *, without: Collection[str] = (), suspects: bool | None = None
    ) -> float | None:
        """Return when the next run of queues can be claimed; see the port."""
        found = self._queued(queues, without)
        times = [
            queued.available_at or 0.0
            for stored, queued in found
            if not self._is_held(stored) and suspects in (None, _is_suspect(stored))
        ]
        return max(0.0, min(times) - self._now()) if times else None

    def on_queued(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when a run has come into a queue; see the port."""
        key, bells = object(), self._tables.queues.bells
        bells[key] = asyncio.get_running_loop(), callback

        def end() -> None:
            bells.pop(key, None)

        return end

    async def queue_states(self) -> list[QueueState]:
        """Return the queues that have runs which have not ended."""
        names = {
            each.record.queued.queue for each in self._tables.runs.values() if each.record.queued is not None
        }
        states = [self._state(name) for name in sorted(names)]
        return [
            each
            for each in states
            if each.depth or each.delayed or each.in_flight or each.paused or each.parked
        ]

    def _state(self, name: str) -> QueueState:
        found, now = self._queued([name]), self._now()
        ready = [queued.available_at or 0.0 for stored, queued in found if not self._is_held(stored)]
        due = [at for at in ready if at <= now]
        rest = [
            stored
            for stored in self._tables.runs.values()
            if stored.record.queued is not None and stored.record.queued.queue == name
        ]
        return QueueState(
            queue=name,
            depth=len(due),
            delayed=len(ready) - len(due),
            in_flight=len(found) - len(ready),
            paused=sum(each.record.status in AT_A_PAUSE and not each.answered for each in rest),
            parked=sum(each.record.status is RunStatus.PARKED for each in rest),
            oldest_s=now - min(due) if due else None,
        )

    async def report_worker(self, worker: WorkerRecord) -> WorkerState:
        """Record a sign of life of a worker; see the port."""
        now, listed = self._now(), self._tables.queues.workers
        there = listed.get(self.owner, replace(worker, owner=self.owner, started_at=now))
        state = worker.state if worker.state is WorkerState.DRAINING else there.state
        listed[self.owner] = replace(there, seen_at=now, state=state)
        return state

    async def set_worker_state(self, owner: str, state: WorkerState) -> bool:
        """Set the state of a worker; see the port."""
        listed = self._tables.queues.workers
        if owner in listed:
            listed[owner] = replace(listed[owner], state=state)
        return owner in listed

    async def forget_worker(self) -> None:
        """Remove this store's worker from the list."""
        self._tables.queues.workers.pop(self.owner, None)

    async def workers(self) -> list[WorkerRecord]:
        """Return the living workers; see the port."""
        now = self._now()
        living = [each for each in self._tables.queues.workers.values() if each.seen_at > now - SILENT_S]
        return [
            replace(each, silent_s=max(0.0, now - each.seen_at), runs=self._executed(each.owner))
            for each in sorted(living, key=lambda each: (each.started_at, each.owner))
        ]

    def _executed(self, owner: str) -> tuple[RunId, ...]:
        return tuple(
            run_id
            for run_id, stored in self._tables.runs.items()
            if stored.record.owner == owner and stored.record.status is RunStatus.RUNNING
        )


def _rank(each: tuple[QueuedRun, Queued]) -> tuple[float, RunId]:
    stored, queued = each
    return queued.rank(stored.rank_at), stored.record.run_id


def _is_suspect(stored: QueuedRun) -> bool:
    record = stored.record
    return record.status is RunStatus.RUNNING and record.owner is not None and record.suspicions > 0
