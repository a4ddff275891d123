"""The deadline of a run ends it, whether a process executes it, it waits, or no process has taken it yet."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flujo import Flujo, Pipeline, Step
from flujo.domain.journal import RunId
from flujo.domain.run import Move, RunStatus, Write
from flujo.domain.steps import ContinueAsNewStep, HumanInTheLoopStep, SleepStep
from flujo.exceptions import InputRejected, PipelineError, RunDeadlinePassed, RunNotFound
from flujo.services.inspection.task_client import TaskClient
from flujo.services.project.recovery_policy import RecoveryPolicy

if TYPE_CHECKING:
    from flujo.domain.store import StateStore
    from flujo.domain.values import TimeLimited

OFTEN = RecoveryPolicy(every_s=0.02)
RUN = RunId("run")
SOON_S = 0.1


def tree(*steps: Any, deadline_s: TimeLimited = SOON_S, **keys: Any) -> Pipeline:
    return Pipeline(steps, name="p", deadline_s=deadline_s, **keys)


def asks() -> HumanInTheLoopStep:
    return HumanInTheLoopStep("ask", message="ok?")


async def ended(store: StateStore) -> str:
    """Return the error of the run once it has failed."""
    async with asyncio.timeout(60):
        while True:
            record = await store.run(RUN)
            if record.status is RunStatus.FAILED:
                return (record.error or b"").decode()
            await asyncio.sleep(0.01)


async def test_the_owner_stops_a_run_that_is_too_late(store: StateStore) -> None:
    begun: list[int] = []

    async def never_ends(_: Any) -> None:
        begun.append(1)
        await asyncio.Event().wait()

    pipeline = tree(Step("hold", never_ends), Step("next", lambda _: begun.append(2)))
    async with Flujo(pipeline, store=store, recovery=False) as runner:
        result = await runner.run_result_async(1, run_id="run")
        assert (result.status, result.error.code if result.error else "") == ("failed", "FLJ531")
        assert result.ends_by == (await store.run(RUN)).ends_by
        assert begun == [1]
        again = await runner.resume_async("run", retry_failed=True)
        assert again.error is not None
        assert again.error.code == RunDeadlinePassed.code, "a retry does not extend the life of a run"
        assert begun == [1]


async def test_a_run_that_ends_in_time_is_not_touched(store: StateStore) -> None:
    async with Flujo(tree(Step("double", lambda data: data * 2), deadline_s=60), store=store) as runner:
        assert (await runner.run_result_async(2)).output == 4


async def test_any_process_ends_a_run_that_waits_for_too_long(store: StateStore) -> None:
    async with Flujo(tree(asks()), store=store, recovery=False) as runner:
        assert (await runner.run_result_async(1, run_id="run")).status is RunStatus.PAUSED
    async with Flujo(tree(asks()), store=store, recovery=OFTEN) as other:
        await other._open()
        assert "FLJ531" in await ended(store)
    assert not any(pause.is_open for pause in await store.pauses(RUN))


async def test_a_wait_in_this_process_ends_with_the_run(store: StateStore) -> None:
    async with Flujo(tree(SleepStep("wait", for_s=30)), store=store, recovery=False) as runner:
        result = await runner.run_result_async(1, run_id="run")
    assert (result.status, result.error.code if result.error else "") == ("failed", "FLJ531")


async def test_an_interrupted_run_ends_at_its_deadline_as_well(store: StateStore) -> None:
    async with Flujo(tree(asks()), store=store, recovery=False) as runner:
        await runner.run_result_async(1, run_id="run")
        claimed = await store.claim(RUN, statuses=[RunStatus.PAUSED])
        move = Move(status=RunStatus.INTERRUPTED)
        await store.write(Write(run_id=RUN, fence=claimed.fence, move=move))
    async with Flujo(tree(asks()), store=store, recovery=OFTEN) as other:
        await other._open()
        assert "FLJ531" in await ended(store)


async def test_a_cancel_that_came_first_wins(store: StateStore) -> None:
    async with Flujo(tree(asks(), deadline_s=60), store=store, recovery=False) as runner:
        await runner.run_result_async(1, run_id="run")
    assert (await TaskClient(store).cancel_task("run")).status is RunStatus.CANCELLED
    assert (await store.due()).overdue == ()


@pytest.mark.parametrize("given", [0, -1, "3d", True, {"value": "input"}])
def test_a_deadline_that_is_not_a_time_is_an_error(given: Any) -> None:
    with pytest.raises(PipelineError, match="`deadline_s`"):
        tree(asks(), deadline_s=given)


FROM_INPUT: TimeLimited = {"value": "{{ input.days * 86400 }}", "max": 864_000}
NEEDS_DAYS = {"type": "object", "properties": {"days": {"type": "number"}}}


async def test_the_life_of_a_run_comes_from_its_input(store: StateStore) -> None:
    pipeline = tree(asks(), deadline_s=FROM_INPUT, input_schema=NEEDS_DAYS)
    async with Flujo(pipeline, store=store, recovery=False) as runner:
        await runner.run_result_async({"days": 2}, run_id="run")
        forked = await runner.fork_async("run", at="ask", initial_input={"days": 3})
    lives = [await store.run(RunId(run_id)) for run_id in ("run", forked.run_id or "")]
    assert [round((each.ends_by or 0) - each.created_at) for each in lives] == [2 * 86_400, 3 * 86_400]


async def test_a_run_whose_life_has_no_value_is_not_accepted(store: StateStore) -> None:
    pipeline = tree(asks(), deadline_s=FROM_INPUT)
    async with Flujo(pipeline, store=store, recovery=False) as runner:
        with pytest.raises(InputRejected, match=r"does not fit the `deadline` of 'p'.*has no `days`"):
            await runner.run_result_async({}, run_id="run")
        with pytest.raises(InputRejected, match="is 950400, not a number of seconds above 0, up to 10d"):
            await runner.run_result_async({"days": 11}, run_id="run")
    with pytest.raises(RunNotFound):
        await store.run(RUN)


async def test_a_run_is_not_continued_with_an_input_that_gives_its_successor_no_life(
    store: StateStore,
) -> None:
    next_one = ContinueAsNewStep("next", input={"days": "{{ input.days * 3 }}"})
    async with Flujo(tree(next_one, deadline_s=FROM_INPUT), store=store, recovery=False) as runner:
        result = await runner.run_result_async({"days": 2}, run_id="run")
    assert result.error is not None
    assert (result.run_id, result.error.code, result.error.path) == ("run~2", "FLJ601", "next")
    last = await store.run(RunId("run~2"))
    assert round((last.ends_by or 0) - last.created_at) == 6 * 86_400
