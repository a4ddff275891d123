"""`sleep`: a run waits by the database's clock, holds no process, and any process continues it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from flujo.client import TaskClient
from flujo.domain.journal import EntryKind, RunId
from flujo.domain.paths import StepPath
from flujo.domain.run import PauseKind, RunQuery, RunStatus
from flujo.domain.steps import HumanInTheLoopStep, ParallelStep, SleepStep, Text
from flujo.exceptions import PipelineError, ResumeConflict, WrongPauseKind
from flujo.services.project.recovery_policy import RecoveryPolicy
from flujo.services.runs.run_request import Request
from flujo.services.runs.runner import Flujo
from support import World, call, pipeline

if TYPE_CHECKING:
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore

RUN = RunId("run")
OFTEN = RecoveryPolicy(every_s=0.02)


def napping(world: World, **keys: Any) -> Pipeline:
    """Return a pipeline that sleeps between two steps."""
    return pipeline(
        call("before", world.add("before")), SleepStep("rest", **keys), call("after", world.add("after"))
    )


def runner(tree: Pipeline, store: StateStore, **more: Any) -> Flujo[Any, Any, Any]:
    """Return a runner; it recovers no run by default."""
    return Flujo(tree, store=store, **{"recovery": False, **more})


@pytest.fixture
def leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process waits for no run, as if each wait were longer than a minute."""
    monkeypatch.setattr("flujo.services.runs.runner.Request", partial(Request, longest_wait_s=0))


async def begun(tree: Pipeline, store: StateStore) -> None:
    """Start the run, and leave it when it waits."""
    async with runner(tree, store) as alone:
        result = await alone.run_result_async(0, run_id=RUN)
    assert result.status is RunStatus.WAITING


async def reached(store: StateStore, status: RunStatus) -> None:
    """Return once the run has this status."""
    async with asyncio.timeout(60):
        while not [each for each in await store.runs(RunQuery()) if each.status is status]:  # noqa: ASYNC110 - a database has no events
            await asyncio.sleep(0.01)


def moment(seconds: float) -> str:
    """Return a moment that many seconds from now."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def test_a_short_wait_ends_in_the_same_call_and_passes_the_value_on(store: StateStore) -> None:
    world = World()
    async with runner(napping(world, for_s=0.05), store) as alone:
        result = await alone.run_result_async({"n": 1}, run_id=RUN)
    assert (result.status, result.output) == (RunStatus.COMPLETED, {"n": 1})
    assert world.calls == ["before", "after"]
    (wait,) = await store.pauses(RUN)
    assert wait.deadline_at is not None
    assert wait.asked_at is not None
    assert wait.deadline_at == pytest.approx(wait.asked_at + 0.05)
    assert (wait.answered_at or 0) >= wait.deadline_at


@pytest.mark.guarantee("G11")
@pytest.mark.usefixtures("leaves")
async def test_a_run_that_waits_holds_no_process_and_any_process_continues_it(store: StateStore) -> None:
    world = World()
    await begun(napping(world, for_s=0.4), store)
    record = await store.run(RUN)
    assert (record.status, record.owner, world.calls) == (RunStatus.WAITING, None, ["before"])
    async with runner(napping(world, for_s=0.4), store, recovery=OFTEN):
        await reached(store, RunStatus.COMPLETED)
    assert world.calls == ["before", "after"]
    (slept,) = [entry for entry in await store.entries(RUN) if entry.kind is EntryKind.ANSWER]
    assert slept.path == "rest"


async def test_a_resume_does_not_extend_the_wait(store: StateStore) -> None:
    world = World()
    await begun(napping(world, for_s=3600), store)
    (before,) = await store.pauses(RUN)
    async with runner(napping(world, for_s=5), store) as alone:
        result = await alone.resume_async(RUN)
    assert (result.status, world.calls) == (RunStatus.WAITING, ["before"])
    assert [each.deadline_at for each in result.pauses] == [before.deadline_at]
    assert await store.pauses(RUN) == [before]


async def test_a_moment_in_the_past_ends_the_wait_at_once(store: StateStore) -> None:
    world = World()
    async with runner(napping(world, until="input.at"), store) as alone:
        result = await alone.run_result_async({"at": "2026-01-31T08:00:00+01:00"}, run_id=RUN)
    assert (result.status, world.calls) == (RunStatus.COMPLETED, ["before", "after"])
    (wait,) = await store.pauses(RUN)
    assert wait.deadline_at == datetime(2026, 1, 31, 7, tzinfo=UTC).timestamp()


async def test_a_callable_may_name_the_moment(store: StateStore) -> None:
    at = moment(3600)
    async with runner(napping(World(), until=lambda: at), store) as alone:
        result = await alone.run_result_async(0, run_id=RUN)
    assert result.status is RunStatus.WAITING
    assert [each.message for each in result.pauses] == [f"waits until {at}"]


@pytest.mark.parametrize("until", ["'tomorrow'", "'2026-11-29T09:00:00'", "7"])
async def test_a_moment_without_a_zone_or_a_date_fails_the_step(until: str) -> None:
    result = await Flujo(napping(World(), until=until), persist_state=False).run_result_async(0)
    assert result.error is not None
    assert (result.error.code, result.error.path) == ("FLJ404", "rest")
    assert "a moment with a time zone" in result.error.message


async def test_a_wait_cannot_be_answered(store: StateStore) -> None:
    world = World()
    await begun(napping(world, for_s=3600), store)
    async with runner(napping(world, for_s=3600), store) as alone:
        with pytest.raises(ResumeConflict, match="only a paused run can be answered"):
            await alone.resume_async(RUN, "yes")
        with pytest.raises(WrongPauseKind, match="a wait, which ends by itself"):
            await alone.resume_async(RUN, "yes", pause_id="rest")
    assert world.calls == ["before"]


async def test_a_run_that_is_cancelled_while_it_waits_here_ends_cancelled(store: StateStore) -> None:
    async with runner(napping(World(), for_s=30), store) as alone:
        waiting = asyncio.create_task(alone.run_result_async(0, run_id=RUN))
        await reached(store, RunStatus.WAITING)
        await TaskClient(store).cancel_task(RUN)
        result = await asyncio.wait_for(waiting, 20)
    assert result.status is RunStatus.CANCELLED


async def test_beside_a_question_the_run_is_paused_and_both_continue_by_themselves(store: StateStore) -> None:
    world = World()
    branches = {
        "human": pipeline(HumanInTheLoopStep("ask", message=Text("ok?"))),
        "time": pipeline(SleepStep("rest", for_s=0.2), call("woken", world.add("woken"))),
    }
    tree = pipeline(ParallelStep("both", branches=branches), call("after", world.add("after")))
    async with runner(tree, store) as alone:
        result = await alone.run_result_async(0, run_id=RUN)
    assert result.status is RunStatus.PAUSED
    assert {each.kind for each in result.pauses} == {PauseKind.QUESTION, PauseKind.SLEEP}
    async with runner(tree, store, recovery=OFTEN):
        async with asyncio.timeout(60):
            while "woken" not in world.calls:  # noqa: ASYNC110 - a log has no events
                await asyncio.sleep(0.01)
        await TaskClient(store).resume_task(RUN, True)
        await reached(store, RunStatus.COMPLETED)
    assert world.calls == ["woken", "after"]


async def test_a_run_is_answered_although_a_branch_of_it_sleeps(store: StateStore) -> None:
    branches = {
        "human": pipeline(HumanInTheLoopStep("ask", message=Text("ok?"))),
        "time": pipeline(SleepStep("rest", for_s=3600)),
    }
    async with runner(pipeline(ParallelStep("both", branches=branches)), store) as alone:
        await alone.run_result_async(0, run_id=RUN)
    client = TaskClient(store)
    (asked,) = await client.list_tasks(status="paused")
    assert [each.pause_id for each in asked.questions] == ["both:human/ask"]
    await client.resume_task(RUN, True, detach=True)
    assert [each.run_id for each in await client.list_tasks(status="answered")] == [RUN]


async def test_a_failed_run_that_is_retried_does_not_wait_again(store: StateStore) -> None:
    world = World()

    def fails_once(data: Any) -> Any:
        if world.calls.count("after") == 1:
            raise ValueError("once")
        return data

    tree = pipeline(SleepStep("rest", for_s=0.05), call("after", world.add("after", fails_once)))
    async with runner(tree, store) as alone:
        assert (await alone.run_result_async(0, run_id=RUN)).status is RunStatus.FAILED
        asked = [each.asked_at for each in await store.pauses(RUN)]
        assert (await alone.resume_async(RUN, retry_failed=True)).success
    assert [each.asked_at for each in await store.pauses(RUN)] == asked
    assert len(await store.entries(RUN, paths=[StepPath("rest")])) == 1


@pytest.mark.usefixtures("leaves")
async def test_without_persistence_a_run_waits_to_the_end_because_no_process_can_continue_it() -> None:
    tree = napping(World(), for_s=0.02)
    result = await Flujo(tree, persist_state=False).run_result_async(5)
    assert result.output == 5


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({}, "no `for_s` or `until`"),
        ({"for_s": 1, "until": "input"}, "`for_s` and `until`"),
        ({"for_s": 0}, "more than 0"),
        ({"for_s": "3d"}, "expected seconds"),
        ({"for_s": True}, "expected seconds"),
        ({"for_s": float("inf")}, "expected seconds"),
        ({"until": 5}, "expected an expression"),
    ],
)
def test_a_sleep_without_one_usable_end_is_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(PipelineError, match=words):
        SleepStep("rest", **keys)
