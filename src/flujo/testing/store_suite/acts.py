"""Who changed a run: acts are recorded with their change, and the owner fulfils a cancellation request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from flujo.domain.acts import Act, Actor, Verb, Via
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath, doubt
from flujo.domain.run import Move, Pause, PauseKind, RunStatus, Write
from flujo.exceptions import Fenced, ResumeConflict, RunNotFound
from flujo.testing.store_suite.examples import RUN, OpenStore, ask, entry, in_state, move, new_run, writes

if TYPE_CHECKING:
    from flujo.domain.store import StateStore

ADA, BOB = Actor("ada", Via.CLI), Actor("bob", Via.API)
NOTICE_S = 10.0
"""How long a test waits until the owner hears of a request; usually a second or two."""


class ActsSuite:
    """An act is recorded exactly when its change is."""

    async def test_an_answer_is_recorded_with_its_author(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        await ask(store, run, "send", "note")
        await store.answer(RUN, StepPath("send"), b'"yes"', actor=ADA)
        await store.answer(RUN, StepPath("send"), b'"yes"', actor=BOB)
        with pytest.raises(ResumeConflict):
            await store.answer(RUN, StepPath("send"), b'"no"', actor=BOB)
        await store.answer(RUN, StepPath("note"), b'"x"')
        [act] = await store.acts(RUN)
        assert (act.verb, act.actor, act.run_id, act.object) == (Verb.ANSWER, ADA, RUN, "send")
        assert (act.before, act.after) == (None, b'"yes"')
        answered = {pause.pause_id: pause for pause in await store.pauses(RUN)}
        assert (answered[StepPath("send")].by, answered[StepPath("note")].by) == ("ada", None)
        assert act.at == pytest.approx(answered[StepPath("send")].answered_at, abs=1)
        assert await store.acts(RunId("nobody")) == []

    async def test_a_question_keeps_its_kind(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        pauses = (
            Pause(pause_id=StepPath("ask"), message="?"),
            Pause(pause_id=doubt(StepPath("pay"), 0), message="?", kind=PauseKind.DOUBT),
        )
        await store.write(Write(run_id=RUN, fence=run.fence, pauses=pauses))
        assert [each.kind for each in await store.pauses(RUN)] == [PauseKind.QUESTION, PauseKind.DOUBT]
        await store.answer(RUN, doubt(StepPath("pay"), 0), b"{}", actor=ADA)
        assert [act.verb for act in await store.acts(RUN)] == [Verb.RESOLVE]

    async def test_a_claim_and_a_write_record_their_actions_in_order(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        await in_state(mine, RunStatus.FAILED, RUN)
        retry = Act(verb=Verb.RETRY, actor=ADA, run_id=RUN, before=b'"' + b"x" * 40_000 + b'"')
        run = await other.claim(RUN, statuses=[RunStatus.FAILED], act=retry)
        with pytest.raises(ResumeConflict):
            await mine.claim(RUN, statuses=[RunStatus.RUNNING], act=retry)
        change = Act(verb=Verb.ACCEPT_CHANGES, actor=BOB, run_id=RUN, object="a.yaml", after=b"1")
        await other.write(Write(run_id=RUN, fence=run.fence, entries=(entry(1),), acts=(change,)))
        with pytest.raises(Fenced):
            await mine.write(Write(run_id=RUN, fence=run.fence - 1, acts=(change,)))
        acts = await mine.acts(RUN)
        assert [(act.verb, act.actor) for act in acts] == [(Verb.RETRY, ADA), (Verb.ACCEPT_CHANGES, BOB)]
        assert (acts[0].before, acts[1].object, acts[1].after) == (retry.before, "a.yaml", b"1")

    async def test_a_cancellation_request_leaves_the_run_to_its_owner(self, open_store: OpenStore) -> None:
        owner, other = await open_store(), await open_store()
        run = await owner.accept(new_run(), {})
        noticed = asyncio.Event()
        owner.on_wish(RUN, noticed.set)
        requested = await other.cancel(RUN, ADA)
        assert (requested.status, requested.owner) == (RunStatus.RUNNING, run.owner)
        assert requested.wish is not None
        assert (requested.wish.what, requested.wish.by) == ("cancel", "ada")
        assert (await other.cancel(RUN, BOB)).wish == requested.wish, "the first request stays"
        await owner.write(writes(run, entry(1)))
        async with asyncio.timeout(NOTICE_S):
            await noticed.wait()
        await owner.write(Write(run_id=RUN, fence=run.fence, move=Move(status=RunStatus.CANCELLED)))
        assert [(act.verb, act.actor) for act in await other.acts(RUN)] == [(Verb.CANCEL, ADA)]
        with pytest.raises(ResumeConflict):
            await other.cancel(RUN, BOB)
        with pytest.raises(RunNotFound):
            await other.cancel(RunId("nobody"), ADA)

    async def test_a_cancellation_request_waits_for_an_unowned_run(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        run = await mine.accept(new_run(), {})
        await mine.write(move(run, RunStatus.PAUSED))
        await other.cancel(RUN, ADA)
        claimed = await mine.claim(RUN, statuses=[RunStatus.PAUSED])
        assert claimed.wish is not None
        assert claimed.wish.by == "ada"
        assert (await other.run(RUN)).wish == claimed.wish

    @pytest.mark.parametrize("status", list(RunStatus))
    async def test_a_cancellation_can_be_requested_for_every_cancellable_run(
        self, store: StateStore, status: RunStatus
    ) -> None:
        await in_state(store, status, RUN)
        if status.can_become(RunStatus.CANCELLED):
            assert (await store.cancel(RUN, ADA)).wish is not None
        else:
            with pytest.raises(ResumeConflict):
                await store.cancel(RUN, ADA)
            assert (await store.run(RUN)).wish is None
