"""Queues: their order, their limits over all stores, and the list of workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.queues import (
    NO_LIMITS,
    ClaimOrder,
    Queued,
    QueueLimits,
    QueueState,
    Rate,
    WorkerRecord,
    WorkerState,
)
from flujo.domain.run import Move, RunStatus, Write
from flujo.testing.store_suite.examples import NEVER_S, SHORT_S, OpenStore, ask, entry, move, new_run, writes

if TYPE_CHECKING:
    from flujo.domain.store import StateStore

ONE = QueueLimits(concurrency=1)


async def queued(store: StateStore, *run_ids: str, queue: str = "mail", **place: Any) -> None:
    """Accept runs into a queue."""
    for run_id in run_ids:
        await store.accept(new_run(run_id, queued=Queued(queue=queue, **place)), {}, claim=False)


async def claimed(
    store: StateStore, limit: int = 10, *, limits: QueueLimits = NO_LIMITS, queue: str = "mail", **more: Any
) -> list[str]:
    """Claim the next runs of a queue, and return their ids."""
    order = ClaimOrder(queues=((queue, limits),), limit=limit, **more)
    return [record.run_id for record in await store.claim_next(order)]


async def state_of(store: StateStore, queue: str = "mail") -> QueueState | None:
    """Return the state of one queue."""
    return next((each for each in await store.queue_states() if each.queue == queue), None)


def worker(**changes: Any) -> WorkerRecord:
    """Return a worker that reports itself."""
    facts = {"host": "h", "pid": 7, "version": "1", "queues": ("mail",), "concurrency": 2, **changes}
    return WorkerRecord(owner="", **facts)


class QueuesSuite:
    """A run of a queue goes to one worker of that queue, in order and within the limits."""

    async def test_runs_are_claimed_in_their_order_by_one_store_each(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        await queued(mine, "first", "second", "third")
        await queued(mine, "urgent", priority=1)
        await queued(mine, "elsewhere", queue="other")
        await queued(mine, "later", delay_s=NEVER_S)
        order = ClaimOrder(queues=(("mail", NO_LIMITS),), limit=2)
        [urgent, first] = await mine.claim_next(order)
        assert (urgent.run_id, first.run_id) == ("urgent", "first")
        assert (first.status, first.owner is not None, first.fence, first.claims) == ("running", True, 1, 1)
        assert first == await mine.run(first.run_id) or first.lease_left_s is not None
        assert await claimed(other) == ["second", "third"]
        assert await claimed(mine) == []

    async def test_a_claimed_run_can_be_written(self, store: StateStore) -> None:
        await queued(store, "a")
        [run] = await store.claim_next(ClaimOrder(queues=(("mail", NO_LIMITS),), limit=1))
        await store.write(writes(run, entry(1)))
        assert store.may_begin(run.run_id)
        await store.write(move(run, RunStatus.COMPLETED))
        assert await claimed(store) == []

    async def test_recovery_leaves_runs_of_queues_alone(self, open_store: OpenStore) -> None:
        mine, other = await open_store(lease_s=SHORT_S, renew_s=NEVER_S), await open_store()
        await queued(mine, "waits", "cut")
        assert await claimed(mine, 1) == ["waits"]
        await asyncio.sleep(2 * SHORT_S)
        assert (await other.due()).runs == ()

    async def test_a_run_of_a_dead_owner_is_claimed_again(self, open_store: OpenStore) -> None:
        mine, other = await open_store(lease_s=SHORT_S, renew_s=NEVER_S), await open_store()
        await queued(mine, "a")
        assert await claimed(mine) == ["a"]
        assert await claimed(other) == []
        await asyncio.sleep(2 * SHORT_S)
        [run] = await other.claim_next(ClaimOrder(queues=(("mail", NO_LIMITS),), limit=1))
        assert (run.fence, run.recoveries, run.suspicions) == (2, 1, 0)

    async def test_a_run_that_was_cut_off_twice_with_others_is_claimed_as_a_suspect_only(
        self, open_store: OpenStore
    ) -> None:
        first = await open_store(lease_s=SHORT_S, renew_s=NEVER_S)
        second = await open_store(lease_s=SHORT_S, renew_s=NEVER_S)
        third = await open_store()
        await queued(first, "a", "b")
        assert await claimed(first) == ["a", "b"]
        await asyncio.sleep(2 * SHORT_S)
        assert await claimed(second) == ["a", "b"]
        await asyncio.sleep(2 * SHORT_S)
        assert await claimed(third) == []
        available = [await third.next_available(["mail"], suspects=which) for which in (None, True, False)]
        assert available == [0, 0, None]
        assert await claimed(third, 1, suspects=True) == ["a"]
        assert (await third.run(RunId("a"))).suspicions == 2

    async def test_a_settled_pause_brings_a_run_back_to_its_queue(self, store: StateStore) -> None:
        await queued(store, "a", "b")
        [run] = await store.claim_next(ClaimOrder(queues=(("mail", NO_LIMITS),), limit=1))
        await ask(store, run, "approve")
        await store.write(move(run, RunStatus.PAUSED))
        assert await claimed(store) == ["b"]
        assert await claimed(store) == []
        await queued(store, "c")
        await store.answer(RunId("a"), StepPath("approve"), b"true")
        assert await claimed(store, 1) == ["a"]

    async def test_a_run_that_rests_is_left_alone_and_counts_its_tries(self, store: StateStore) -> None:
        await queued(store, "a")
        order = ClaimOrder(queues=(("mail", NO_LIMITS),), limit=1)
        [run] = await store.claim_next(order)
        rest = Move(status=RunStatus.RUNNING, rest_s=SHORT_S)
        await store.write(Write(run_id=run.run_id, fence=run.fence, move=rest))
        assert await claimed(store) == []
        left = await store.next_available(["mail"])
        assert left is not None
        assert 0 < left <= SHORT_S
        await asyncio.sleep(2 * SHORT_S)
        [again] = await store.claim_next(order)
        assert again.queued is not None
        assert (again.queued.tries, again.recoveries) == (1, 0)

    async def test_closures_can_be_left_out(self, store: StateStore) -> None:
        await queued(store, "a")
        assert await claimed(store, without=["c" * 64]) == []
        assert await store.next_available(["mail"], without=["c" * 64]) is None
        assert await store.next_available(["mail"]) == 0
        assert await claimed(store) == ["a"]
        assert await store.next_available(["mail"]) is None

    async def test_concurrency_holds_over_all_stores_and_is_free_after_a_pause(
        self, open_store: OpenStore
    ) -> None:
        mine, other = await open_store(), await open_store()
        await queued(mine, *"abcd")
        two = QueueLimits(concurrency=2)
        order = ClaimOrder(queues=(("mail", two),), limit=10)
        got = await asyncio.gather(mine.claim_next(order), other.claim_next(order))
        [one, _] = [record for records in got for record in records]
        assert await claimed(mine, limits=two) == await claimed(other, limits=two) == []
        await (mine if one.owner == getattr(mine, "owner", "") else other).write(move(one, RunStatus.PAUSED))
        assert len(await claimed(other, limits=two)) == 1
        assert await claimed(mine, limits=two) == []

    async def test_a_dead_owner_holds_no_place(self, open_store: OpenStore) -> None:
        mine, other = await open_store(lease_s=SHORT_S, renew_s=NEVER_S), await open_store()
        await queued(mine, "a", "b")
        assert await claimed(mine, limits=ONE) == ["a"]
        await asyncio.sleep(2 * SHORT_S)
        assert await claimed(other, limits=ONE) == ["a"]
        assert await claimed(other, limits=ONE) == []

    async def test_a_batch_that_ends_a_run_gives_its_place_to_the_next(self, store: StateStore) -> None:
        await queued(store, "a", "b")
        order = ClaimOrder(queues=(("mail", ONE),), limit=1)
        [run] = await store.claim_next(order)
        ended = asyncio.ensure_future(store.write(move(run, RunStatus.COMPLETED)))
        [following] = await store.claim_next(order)
        await ended
        assert following.run_id == "b"

    async def test_one_run_of_a_key_is_executed_at_a_time(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        keyed = QueueLimits(one_per_key=True)
        await queued(mine, "a1", "a2", "a3", key="ada")
        await queued(mine, "b1", "b2", key="bob")
        await queued(mine, "n1", "n2")
        assert await claimed(mine, 3, limits=keyed) == ["a1", "b1", "n1"]
        assert await claimed(other, limits=keyed) == ["n2"]
        a1 = await mine.run(RunId("a1"))
        await mine.write(move(a1, RunStatus.COMPLETED))
        assert await claimed(other, limits=keyed) == ["a2"]

    async def test_a_rate_bounds_the_starts_of_any_span(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        rate = QueueLimits(rate=Rate(2, per_s=NEVER_S))
        await queued(mine, *"abcd")
        assert await claimed(mine, 1, limits=rate) == ["a"]
        assert await claimed(other, limits=rate) == ["b"]
        assert await claimed(mine, limits=rate) == []
        assert await claimed(mine, limits=QueueLimits(rate=Rate(3, per_s=NEVER_S))) == ["c"]
        await asyncio.sleep(2 * SHORT_S)
        assert await claimed(other, limits=QueueLimits(rate=Rate(1, per_s=SHORT_S))) == ["d"]

    async def test_queues_are_counted(self, store: StateStore) -> None:
        assert await store.queue_states() == []
        await queued(store, *"abcd")
        await queued(store, "later", delay_s=NEVER_S)
        order = ClaimOrder(queues=(("mail", NO_LIMITS),), limit=2)
        [one, two] = await store.claim_next(order)
        await ask(store, one, "approve")
        await store.write(move(one, RunStatus.PAUSED))
        await store.write(move(two, RunStatus.PARKED))
        await claimed(store, 1)
        found = await state_of(store)
        assert found is not None
        assert (found.depth, found.delayed, found.in_flight, found.paused, found.parked) == (1, 1, 1, 1, 1)
        assert found.oldest_s is not None
        assert found.oldest_s >= 0

    async def test_a_worker_is_called_when_a_run_comes_into_a_queue(self, store: StateStore) -> None:
        called = asyncio.Event()
        end = store.on_queued(called.set)
        await queued(store, "a")
        async with asyncio.timeout(10):
            await called.wait()
        end()

    async def test_workers_are_listed_with_what_they_execute(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        assert await mine.workers() == []
        assert await mine.report_worker(worker()) is WorkerState.WORKING
        assert await other.report_worker(worker(pid=8, state=WorkerState.PAUSED)) is WorkerState.PAUSED
        await queued(mine, "a")
        await claimed(mine)
        first, second = await other.workers()
        assert (first.pid, first.queues, first.runs, first.state) == (7, ("mail",), ("a",), "working")
        assert (second.pid, second.runs, second.state) == (8, (), "paused")
        assert await mine.set_worker_state(second.owner, WorkerState.WORKING)
        assert not await mine.set_worker_state("nobody", WorkerState.WORKING)
        assert await other.report_worker(worker(pid=8, state=WorkerState.PAUSED)) is WorkerState.WORKING
        await mine.forget_worker()
        assert [each.pid for each in await mine.workers()] == [8]
