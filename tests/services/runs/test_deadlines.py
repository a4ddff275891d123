"""A question with a deadline: any live process fires it, and the first of deadline and answer wins."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.journal import EntryKind, RunId
from flujo.domain.paths import StepPath
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef
from flujo.exceptions import ResumeConflict
from flujo.services.project.recovery_policy import RecoveryPolicy
from flujo.services.runs.runner import Flujo
from support import Expr, HumanInTheLoopStep, ParallelStep, Save, Text, World, answer, call, pipeline

if TYPE_CHECKING:
    from flujo.domain.models import PipelineResult
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore
    from flujo.domain.run import RunRecord

NEVER, OFTEN = RecoveryPolicy(every_s=1e6), RecoveryPolicy(every_s=0.02)
RUN = RunId("run")


def asking(world: World, *, deadline_s: float = 0.001, on_deadline: Any = "fail") -> Pipeline:
    """Return a pipeline that asks, and uses the answer."""
    ask = HumanInTheLoopStep(
        name="ask",
        message=Text("ok?"),
        answer_schema={"type": "string"},
        deadline_s=deadline_s,
        on_deadline=on_deadline,
        save={"label": Save(Expr("output"))},
    )
    schema = {"type": "object", "properties": {"label": {"type": "string", "default": ""}}}
    return pipeline(ask, call("use", world.add("use")), context_schema=schema)


def runner(tree: Pipeline, store: StateStore, policy: RecoveryPolicy | bool = False) -> Flujo[Any, Any, Any]:
    """Return a runner that recovers runs according to `policy`."""
    return Flujo(tree, store=store, recovery=policy)


async def rested(store: StateStore, status: RunStatus) -> RunRecord:
    """Return the run once it has come to `status`."""
    async with asyncio.timeout(60):
        while True:
            record = await store.run(RUN)
            if record.status is status:
                return record
            await asyncio.sleep(0.01)


async def expired(store: StateStore, pause_id: str = "ask") -> None:
    """Return once the deadline of a question has passed, and was acted on."""
    async with asyncio.timeout(60):
        while True:
            if (await store.expire(RUN, StepPath(pause_id))).is_expired:
                return
            await asyncio.sleep(0.001)


async def asked(tree: Pipeline, store: StateStore) -> PipelineResult[Any, Any]:
    """Return a run that waits for its answer and has no live runner."""
    async with runner(tree, store) as alone:
        return await alone.run_result_async(None, run_id=RUN)


@pytest.mark.guarantee("G11")
async def test_a_deadline_that_passes_answers_for_the_human(store: StateStore) -> None:
    tree = asking(World(), on_deadline={"answer": "later"})
    assert (await asked(tree, store)).status is RunStatus.PAUSED
    async with runner(tree, store, OFTEN):
        await rested(store, RunStatus.COMPLETED)
    (answered,) = [entry for entry in await store.entries(RUN) if entry.kind is EntryKind.ANSWER]
    assert (answered.output, answered.detail) == (b'"later"', b'{"deadline":"passed"}')
    assert (await store.run(RUN)).context_now == b'{"label":"later"}'


async def test_a_deadline_fails_the_step_and_a_retry_asks_again(store: StateStore) -> None:
    world = World()
    tree = asking(world)
    await asked(tree, store)
    async with runner(tree, store, OFTEN):
        failed = await rested(store, RunStatus.FAILED)
    assert b"FLJ440" in (failed.error or b"")
    async with runner(tree, store) as alone:
        again = await alone.resume_async(RUN, retry_failed=True)
        assert (again.status, world.calls) == (RunStatus.PAUSED, [])
        assert (await store.pauses(RUN))[0].is_open
        done = await alone.resume_async(RUN, "in time")
    assert (done.status, done.output) == (RunStatus.COMPLETED, "in time")


async def test_the_run_that_failed_at_a_deadline_fails_the_same_way_when_it_is_resumed(
    store: StateStore,
) -> None:
    tree = asking(World())
    await asked(tree, store)
    await expired(store)
    async with runner(tree, store) as alone:
        first = await alone.resume_async(RUN)
    assert first.error is not None
    assert first.error.type == "DeadlinePassed"
    failures = [entry for entry in await store.entries(RUN) if entry.kind is EntryKind.ANSWER]
    assert len(failures) == 1


async def test_an_answer_after_the_deadline_is_refused_with_what_won(store: StateStore) -> None:
    tree = asking(World(), on_deadline={"answer": "later"})
    await asked(tree, store)
    await expired(store)
    with pytest.raises(ResumeConflict, match="deadline") as caught:
        await answer(store, "ask", "too late")
    assert caught.value.facts["won"] == "deadline"


async def test_an_answer_before_the_deadline_is_handled_wins(store: StateStore) -> None:
    tree = asking(World(), on_deadline={"answer": "later"})
    await asked(tree, store)
    await answer(store, "ask", "just in time")
    assert (await store.expire(RUN, StepPath("ask"))).answer == b'"just in time"'
    async with runner(tree, store, OFTEN):
        record = await rested(store, RunStatus.COMPLETED)
    assert record.output == b'"just in time"'


async def test_a_question_stays_open_until_its_deadline(store: StateStore) -> None:
    tree = asking(World(), deadline_s=3600)
    result = await asked(tree, store)
    (pause,) = await store.pauses(RUN)
    assert pause.deadline_at == pytest.approx((pause.asked_at or 0) + 3600, abs=5)
    assert (await store.expire(RUN, StepPath("ask"))).is_open
    assert result.pauses[0].deadline_s == 3600
    assert (await store.due()).questions == ()


@pytest.mark.guarantee("G11")
async def test_a_resume_does_not_move_the_deadline(store: StateStore) -> None:
    tree = asking(World(), deadline_s=3600)
    await asked(tree, store)
    before = await store.pauses(RUN)
    async with runner(tree, store) as alone:
        assert (await alone.resume_async(RUN)).status is RunStatus.PAUSED
    assert await store.pauses(RUN) == before


async def test_a_deadline_that_passes_while_a_sibling_works_is_used_by_the_same_run(
    store: StateStore,
) -> None:
    world = World()

    async def slow(data: Any) -> Any:
        await expired(store, "both:human/ask")
        return data

    ask = HumanInTheLoopStep(
        name="ask", message=Text("ok?"), deadline_s=0.001, on_deadline={"answer": "nobody"}
    )
    first = call("first", world.add("first"))
    beside = call("beside", CallableRef("world:slow", slow))
    tree = pipeline(
        ParallelStep(name="both", branches={"human": pipeline(ask), "work": pipeline(first, beside)})
    )
    result = await asked(tree, store)
    assert result.status is RunStatus.COMPLETED
    assert result.output == {"human": "nobody", "work": None}


@pytest.mark.parametrize("retry_failed", [False, True])
async def test_a_resume_acts_on_a_deadline_that_has_passed(store: StateStore, retry_failed: bool) -> None:
    world = World()
    async with runner(asking(world, on_deadline={"answer": "nobody"}), store) as alone:
        assert (await alone.run_result_async("x", run_id=RUN)).status is RunStatus.PAUSED
        await asyncio.sleep(0.01)
        assert (await alone.resume_async(RUN, retry_failed=retry_failed)).success
    assert world.calls == ["use"]


async def test_a_resume_lets_a_question_stay_open_whose_deadline_is_to_come(store: StateStore) -> None:
    async with runner(asking(World(), deadline_s=600), store) as alone:
        await alone.run_result_async("x", run_id=RUN)
        assert (await alone.resume_async(RUN)).status is RunStatus.PAUSED
