"""The consumer of queues: what it does with runs that cannot be started, suspects, and a stop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain import canonical
from flujo.domain.journal import RunId
from flujo.domain.queues import NO_LIMITS, ClaimOrder, Queued, QueueLimits
from flujo.domain.run import Move, RunStatus, Write
from flujo.exceptions import CallableError
from flujo.services.runs import queue_consumer
from flujo.services.runs.queue_consumer import QueueConsumer
from flujo.state.memory_runs import MemoryDatabase
from flujo.state.memory_store import MemoryStateStore
from flujo.testing.store_suite import new_run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flujo.domain.run import RunRecord
    from flujo.domain.store import StateStore
    from flujo.services.runs.execution import Stop


class Consumer:
    """A consumer whose runs end when the test lets them."""

    def __init__(
        self,
        store: StateStore,
        *,
        at_once: int = 2,
        retries: int = 1,
        limits: QueueLimits = NO_LIMITS,
        isolates: bool = False,
    ) -> None:
        self.store = store
        self.go = asyncio.Event()
        self.has_begun = asyncio.Event()
        self.fails: Exception | None = None
        self.begun: list[str] = []
        self.told: list[tuple[str, str, str]] = []
        self.consumer = QueueConsumer(
            self._store,
            ClaimOrder(queues=(("mail", limits),), limit=1),
            at_once=at_once,
            retries={"mail": retries},
            prepare=self._prepare,
            tell=lambda event, record, detail: self.told.append((event, record.run_id, detail)),
            isolates=isolates,
        )

    async def _store(self) -> StateStore:
        return self.store

    async def _prepare(self, record: RunRecord) -> Callable[[Stop], Awaitable[None]]:
        if self.fails is not None:
            raise self.fails

        async def execute(_: Stop) -> None:
            self.begun.append(record.run_id)
            self.has_begun.set()
            await self.go.wait()
            await self.end(record, RunStatus.COMPLETED)

        return execute

    async def end(self, record: RunRecord, status: RunStatus) -> None:
        await self.store.write(Write(run_id=record.run_id, fence=record.fence, move=Move(status=status)))


async def queued(store: StateStore, *run_ids: str, **place: Any) -> None:
    for run_id in run_ids:
        await store.accept(new_run(run_id, queued=Queued(queue="mail", **place)), {}, claim=False)


@pytest.fixture
def store() -> MemoryStateStore:
    return MemoryStateStore()


async def test_it_claims_as_many_runs_as_it_has_places(store: MemoryStateStore) -> None:
    await queued(store, "a", "b", "c")
    mine = Consumer(store)
    assert [await mine.consumer.look(), await mine.consumer.look()] == [2, 0]
    mine.go.set()
    await mine.consumer.settled()
    assert await mine.consumer.look() == 1
    await mine.consumer.settled()
    assert mine.begun == ["a", "b", "c"]


async def test_a_run_that_cannot_be_started_rests_and_is_parked_with_the_reason(
    store: MemoryStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_consumer, "REST_S", 0.0)
    now = 1000.0
    store._now = lambda: now
    await queued(store, "a")
    mine = Consumer(store, retries=1)
    mine.fails = CallableError("module `skills` is missing", hint="add it")
    await mine.consumer.look()
    await mine.consumer.settled()
    resting = await store.run(RunId("a"))
    assert (resting.status, resting.owner) == (RunStatus.RUNNING, None)
    assert resting.queued is not None
    assert (resting.queued.tries, resting.queued.available_at) == (1, 1001.0)
    assert await mine.consumer.look() == 0
    now += 2
    assert await mine.consumer.look() == 1
    await mine.consumer.settled()
    parked = await store.run(RunId("a"))
    assert parked.status is RunStatus.PARKED
    assert "could not be started in 2 tries: module `skills` is missing" in str(
        canonical.decode(parked.error or b"")
    )
    assert [event for event, _, _ in mine.told] == ["skipped", "failed"]


async def test_other_runs_of_a_closure_that_cannot_be_executed_here_are_left_alone(
    store: MemoryStateStore,
) -> None:
    await queued(store, "a", "b")
    mine = Consumer(store, at_once=1)
    mine.fails = CallableError("missing", hint="add it")
    await mine.consumer.look()
    await mine.consumer.settled()
    mine.fails = None
    assert await mine.consumer.look() == 0
    assert (await store.run(RunId("b"))).status is RunStatus.ACCEPTED


async def suspects() -> MemoryDatabase:
    """Return a database with two runs that were cut off together twice."""
    database = MemoryDatabase()
    for _ in range(2):
        lost = MemoryStateStore(database, lease_s=0.0)
        if not database.runs:
            await queued(lost, "a", "b")
        order = ClaimOrder(queues=(("mail", NO_LIMITS),), limit=10)
        assert len(await lost.claim_next(order)) == 2
    return database


async def test_an_isolating_consumer_leaves_suspects_to_other_processes() -> None:
    database = await suspects()
    mine = Consumer(MemoryStateStore(database), isolates=True, limits=QueueLimits(one_per_key=True))
    await queued(mine.store, "c")
    mine.go.set()
    assert await mine.consumer.drain(later=True) == 1
    other = MemoryStateStore(database)
    await queued(other, "d", "e", key="k")
    await other.claim_next(ClaimOrder(queues=(("mail", NO_LIMITS),), limit=1))
    assert await mine.consumer.look() == 0, "`e` waits for its key"
    assert mine.begun == ["c"]
    assert await mine.consumer.has_suspect()
    assert await mine.consumer.look_for_suspect() == 1
    await mine.consumer.settled()
    assert mine.begun == ["c", "a"]
    mine.consumer.is_paused = True
    assert not await mine.consumer.has_suspect()


async def test_a_suspect_is_executed_alone() -> None:
    mine = Consumer(MemoryStateStore(await suspects()))
    await queued(mine.store, "c")
    assert await mine.consumer.look() == 1
    await asyncio.sleep(0)
    assert await mine.consumer.look() == 0
    mine.go.set()
    await mine.consumer.settled()
    mine.go.clear()
    assert await mine.consumer.look() == 1
    assert mine.consumer.places == 2
    assert await mine.consumer.look() == 0
    mine.go.set()
    assert await mine.consumer.drain(later=False) == 1
    assert sorted(mine.begun) == ["a", "b", "c"]
    assert mine.begun[0] == "c"


async def test_a_stop_releases_runs_in_execution_and_claims_under_way(store: MemoryStateStore) -> None:
    await queued(store, "a", "b", "c")
    mine = Consumer(store, at_once=3)
    claiming = asyncio.Event()
    claim = store.claim_next

    async def slowly(order: ClaimOrder) -> list[RunRecord]:
        found = await claim(order)
        claiming.set()
        await asyncio.sleep(0.01)
        return found

    store.claim_next = slowly  # type: ignore[method-assign]
    looking = asyncio.ensure_future(mine.consumer.consume())
    await claiming.wait()
    looking.cancel()
    await asyncio.wait([looking])
    await mine.consumer.aclose()
    assert mine.consumer.executing == 0


async def test_a_paused_consumer_claims_nothing(store: MemoryStateStore) -> None:
    await queued(store, "a")
    mine = Consumer(store)
    mine.consumer.is_paused = True
    assert await mine.consumer.drain(later=True) == 0
    mine.consumer.is_paused = False
    mine.go.set()
    assert await mine.consumer.drain(later=True) == 1


async def test_a_drain_waits_for_delayed_runs_only_if_asked(
    store: MemoryStateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_consumer, "LOOK_S", 0.01)
    await queued(store, "now")
    await queued(store, "later", delay_s=0.05)
    mine = Consumer(store)
    mine.go.set()
    assert await mine.consumer.drain(later=False) == 1
    looks = 0
    available = store.next_available

    async def counted(*words: Any, **more: Any) -> float | None:
        nonlocal looks
        looks += 1
        return await available(*words, **more)

    store.next_available = counted  # type: ignore[method-assign]
    assert await mine.consumer.drain(later=True) == 1
    assert looks < 200, "it rests between two looks"


async def test_an_idle_consumer_is_called_when_a_run_comes(store: MemoryStateStore) -> None:
    mine = Consumer(store)
    mine.go.set()
    working = asyncio.ensure_future(mine.consumer.consume())
    await asyncio.sleep(0)
    await queued(store, "a")
    async with asyncio.timeout(30):
        await mine.has_begun.wait()
    working.cancel()
    await asyncio.wait([working])
