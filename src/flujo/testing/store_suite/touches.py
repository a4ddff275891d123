"""Which requests make a run younger: purging by age and listings depend on `updated_at`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from flujo.domain.acts import Act, Actor, Verb, Via
from flujo.domain.paths import StepPath
from flujo.domain.queues import NO_LIMITS, ClaimOrder, Queued
from flujo.domain.run import (
    GivenAnswer,
    Intent,
    IntentState,
    Pause,
    PauseKind,
    RunQuery,
    RunStatus,
    Write,
)
from flujo.domain.sent_events import NewEvent
from flujo.domain.store import StateStore
from flujo.testing.store_suite.examples import (
    RUN,
    SHORT_S,
    OpenStore,
    ask,
    entry,
    in_state,
    move,
    new_run,
    writes,
)

if TYPE_CHECKING:
    from flujo.domain.run import RunRecord

ADA = Actor("ada", Via.CLI)
TICK_S = 0.02
"""Longer than one tick of any database's clock."""
NAME = StepPath("send")
NEXT = ClaimOrder(queues=(("mail", NO_LIMITS),), limit=1)

Change = Callable[[StateStore], Awaitable[object]]


async def _paused(store: StateStore, deadline_s: float | None = None) -> None:
    run = await store.accept(new_run(), {})
    pauses = (Pause(pause_id=NAME, message="send?", answer_schema=b"{}", deadline_s=deadline_s),)
    await store.write(Write(run_id=RUN, fence=run.fence, pauses=pauses))
    await store.write(move(run, RunStatus.PAUSED))


async def _expire(store: StateStore) -> object:
    await asyncio.sleep(SHORT_S * 1.5)
    return await store.expire(RUN, NAME)


async def _retry(store: StateStore) -> object:
    act = Act(verb=Verb.RETRY, actor=ADA, run_id=RUN)
    return await store.claim(RUN, statuses=[RunStatus.FAILED], act=act)


async def _continue(store: StateStore) -> object:
    answer = GivenAnswer(pause_id=NAME, value=b"true", actor=ADA)
    return await store.claim(RUN, statuses=[RunStatus.PAUSED], answer=answer)


async def _queued(store: StateStore) -> object:
    return await store.accept(new_run(queued=Queued(queue="mail")), {}, claim=False)


async def _waiting(store: StateStore) -> None:
    run = await store.accept(new_run(), {})
    wait = Pause(pause_id=NAME, message="waits", kind=PauseKind.EVENT, event="sent")
    await store.write(Write(run_id=RUN, fence=run.fence, pauses=(wait,)))
    await store.write(move(run, RunStatus.WAITING))


async def _send(store: StateStore) -> object:
    return await store.send_event(NewEvent(event_id="e1", name="sent", payload=b"1", actor=ADA, run_id=RUN))


async def _running(store: StateStore) -> RunRecord:
    return await store.accept(new_run(), {})


TOUCHING: dict[str, tuple[Change, Change]] = {
    "answer": (_paused, lambda store: store.answer(RUN, NAME, b"true", actor=ADA)),
    "answer without an author": (_paused, lambda store: store.answer(RUN, NAME, b"true")),
    "expire": (lambda store: _paused(store, SHORT_S), _expire),
    "cancel": (_paused, lambda store: store.cancel(RUN, ADA)),
    "claim": (_paused, lambda store: store.claim(RUN, statuses=[RunStatus.PAUSED])),
    "claim with an answer": (_paused, _continue),
    "claimnext": (_queued, lambda store: store.claim_next(NEXT)),
    "send": (_waiting, _send),
    "retry": (lambda store: in_state(store, RunStatus.FAILED, RUN), _retry),
}
"""Requests that change a run: what goes before each, and the request."""


def moving(status: RunStatus) -> tuple[Change, Change]:
    """Return the request that moves a running run to a status."""

    async def change(store: StateStore) -> None:
        await store.write(move(await store.run(RUN), status))

    return _running, change


TOUCHING |= {
    f"move to {status}": moving(status) for status in RunStatus if RunStatus.RUNNING.can_become(status)
}


class TouchesSuite:
    """A change of a run makes it younger; reading it, and renewing its lease, do not."""

    @pytest.mark.parametrize("name", TOUCHING)
    async def test_a_change_makes_a_run_younger(self, store: StateStore, name: str) -> None:
        prepare, change = TOUCHING[name]
        await prepare(store)
        before = await store.run(RUN)
        await asyncio.sleep(TICK_S)
        await change(store)
        after = await store.run(RUN)
        assert after.updated_at > before.updated_at
        assert after.created_at == before.created_at
        [listed] = await store.runs(RunQuery())
        assert listed.updated_at == after.updated_at

    async def test_a_returned_record_has_the_new_time(self, store: StateStore) -> None:
        await _paused(store)
        assert (await store.cancel(RUN, ADA)).updated_at == (await store.run(RUN)).updated_at
        claimed = await store.claim(RUN, statuses=[RunStatus.PAUSED])
        assert claimed.updated_at == (await store.run(RUN)).updated_at

    async def test_a_request_that_changes_nothing_leaves_the_time(self, store: StateStore) -> None:
        await _paused(store)
        await store.answer(RUN, NAME, b"true", actor=ADA)
        await store.cancel(RUN, ADA)
        before = await store.run(RUN)
        await asyncio.sleep(TICK_S)
        await store.answer(RUN, NAME, b"true", actor=ADA)
        await store.expire(RUN, NAME)
        await store.cancel(RUN, ADA)
        assert (await store.run(RUN)).updated_at == before.updated_at

    async def test_a_renewal_and_the_steps_of_a_claim_leave_the_time(self, store: StateStore) -> None:
        run = await _running(store)
        await asyncio.sleep(TICK_S)
        await store.write(Write(run_id=RUN, fence=run.fence))
        await store.write(writes(run, entry(1)))
        await ask(store, run, "send")
        call = Intent(key="k", path=NAME, tool="a:b", state=IntentState.SENT, input=b"1")
        await store.write(Write(run_id=RUN, fence=run.fence, intents=(call,)))
        assert (await store.run(RUN)).updated_at == run.updated_at

    async def test_recovery_takes_the_run_that_was_answered_first(self, open_store: OpenStore) -> None:
        store = await open_store()
        for run_id in ("a", "b", "c"):
            run = await store.accept(new_run(run_id), {})
            await ask(store, run, "send")
            await store.write(move(run, RunStatus.PAUSED))
        for run_id in ("c", "a", "b"):
            await asyncio.sleep(TICK_S)
            await store.answer(new_run(run_id).run_id, NAME, b"true")
        assert list((await store.due()).runs) == ["c", "a", "b"]
