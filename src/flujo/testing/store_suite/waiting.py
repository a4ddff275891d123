"""Work for any live process: expired deadlines and runs without an owner."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.run import Pause, RunStatus, Write
from flujo.exceptions import (
    ResumeConflict,
    RunNotFound,
)
from flujo.testing.store_suite.examples import (
    NEVER_S,
    RUN,
    SHORT_S,
    OpenStore,
    ask,
    move,
    new_run,
)

if TYPE_CHECKING:
    from flujo.domain.store import StateStore

LATE = (("late", 0.0), ("later", NEVER_S))


class WaitingSuite:
    """Every process finds the runs that can be resumed."""

    async def test_a_question_is_due_when_its_deadline_has_passed_and_expires_once(
        self, open_store: OpenStore
    ) -> None:
        mine, other = await open_store(), await open_store()
        run = await mine.accept(new_run(), {})
        late, later = (Pause(pause_id=StepPath(n), message="?", deadline_s=s) for n, s in LATE)
        await mine.write(Write(run_id=RUN, fence=run.fence, pauses=(late, later)))
        assert (await other.due()).questions == ((RUN, StepPath("late")),)
        tries = [store.expire(RUN, pause.pause_id) for store in (mine, other) for pause in (late, later)]
        settled = await asyncio.gather(*tries)
        assert [pause.is_expired for pause in settled] == [True, False, True, False]
        assert settled[0] == settled[2]
        assert (await mine.due()).questions == ()
        with pytest.raises(RunNotFound):
            await mine.expire(RUN, StepPath("nothing"))

    async def test_the_first_of_answer_and_deadline_wins(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        asked = [Pause(pause_id=StepPath(name), message="?", deadline_s=0.0) for name in ("a", "b")]
        await store.write(Write(run_id=RUN, fence=run.fence, pauses=tuple(asked)))
        await store.answer(RUN, StepPath("a"), b"1")
        assert (await store.expire(RUN, StepPath("a"))).answer == b"1"
        assert (await store.expire(RUN, StepPath("b"))).is_expired
        with pytest.raises(ResumeConflict):
            await store.answer(RUN, StepPath("b"), b"1")
        await store.write(Write(run_id=RUN, fence=run.fence, voids=(StepPath("b"),)))
        assert (await store.pauses(RUN))[1].is_expired

    async def test_an_expired_question_can_be_reopened(self, store: StateStore) -> None:
        run = await store.accept(new_run(), {})
        pause = Pause(pause_id=StepPath("a"), message="?", deadline_s=0.0)
        await store.write(Write(run_id=RUN, fence=run.fence, pauses=(pause,)))
        assert (await store.expire(RUN, StepPath("a"))).is_expired
        await store.write(Write(run_id=RUN, fence=run.fence, pauses=(replace(pause, deadline_s=NEVER_S),)))
        (again,) = await store.pauses(RUN)
        assert again.is_open
        assert (await store.answer(RUN, StepPath("a"), b"1")).answer == b"1"

    async def test_a_resumable_run_without_an_owner_is_due(self, open_store: OpenStore) -> None:
        mine, other = await open_store(), await open_store()
        await mine.accept(new_run("held"), {})
        await mine.accept(new_run("free", closure="f" * 64, pipeline="other"), {}, claim=False)
        for status in (RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.INTERRUPTED, RunStatus.FAILED):
            run = await mine.accept(new_run(str(status)), {})
            await ask(mine, run, "approve")
            await mine.write(move(run, status))
        assert set((await other.due()).runs) == {"free", "running"}
        await other.answer(RunId("paused"), StepPath("approve"), b"true")
        assert set((await other.due()).runs) == {"free", "running", "paused"}
        assert (await other.due(pipeline="other")).runs == ("free",)
        assert set((await other.due(without=["f" * 64])).runs) == {"running", "paused"}
        assert len((await other.due(limit=1)).runs) == 1
        await other.claim(RunId("paused"), statuses=[RunStatus.PAUSED], recovering=True)
        assert set((await mine.due()).runs) == {"free", "running"}

    async def test_a_run_with_an_expired_lease_is_due(self, open_store: OpenStore) -> None:
        mine, other = await open_store(lease_s=SHORT_S, renew_s=NEVER_S), await open_store()
        await other.accept(new_run("held"), {})
        await mine.accept(new_run(), {})
        await asyncio.sleep(2 * SHORT_S)
        assert (await (await open_store()).due()).runs == (RUN,)
