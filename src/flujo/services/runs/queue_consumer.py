"""Claims the runs of queues for a worker, and executes them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from flujo.domain import canonical
from flujo.domain.commands import command
from flujo.domain.paths import ROOT
from flujo.domain.run import Move, RunStatus, Write
from flujo.engine.error_info import error_info
from flujo.exceptions import FlujoError, StartFailed
from flujo.governance.logs import logger
from flujo.governance.sink import GATE
from flujo.services.runs.execution import Stop, settled
from flujo.services.runs.recovery import REST_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from flujo.domain.queues import ClaimOrder
    from flujo.domain.run import RunRecord
    from flujo.domain.store import StateStore

    Tell = Callable[[str, RunRecord, str], None]

LOOK_S = 1.0
"""How often an idle worker looks for runs; an idle look is one short query."""

_LONGEST_REST_S = 300.0

log = logger("flujo.queues")


class QueueConsumer:
    """Claims runs while it has places, several in one commit, and executes each in a task.

    Args:
        store: returns the store.
        order: the queues with their limits; the limit of a claim is the number of free places.
        at_once: how many places there are.
        retries: for each queue, how often a run that could not be started is tried again.
        prepare: returns what executes a claimed run; raises what keeps it from being started here.
        others: how many places are taken by other runs of this process.
        isolates: whether suspects are left to processes of their own, instead of being executed here by
            themselves.
        tell: called with `skipped` or `failed`, a run and the reason.
    """

    def __init__(
        self,
        store: Callable[[], Awaitable[StateStore]],
        order: ClaimOrder,
        *,
        at_once: int,
        retries: Mapping[str, int],
        prepare: Callable[[RunRecord], Awaitable[Callable[[Stop], Awaitable[None]]]],
        tell: Tell,
        others: Callable[[], int] = lambda: 0,
        isolates: bool = False,
    ) -> None:
        self.is_paused = False
        """Whether it claims nothing."""
        self._store = store
        self._order = order
        self._at_once = at_once
        self._retries = retries
        self._prepare = prepare
        self._tell = tell
        self._others = others
        self._isolates = isolates
        # Not by run: one that was answered while it paused is claimed before its first task is over.
        self._running: set[asyncio.Task[None]] = set()
        self._claiming: asyncio.Future[list[RunRecord]] | None = None
        self._suspect: asyncio.Task[None] | None = None
        """The run that was last started by itself."""
        self._not_here: dict[str, float] = {}
        """Closures that cannot be executed here, and the loop's time at which each is tried again."""
        self._wake = asyncio.Event()
        self._stop = Stop()

    @property
    def executing(self) -> int:
        """How many runs it executes now."""
        return len(self._running)

    @property
    def places(self) -> int:
        """How many places its runs take: all of them while a suspect is executed by itself."""
        return self._at_once if self._suspect in self._running else len(self._running)

    async def consume(self) -> None:
        """Claim and execute runs, until cancelled."""
        end = (await self._store()).on_queued(self._wake.set)
        try:
            while True:
                is_called = self._wake.is_set()
                self._wake.clear()
                try:
                    rest_s = await self._turn(is_called=is_called)
                except FlujoError as error:
                    log.warning("could not claim runs from queues: %s", error)
                    rest_s = LOOK_S
                await self._rest(rest_s)
        finally:
            end()

    async def drain(self, *, later: bool) -> int:
        """Execute the runs that can be claimed now, until there are none; return how many it has claimed.

        With `later`, also those that are delayed, rest, or wait for a limit of their queue.

        Raises:
            StateError: the database cannot be read or written.
        """
        total = 0
        while True:
            self._wake.clear()
            found = await self.look()
            total += found
            if not found and self._running:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            elif not found:
                left = await self._next_available() if later and not self.is_paused else None
                if left is None:
                    return total
                await self._rest(min(max(left, LOOK_S / 10), LOOK_S))

    async def look(self) -> int:
        """Claim runs for the free places and start them; return how many.

        A run that was cut off twice together with others is claimed when nothing else is executed, and by
        itself: alone it shows whether it ends its process, and it ends no other run with it.

        Raises:
            StateError: the database cannot be read or written.
        """
        room = self._at_once - self.places - self._others()
        if self.is_paused or room <= 0:
            return 0
        if claimed := await self._claimed(replace(self._order, limit=room)):
            return claimed
        if self._isolates or self._running or self._others() or await self._next_available() != 0.0:
            return 0
        return await self.look_for_suspect()

    async def look_for_suspect(self) -> int:
        """Claim one run that is better executed alone, and start it; return how many.

        Raises:
            StateError: the database cannot be read or written.
        """
        return await self._claimed(replace(self._order, limit=1, suspects=True))

    async def has_suspect(self) -> bool:
        """Return whether there is a run that is better executed alone, apart from limits of its queue.

        Raises:
            StateError: the database cannot be read.
        """
        return not self.is_paused and await self._next_available(suspects=True) == 0.0

    async def settled(self) -> None:
        """Wait until the claimed runs have ended, paused or moved to another process."""
        await self._claims()
        while self._running:
            await asyncio.wait(self._running)

    async def aclose(self) -> None:
        """Stop, and release the runs in execution for other workers. Idempotent."""
        self.is_paused = True
        await self._claims()
        await asyncio.sleep(0)  # a task that never began could not release its run
        for task in self._running:
            task.cancel()
        await self.settled()

    async def _claims(self) -> None:
        """Begin to execute what a claim that was cancelled has got nevertheless."""
        if self._claiming is not None:
            await asyncio.wait([self._claiming])
            self._start_claimed(self._claiming)

    async def _turn(self, *, is_called: bool) -> float:
        """Claim what there is; return after how many seconds to look again."""
        if self.is_paused or self._at_once - self.places - self._others() <= 0:
            return LOOK_S
        if not is_called:
            left = await self._next_available()
            if left is None or left > 0:
                return LOOK_S if left is None else min(left, LOOK_S)
        await self.look()
        return LOOK_S  # a run that ends wakes this

    async def _next_available(self, *, suspects: bool | None = None) -> float | None:
        store, names = await self._store(), [name for name, _ in self._order.queues]
        if suspects is None and self._isolates:
            suspects = False
        return await store.next_available(names, without=self._without(), suspects=suspects)

    async def _claimed(self, order: ClaimOrder) -> int:
        store = await self._store()
        claiming = asyncio.ensure_future(store.claim_next(replace(order, without=self._without())))
        self._claiming = claiming
        await asyncio.shield(claiming)
        started = self._start_claimed(claiming)
        if order.suspects and started:
            [self._suspect] = started
        return len(started)

    def _start_claimed(self, claiming: asyncio.Future[list[RunRecord]]) -> set[asyncio.Task[None]]:
        """Begin to execute the claimed runs, once."""
        self._claiming = None
        if claiming.cancelled() or claiming.exception() is not None:
            return set()
        started = {
            asyncio.create_task(self._attended(record), name=f"flujo-queued-{record.run_id}")
            for record in claiming.result()
        }
        self._running |= started
        return started

    def _without(self) -> list[str]:
        now = asyncio.get_running_loop().time()
        self._not_here = {closure: until for closure, until in self._not_here.items() if until > now}
        return list(self._not_here)

    async def _rest(self, rest_s: float) -> None:
        try:
            async with asyncio.timeout(rest_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _attended(self, record: RunRecord) -> None:
        try:
            execute = await self._prepared(record)
            if execute is not None:
                await execute(self._stop)  # which releases the run, however it ends
        except FlujoError as error:
            self._tell("failed", record, GATE.text(f"{error} [{error.code}]"))
        except Exception as error:  # an error in one run must not end the others
            log.debug("run %s", record.run_id, exc_info=error)
            self._tell("failed", record, GATE.text(f"{type(error).__name__}: {error}"))
        finally:
            self._running.discard(cast("asyncio.Task[None]", asyncio.current_task()))
            self._wake.set()

    async def _prepared(self, record: RunRecord) -> Callable[[Stop], Awaitable[None]] | None:
        try:
            return await self._prepare(record)
        except FlujoError as error:
            await self._put_back(record, error)
            return None
        except BaseException:
            await settled(self._move(record, Move(status=RunStatus.RUNNING)))
            raise

    async def _put_back(self, record: RunRecord, error: FlujoError) -> None:
        """Let a run rest that could not be started here, or park it after too many tries."""
        self._not_here[record.closure] = asyncio.get_running_loop().time() + REST_S
        reason = GATE.text(f"{error} [{error.code}]")
        queued = record.queued
        tries = 0 if queued is None else queued.tries
        if queued is not None and tries >= self._retries.get(queued.queue, 0):
            parked = StartFailed(
                f"run {record.run_id} could not be started in {tries + 1} tries: {reason}",
                hint=f"`{command('flujo', 'tasks', 'retry', record.run_id)}` continues it once that is fixed",
                run_id=record.run_id,
                tries=tries + 1,
            )
            cause = canonical.encode(error_info(parked, ROOT).to_json())
            await self._move(record, Move(status=RunStatus.PARKED, error=cause))
            self._tell("failed", record, f"parked: {reason}")
            return
        rest_s = min(2.0**tries, _LONGEST_REST_S)
        await self._move(record, Move(status=RunStatus.RUNNING, rest_s=rest_s))
        self._tell("skipped", record, reason)

    async def _move(self, record: RunRecord, move: Move) -> None:
        store = await self._store()
        try:
            await store.write(Write(run_id=record.run_id, fence=record.fence, move=move))
        except FlujoError as error:
            log.debug("run %s could not be released: %s", record.run_id, error)
            store.let_go(record.run_id)
