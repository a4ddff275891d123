"""The outbox: a message is written with a move and taken by one store at a time. And: deadlines of runs."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from flujo.domain.journal import RunId
from flujo.domain.outbox import MessageState, Notice, NoticeEvent, Tried
from flujo.domain.run import RunStatus
from flujo.exceptions import Fenced
from flujo.testing.store_suite.examples import NEVER_S, RUN, SHORT_S, OpenStore, in_state, move, new_run

if TYPE_CHECKING:
    from flujo.domain.run import RunRecord
    from flujo.domain.store import StateStore

FAILED = (Notice("ops", NoticeEvent.FAILED, b'{"n":1}'), Notice("crm", NoticeEvent.FAILED, b'{"n":2}'))


async def _failed(store: StateStore, run_id: str = RUN) -> RunRecord:
    run = await store.accept(new_run(run_id), {})
    await store.write(move(run, RunStatus.FAILED, notices=FAILED))
    return run


class MessagesSuite:
    """A message is as durable as the move that it is about, and is not lost on its way."""

    async def test_a_move_and_its_messages_are_written_together_or_not_at_all(
        self, open_store: OpenStore
    ) -> None:
        store, other = await open_store(), await open_store()
        run = await _failed(store)
        await store.claim(RUN, statuses=[RunStatus.FAILED])
        with pytest.raises(Fenced):
            await store.write(move(run, RunStatus.CANCELLED, notices=FAILED))
        found = await other.messages()
        assert [(each.target, each.payload, each.run_id) for each in reversed(found)] == [
            ("ops", b'{"n":1}', RUN),
            ("crm", b'{"n":2}', RUN),
        ]
        assert {(each.event, each.state, each.tries) for each in found} == {("failed", "pending", 0)}
        assert len({each.key for each in found}) == 2
        assert [each.target for each in await other.messages(target="crm", run_id=RUN)] == ["crm"]
        assert await other.messages(run_id=RunId("other")) == []
        assert await other.messages(states=[MessageState.DELIVERED, MessageState.GIVEN_UP]) == []

    async def test_a_message_is_taken_by_one_store_only(self, open_store: OpenStore) -> None:
        stores = [await open_store() for _ in range(4)]
        await _failed(stores[0])
        takes = [store.take_messages(["ops"], lease_s=NEVER_S, limit=10) for store in stores]
        taken = [message for each in await asyncio.gather(*takes) for message in each]
        assert [(each.target, each.tries) for each in taken] == [("ops", 1)]

    async def test_a_message_that_was_taken_by_a_dead_store_is_taken_again(
        self, open_store: OpenStore
    ) -> None:
        dead, living = await open_store(), await open_store()
        await _failed(dead)
        [before] = await dead.take_messages(["ops"], lease_s=SHORT_S, limit=10)
        await asyncio.sleep(2 * SHORT_S)
        [again] = await living.take_messages(["ops"], lease_s=NEVER_S, limit=10)
        assert (again.key, again.payload, again.tries) == (before.key, before.payload, 2)
        assert not await dead.settle_message(before, Tried("too late", retry_s=0.0))
        assert await living.settle_message(again, Tried())

    async def test_a_delivered_message_is_not_taken_again(self, store: StateStore) -> None:
        await _failed(store)
        for message in await store.take_messages(["ops", "crm"], lease_s=0.0, limit=10):
            assert await store.settle_message(message, Tried())
        assert await store.take_messages(["ops", "crm"], lease_s=0.0, limit=10) == []
        assert {message.state for message in await store.messages()} == {MessageState.DELIVERED}

    async def test_a_failed_delivery_is_tried_again_later_and_given_up_in_the_end(
        self, store: StateStore
    ) -> None:
        await _failed(store)
        [first] = await store.take_messages(["ops"], lease_s=NEVER_S, limit=10)
        await store.settle_message(first, Tried("500", retry_s=0.0))
        [second] = await store.take_messages(["ops"], lease_s=NEVER_S, limit=10)
        assert (second.tries, second.error) == (2, "500")
        await store.settle_message(second, Tried("503", retry_s=NEVER_S))
        assert await store.take_messages(["ops"], lease_s=NEVER_S, limit=10) == []
        [crm] = await store.take_messages(["crm"], lease_s=NEVER_S, limit=10)
        await store.settle_message(crm, Tried("410"))
        [given_up] = await store.messages(states=[MessageState.GIVEN_UP])
        assert (given_up.target, given_up.error, given_up.tries) == ("crm", "410", 1)
        assert await store.redeliver([given_up.id, second.id, 10**9]) == 2
        taken = await store.take_messages(["ops", "crm"], lease_s=NEVER_S, limit=10)
        assert [(each.target, each.tries) for each in taken] == [("ops", 1), ("crm", 1)]

    async def test_few_messages_are_taken_at_once_the_oldest_first(self, store: StateStore) -> None:
        for name in ("run-a", "run-b", "run-c"):
            await _failed(store, name)
        taken = await store.take_messages(["ops"], lease_s=NEVER_S, limit=2)
        assert [each.run_id for each in taken] == ["run-a", "run-b"]

    async def test_a_run_without_an_owner_is_overdue_once_its_deadline_has_passed(
        self, open_store: OpenStore
    ) -> None:
        mine, other = await open_store(), await open_store()
        for status in (RunStatus.ACCEPTED, RunStatus.PAUSED, RunStatus.INTERRUPTED, RunStatus.COMPLETED):
            late = new_run(str(status), life_s=0.0, pipeline="late")
            run = await mine.accept(late, {}, claim=status is not RunStatus.ACCEPTED)
            if status is not RunStatus.ACCEPTED:
                await mine.write(move(run, status))
        await mine.accept(new_run("held", life_s=0.0), {})
        await mine.accept(new_run("early", life_s=NEVER_S), {}, claim=False)
        await in_state(mine, RunStatus.PAUSED, "endless")
        assert set((await other.due()).overdue) == {"accepted", "paused", "interrupted"}
        assert (await other.due(pipeline="other")).overdue == ()
        assert len((await other.due(limit=1)).overdue) == 1
