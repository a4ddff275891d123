"""Waits in this process until a waiting run can continue: its time has come, its event, or its tasks' end."""

from __future__ import annotations

import asyncio
from math import inf
from typing import TYPE_CHECKING, Any

from flujo.domain.paths import bounds
from flujo.domain.run import RunStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flujo.domain.journal import RunId
    from flujo.domain.paths import StepPath
    from flujo.domain.ports import Clock
    from flujo.domain.run import GivenAnswer
    from flujo.domain.store import StateStore
    from flujo.services.runs.execution import Runtime

_SOON_S = 0.001
"""The pause before another look at a wait that should have ended."""

_LOOK_S = 1.0
"""How often a run that waits here is read, in case that another process cancels it or sends its event."""


async def wait_ends(runtime: Runtime, run_id: RunId, status: RunStatus, longest_s: float) -> bool:
    """Return whether a run waits and its wait is over.

    A wait that ends soon is waited for, and one for background tasks while this process executes one of them.
    Without persistence a wait that only another process could end is not waited for.
    """
    if status is not RunStatus.WAITING:
        return False
    store, clock = runtime.store, runtime.clock
    began, awaited = clock.monotonic(), await _awaited(store, run_id)
    # Batches of a map are in a queue of a durable store: no process adopts them, and there may be thousands.
    adopts = longest_s > 0 and not (runtime.is_durable and all(map(bounds, awaited)))
    settled = asyncio.Event()
    stop = store.on_settled(lambda each: settled.set() if each == run_id else None)
    try:
        while True:
            # Before the run is read: a task that ends between the two reads would be in neither.
            executed = await _tasks_here(runtime, run_id, adopts=adopts) if awaited else []
            record = await store.run(run_id)
            if record.status is not RunStatus.WAITING:
                return True
            if record.is_answered or (record.deadline_at is not None and await expire(store, run_id)):
                return True
            # By the database's clock, and exact for a run that has just begun to wait.
            passed = record.updated_at + clock.monotonic() - began
            if record.ends_by is not None and record.ends_by <= passed:
                return True  # its claim ends it
            left = min(record.deadline_at or inf, record.ends_by or inf) - passed
            is_stuck = left == inf and not runtime.is_durable
            if not executed and (is_stuck or left > longest_s):
                return False
            await rest(clock, left, settled, executed)
    finally:
        stop()


async def _awaited(store: StateStore, run_id: RunId) -> list[StepPath]:
    """Return the paths at which a run waits for background tasks or batches."""
    return [pause.pause_id for pause in await store.open_pauses(run_id) if pause.awaits_tasks]


async def _tasks_here(runtime: Runtime, run_id: RunId, *, adopts: bool) -> list[asyncio.Task[None]]:
    """Return the executions of a run's background tasks in this process; tasks of no process are adopted."""
    tasks = runtime.tasks
    if tasks is None:
        return []
    if adopts and not tasks.executing(run_id):
        await tasks.adopt(run_id)
    return tasks.executing(run_id)


async def rest(
    clock: Clock, seconds: float, woken: asyncio.Event, executed: Sequence[asyncio.Task[None]] = ()
) -> None:
    """Sleep by a clock, or less when the event is set, which is cleared, or when one of the tasks ends.

    Returns after a second at the latest, so that the caller looks at its run again.
    """
    own: list[asyncio.Future[Any]] = [asyncio.ensure_future(woken.wait())]
    if seconds < inf:
        own.append(asyncio.ensure_future(clock.sleep(max(seconds, _SOON_S))))
    try:
        await asyncio.wait([*own, *executed], timeout=_LOOK_S, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in own:
            each.cancel()
    woken.clear()


async def expire(store: StateStore, run_id: RunId, given: GivenAnswer | None = None) -> bool:
    """Act on deadlines that have passed, as recovery does, in case no process recovers runs.

    The question of the given answer is left alone: that answer comes before its deadline fires.

    Returns:
        Whether one has passed.
    """
    expired = False
    for pause in await store.open_pauses(run_id):
        is_answered = given is not None and given.pause_id == pause.pause_id
        if pause.deadline_at is not None and not is_answered:
            expired |= (await store.expire(run_id, pause.pause_id)).is_expired
    return expired


class Alarm:
    """Wakes a task that looks at the database from time to time, when a wait of a run is settled."""

    def __init__(self) -> None:
        self._settled = asyncio.Event()
        self._end: Callable[[], None] | None = None

    def listen(self, store: StateStore) -> None:
        """Listen to a store; once."""
        if self._end is None:
            self._end = store.on_settled(lambda _: self._settled.set())

    async def rest(self, seconds: float) -> None:
        """Sleep, or less when a wait is settled."""
        try:
            async with asyncio.timeout(seconds):
                await self._settled.wait()
        except TimeoutError:
            return
        self._settled.clear()

    def stop(self) -> None:
        """Stop listening."""
        if self._end is not None:
            self._end()
