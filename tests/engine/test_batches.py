"""`executor: queue`: the items of a map are executed by runs of their own, in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from pydantic import Field

from flujo import Flujo
from flujo.client import TaskClient
from flujo.domain import canonical
from flujo.domain.journal import EntryKind, RunId
from flujo.domain.models import PipelineContext
from flujo.domain.paths import StepPath
from flujo.domain.queues import ClaimOrder, QueueLimits, RunKind, task_id
from flujo.domain.recorded_run import launched_by
from flujo.domain.run import RunQuery, RunStatus
from flujo.domain.steps import HumanInTheLoopStep, MapStep, Step, StepConfig, Text
from flujo.domain.usage import UsageLimits
from flujo.exceptions import JournalConflict, TaskUnderLimit
from support import World, pipeline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flujo.domain.pipeline import Pipeline
    from flujo.domain.run import RunRecord
    from flujo.domain.store import StateStore

RUN = RunId("run")
QUEUE = "default"


class Notes(PipelineContext):
    """A context with a list."""

    notes: list[int] = Field(default_factory=list)


def spread(batch_size: int = 2, **config: Any) -> StepConfig:
    """Return the settings of a map over workers."""
    return StepConfig(executor="queue", batch_size=batch_size, **config)


def digest(*steps: Any, config: StepConfig | None = None, **keys: Any) -> MapStep:
    """Return a map over workers."""
    given = {"over": "input", "max_concurrency": 2, **keys}
    return MapStep("digest", pipeline(*steps, name="body"), config=config or spread(), **given)


def alone(tree: Pipeline, store: StateStore, **more: Any) -> Flujo[Any, Any, Any]:
    """Return a runner that recovers no run."""
    return Flujo(tree, store=store, recovery=False, **more)


async def batches_of(store: StateStore) -> list[RunRecord]:
    """Return the runs of the batches, in the order of the items."""
    found = await store.runs(RunQuery(parent=RUN, kinds=(RunKind.ITEM,)))
    return sorted(found, key=lambda each: canonical.decode(each.input)["first"])


async def worked_off(runner: Flujo[Any, Any, Any], store: StateStore) -> int:
    """Execute what is in the queue, as a worker does; return how many runs."""
    claimed = await store.claim_next(ClaimOrder(queues=((QUEUE, QueueLimits()),), limit=100))
    assert runner._services is not None
    for record in claimed:
        await (await runner._services.of_run(record)).execute(record, max_recoveries=0)
    return len(claimed)


async def finished(runner: Flujo[Any, Any, Any], store: StateStore, given: Any) -> tuple[Any, list[int]]:
    """Return the result of a run after workers have executed all its batches, and how many of each turn."""
    result, turns = await runner.run_result_async(given, run_id=RUN), []
    while result.status is RunStatus.WAITING:
        turns.append(await worked_off(runner, store))
        result = await runner.resume_async(RUN)
    return result, turns


async def test_batches_are_executed_by_workers_a_window_at_a_time(store: StateStore) -> None:
    world = World()
    tree = pipeline(
        digest(
            Step("square", world.add("square", lambda given: given["n"] * given["by"]),
                 input={"n": Text("{{ item }}"), "by": Text("{{ input.by }}")}),
            Step("same", lambda data: data),
            over="input.numbers",
        )
    )  # fmt: skip
    async with alone(tree, store) as runner:
        result, turns = await finished(runner, store, {"numbers": [1, 2, 3, 4, 5], "by": 10})
        assert (result.error, result.output, turns) == (None, [10, 20, 30, 40, 50], [2, 1])
        assert sorted(world.calls) == ["square"] * 5
        batches = await batches_of(store)
        assert [each.run_id for each in batches] == [
            task_id(RUN, StepPath(f"digest[{first}..{last}]"), 1) for first, last in ((0, 1), (2, 3), (4, 4))
        ]
        given = canonical.decode(batches[1].input)
        assert given == {"first": 2, "previous": [3, 4], "input": {"by": 10}, "names": {}}, (
            "no batch has all items"
        )
        ends = [
            each for each in await store.entries(RUN) if each.kind is EntryKind.DONE and ".." in each.path
        ]
        assert [canonical.decode(each.detail or b"")["run"] for each in ends] == [
            each.run_id for each in batches
        ]
        assert canonical.decode(ends[0].detail or b"")["digest"] == canonical.digest(batches[0].output or b"")
        assert (await runner.replay_from_trace(RUN)).output == result.output
        assert (await runner.replay_from_trace(batches[1].run_id)).output["output"] == [30, 40]
        assert launched_by(RUN, await store.entries(RUN)) == [each.run_id for each in batches], (
            "for an export"
        )


async def test_an_item_knows_its_number_in_the_whole_map(store: StateStore) -> None:
    tree = pipeline(
        digest(Step("number", lambda data: data, input={"at": Text("{{ index }}"), "it": Text("{{ word }}")}),
               item_name="word", keep="outputs")
    )  # fmt: skip
    async with alone(tree, store) as runner:
        result, _ = await finished(runner, store, ["a", "b", "c"])
    assert result.output == [{"at": 0, "it": "a"}, {"at": 1, "it": "b"}, {"at": 2, "it": "c"}]


def odd_only(data: int) -> int:
    """Fail for even numbers."""
    if data % 2 == 0:
        raise ValueError(f"{data} is even")
    return data


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"on_error": "skip"}, [1, 3]),
        ({"on_error": "collect"}, [(0, True), (1, False), (2, True), (3, False)]),
        ({"on_error": "skip", "keep": "failed"}, [(1, False), (3, False)]),
        ({"on_error": "skip", "keep": "none"}, None),
    ],
)
async def test_the_map_keeps_what_it_keeps_without_workers(keys: Any, expected: Any) -> None:
    tree = pipeline(digest(Step("odd", odd_only), **keys))
    async with Flujo[Any, Any, Any](tree, persist_state=False) as runner:
        output = (await runner.run_result_async([1, 2, 3, 4])).output
    brief = [(each["index"], each["ok"]) if isinstance(each, dict) else each for each in output or []]
    assert (brief or None) == expected


async def test_the_writes_of_all_items_are_merged_in_their_order() -> None:
    body = Step("note", lambda data: data, save={"notes": {"append": "output"}})
    tree = pipeline(digest(body, merge="context_update"))
    async with Flujo[Any, Any, Any](tree, persist_state=False, context_model=Notes) as runner:
        result = await runner.run_result_async([3, 1, 2])
    assert result.context == Notes(notes=[3, 1, 2])


async def test_a_failed_batch_is_continued_and_then_the_run(store: StateStore) -> None:
    calls: list[int] = []

    def fragile(data: int) -> int:
        calls.append(data)
        if data == 4 and calls.count(4) == 1:
            raise ValueError("the printer is off")
        return data

    tree = pipeline(digest(Step("print", fragile)))
    async with alone(tree, store) as runner:
        result, _ = await finished(runner, store, [1, 2, 3, 4, 5])
        assert result.status is RunStatus.FAILED
        assert result.error.path == "digest[3]/print"
        failed = (await batches_of(store))[1]
        assert failed.run_id in result.error.message
        assert f"flujo tasks retry {failed.run_id}" in result.error.hint
        assert len(await batches_of(store)) == 2, "no batch is launched after a failed one"
        again = await runner.resume_async(RUN, retry_failed=True)
        assert again.status is RunStatus.FAILED, "the run does not restart a batch"
        assert (await runner.resume_background_task(failed.run_id)).success
        result = await runner.resume_async(RUN, retry_failed=True)
        while result.status is RunStatus.WAITING:
            assert await worked_off(runner, store) == 1
            result = await runner.resume_async(RUN)
    assert result.output == [1, 2, 3, 4, 5]
    assert sorted(calls) == [1, 2, 3, 4, 4, 5], "an item that has completed is not executed again"


async def test_a_retry_of_a_batch_keeps_its_completed_items() -> None:
    calls: list[int] = []

    def fragile(data: int) -> int:
        calls.append(data)
        if data == 2 and calls.count(2) == 1:
            raise ValueError("the printer is off")
        return data

    tree = pipeline(digest(Step("print", fragile), config=spread(3, max_retries=1)))
    async with Flujo[Any, Any, Any](tree, persist_state=False) as runner:
        assert (await runner.run_result_async([1, 2, 3])).output == [1, 2, 3]
    assert calls == [1, 2, 2, 3]


async def test_an_iterator_is_read_as_far_as_batches_are_launched(store: StateStore) -> None:
    read = 0

    async def numbers(_: Any) -> AsyncIterator[int]:
        nonlocal read
        for number in range(7):
            read = max(read, number + 1)
            yield number

    tree = pipeline(digest(Step("same", lambda data: data), over=numbers, keep="outputs"))
    async with alone(tree, store) as runner:
        assert (await runner.run_result_async(0, run_id=RUN)).status is RunStatus.WAITING
        assert read == 4
        result, turns = None, []
        while result is None or result.status is RunStatus.WAITING:
            turns.append(await worked_off(runner, store))
            result = await runner.resume_async(RUN)
    assert (result.output, turns) == ([*range(7)], [2, 2])


async def test_other_items_after_a_resume_are_a_conflict(store: StateStore) -> None:
    given = [1, 2, 3]
    tree = pipeline(digest(Step("same", lambda data: data), over=lambda data: iterated(given)))

    async def iterated(numbers: list[int]) -> AsyncIterator[int]:
        for number in numbers:
            yield number

    async with alone(tree, store) as runner:
        await runner.run_result_async(0, run_id=RUN)
        given[0] = 9
        await worked_off(runner, store)
        result = await runner.resume_async(RUN)
    assert result.error is not None
    assert (result.error.code, "items 0 to 1" in result.error.message) == (JournalConflict.code, True)


async def test_a_question_in_an_item_is_one_of_the_run_of_its_batch(store: StateStore) -> None:
    tree = pipeline(digest(HumanInTheLoopStep("ok", message="{{ item }}?"), config=spread(1)))
    async with alone(tree, store) as runner:
        assert (await runner.run_result_async(["a"], run_id=RUN)).status is RunStatus.WAITING
        await worked_off(runner, store)
        [batch] = await batches_of(store)
        assert batch.status is RunStatus.PAUSED
        assert (await runner.resume_async(RUN)).status is RunStatus.WAITING
        await runner.resume_async(batch.run_id, "yes")
        assert (await runner.resume_async(RUN)).output == ["yes"]


async def test_a_cancelled_run_cancels_its_batches(store: StateStore) -> None:
    tree = pipeline(digest(Step("same", lambda data: data)))
    async with alone(tree, store) as runner:
        await runner.run_result_async([1, 2, 3, 4], run_id=RUN)
        await TaskClient(store).cancel_task(RUN)
        assert [each.wish is not None for each in await batches_of(store)] == [True, True]


async def test_a_queued_map_may_stand_in_another() -> None:
    inner = MapStep(
        "inner", pipeline(Step("twice", lambda data: data * 2), name="in"), over="item", config=spread(1)
    )
    tree = pipeline(digest(inner))
    async with Flujo[Any, Any, Any](tree, persist_state=False) as runner:
        assert (await runner.run_result_async([[1, 2], [3], []])).output == [[2, 4], [6], []]


async def test_each_batch_holds_its_budget_and_the_window_waits_for_room(store: StateStore) -> None:
    limits = UsageLimits(total_tokens_limit=100)
    config = spread(1, budget=UsageLimits(total_tokens_limit=60))
    tree = pipeline(digest(Step("same", lambda data: data), config=config, max_concurrency=5))
    async with alone(tree, store, usage_limits=limits) as runner:
        result, turns = await finished(runner, store, [1, 2, 3])
    assert (result.output, turns) == ([1, 2, 3], [1, 1, 1])


async def test_a_map_over_workers_under_a_limit_needs_a_budget(store: StateStore) -> None:
    tree = pipeline(digest(Step("same", lambda data: data)))
    async with alone(tree, store, usage_limits=UsageLimits(total_tokens_limit=100)) as runner:
        with pytest.raises(TaskUnderLimit, match="lets workers execute its items under a limit"):
            await runner.run_result_async([1], run_id=RUN)
