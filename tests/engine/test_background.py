"""Background steps and `await`: a task is a run of its own, and its parent takes its result."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flujo.client import TaskClient
from flujo.domain import canonical
from flujo.domain.events import StepEnded
from flujo.domain.journal import RunId
from flujo.domain.models import PipelineContext
from flujo.domain.outcomes import BackgroundLaunched
from flujo.domain.paths import StepPath
from flujo.domain.pipeline import Pipeline
from flujo.domain.queues import RunKind, task_id
from flujo.domain.run import PauseKind, RunQuery, RunStatus
from flujo.domain.steps import (
    AwaitStep,
    HumanInTheLoopStep,
    ImportStep,
    MapStep,
    ParallelStep,
    Step,
    StepConfig,
    Text,
)
from flujo.domain.usage import UsageLimits
from flujo.exceptions import PipelineError, TaskUnderLimit
from flujo.services.project.recovery_policy import RecoveryPolicy
from flujo.services.runs.runner import Flujo
from flujo.state.memory_store import MemoryStateStore
from support import World, pipeline

if TYPE_CHECKING:
    from flujo.domain.ports import StateStore
    from flujo.domain.run import RunRecord

RUN = RunId("run")
BACKGROUND = StepConfig(execution_mode="background")
OFTEN = RecoveryPolicy(every_s=0.02)


class Kept(PipelineContext):
    """A context with one field."""

    note: str = "first"


def runner(tree: Pipeline, store: StateStore, **more: Any) -> Flujo[Any, Any, Any]:
    """Return a runner; it recovers no run by default."""
    return Flujo(tree, store=store, **{"recovery": False, **more})


async def tasks_of(store: StateStore, run_id: RunId = RUN) -> list[RunRecord]:
    """Return the tasks of a run, the oldest first."""
    return (await store.runs(RunQuery(parent=run_id)))[::-1]


async def reached(store: StateStore, status: RunStatus, run_id: RunId = RUN) -> RunRecord:
    """Return the run once it has this status."""
    async with asyncio.timeout(60):
        while (record := await store.run(run_id)).status is not status:  # noqa: ASYNC110 - a database has no events
            await asyncio.sleep(0.01)
    return record


class Gate:
    """A step that waits until it is opened."""

    def __init__(self) -> None:
        self.entered, self.opened = asyncio.Event(), asyncio.Event()

    async def __call__(self, data: Any) -> Any:
        """Return the data once the gate is open."""
        self.entered.set()
        await self.opened.wait()
        return data


def launching(world: World, **keys: Any) -> Pipeline:
    """Return a pipeline that launches a task, continues, and takes the task's result."""
    return pipeline(
        Step("before", world.add("before", lambda data: data + 1)),
        Step("report", world.add("report", keys.pop("work", lambda data: {"got": data})), config=BACKGROUND),
        Step("after", world.add("after")),
        AwaitStep("result", task="report", **keys),
    )


async def test_the_run_continues_and_takes_the_result_of_the_task(store: StateStore) -> None:
    world, gate = World(), Gate()
    events: list[StepEnded] = []

    async def hook(event: Any) -> None:
        if isinstance(event, StepEnded) and event.path == "report" and not event.recorded:
            events.append(event)
        if isinstance(event, StepEnded) and event.path == "after":
            gate.opened.set()

    tree = pipeline(
        Step("before", world.add("before", lambda data: data + 1)),
        Step("report", gate, config=BACKGROUND),
        Step("after", world.add("after")),
        AwaitStep("result", task="report"),
    )
    async with runner(tree, store) as alone:
        result = await alone.run_result_async(7, run_id=RUN, sink=hook)
    assert (result.status, result.output) == (RunStatus.COMPLETED, 8)
    assert world.calls == ["before", "after"]
    [task] = await tasks_of(store)
    assert task.run_id == task_id(RUN, StepPath("report"), 1)
    assert (task.kind, task.status, task.pipeline) == (RunKind.TASK, RunStatus.COMPLETED, tree.name)
    assert [each.outcome for each in events] == [BackgroundLaunched(task.run_id)]
    pinned = canonical.decode((await store.blobs([task.closure]))[task.closure])
    assert pinned == {"task": (await store.run(RUN)).closure, "entry": "report"}, (
        "no other version loads this"
    )
    [launch] = await store.entries(RUN, paths=[StepPath("report")])
    assert canonical.decode(launch.output or b"") == {"task_id": task.run_id}
    launched = result.steps[1]
    assert (launched.path, launched.status) == ("report", "running")
    assert launched.output == {"task_id": task.run_id}


async def test_a_task_reads_what_its_step_can_read_and_a_copy_of_the_context(store: StateStore) -> None:
    seen: list[Any] = []

    def look(text: str, context: Kept) -> str:
        seen.append((text, context.note))
        context.note = "of the task"
        return text

    def change(data: Any, context: Kept) -> Any:
        context.note = "second"
        return data

    body = Pipeline(
        (
            Step("name", lambda data: f"n{data}"),
            Step("look", look, arguments={"text": Text("{{ steps.first.output }} {{ item }} {{ steps.name.output }}")},
                 config=BACKGROUND),
        )
    )  # fmt: skip
    tree = Pipeline(
        (
            Step("first", lambda data: "hello"),
            MapStep("each", over="input", body=body),
            Step("change", change),
            AwaitStep("done", tasks="{{ steps.each.output }}"),
        ),
        name="p",
        context_type=Kept,
    )
    async with runner(tree, store) as alone:
        result = await alone.run_result_async([1, 2], run_id=RUN)
    assert result.output == ["hello 1 n1", "hello 2 n2"], result.error
    assert sorted(seen) == [("hello 1 n1", "first"), ("hello 2 n2", "first")]
    assert result.context is not None
    assert result.context.note == "second"
    assert {task.parent.entry for task in await tasks_of(store) if task.parent} == {"each/look"}


async def test_a_task_of_a_composite_is_a_run_with_steps_and_tasks_of_its_own(store: StateStore) -> None:
    world = World()
    inner = Pipeline((Step("deep", world.add("deep", lambda data: data * 2), config=BACKGROUND),
                      AwaitStep("got", task="deep")), name="child", context_type=Kept)  # fmt: skip
    tree = pipeline(
        ParallelStep("both", branches={"one": Pipeline((ImportStep("sub", inner, config=BACKGROUND),))}),
        AwaitStep("done", tasks="{{ steps.both.output }}"),
    )
    async with runner(tree, store) as alone:
        result = await alone.run_result_async(4, run_id=RUN)
    assert result.output == {"one": 8}, result.error
    [task] = await tasks_of(store)
    [deep] = await tasks_of(store, task.run_id)
    assert task.parent is not None
    assert deep.parent is not None
    assert (task.parent.entry, deep.parent.entry) == ("both:one/sub", "both:one/sub/deep")
    assert deep.parent.path == "sub/deep"


async def test_several_tasks_are_awaited_by_name_and_a_skipped_one_has_no_result(store: StateStore) -> None:
    tree = pipeline(
        Step("a", lambda data: data + 1, config=BACKGROUND),
        Step("b", lambda data: 2, when="false", config=BACKGROUND),
        AwaitStep("done", tasks=["a", "b"]),
    )
    async with runner(tree, store) as alone:
        result = await alone.run_result_async(0, run_id=RUN)
    task = task_id(RUN, StepPath("a"), 1)
    assert result.output == {"a": 1, "b": None}, (result.error, task)


async def test_a_task_that_ends_right_after_its_waiting_run_is_read_is_not_missed() -> None:
    task, may_end = task_id(RUN, StepPath("a"), 1), asyncio.Event()

    class Late(MemoryStateStore):
        """Returns an unanswered run only once the task has ended."""

        async def run(self, run_id: RunId) -> RunRecord:
            record = await super().run(run_id)
            if run_id == RUN and record.status is RunStatus.WAITING and not record.is_answered:
                may_end.set()
                while (await super().run(task)).status is not RunStatus.COMPLETED:  # noqa: ASYNC110 - a store
                    await asyncio.sleep(0)
                await asyncio.sleep(0.05)
            return record

    async def work(data: Any) -> int:
        await may_end.wait()
        return 1

    tree = pipeline(Step("a", work, config=BACKGROUND), AwaitStep("done", tasks=["a"]))
    async with runner(tree, Late()) as alone:
        result = await alone.run_result_async(0, run_id=RUN)
    assert result.output == {"a": 1}


def failing(data: Any) -> Any:
    """Fail."""
    raise ValueError("no paper")


@pytest.mark.parametrize(
    ("on_failure", "output"),
    [("skip", 1), ({"output": "{{ steps.before.output }} missing"}, "1 missing")],
)
async def test_on_failure_of_an_await_replaces_the_result_of_a_failed_task(
    store: StateStore, on_failure: Any, output: Any
) -> None:
    tree = pipeline(
        Step("before", lambda data: data + 1),
        Step("report", failing, config=BACKGROUND),
        Step("after", lambda data: 1),
        AwaitStep("result", task="report", on_failure=on_failure),
    )
    async with runner(tree, store) as alone:
        result = await alone.run_result_async(0, run_id=RUN)
    assert result.output == output


async def test_a_failed_task_fails_the_await_and_can_be_retried(store: StateStore) -> None:
    world, broken = World(), [True]

    def fails_once(data: Any) -> Any:
        if broken.pop() if broken else False:
            raise ValueError("no paper")
        return data

    async with runner(launching(world, work=fails_once), store) as alone:
        result = await alone.run_result_async(1, run_id=RUN)
        assert result.error is not None
        assert (result.status, result.error.path) == (RunStatus.FAILED, "result")
        assert "no paper" in result.error.message
        [failed] = await alone.get_failed_background_tasks()
        assert (failed.run_id, failed.status) == (task_id(RUN, StepPath("report"), 1), RunStatus.FAILED)
        assert (await alone.resume_background_task(failed.run_id)).output == 2
        assert await alone.get_failed_background_tasks() == []
        again = await alone.resume_async(RUN, retry_failed=True)
    assert again.output == 2
    assert world.calls.count("after") == 1


async def test_retry_of_the_parent_does_not_launch_the_task_again(store: StateStore) -> None:
    world, broken = World(), [True]

    def fails_once(data: Any) -> Any:
        if broken.pop() if broken else False:
            raise ValueError("no")
        return data

    tree = pipeline(
        Step("report", world.add("report"), config=BACKGROUND), Step("after", fails_once), AwaitStep("r", task="report")
    )  # fmt: skip
    async with runner(tree, store) as alone:
        assert (await alone.run_result_async(1, run_id=RUN)).status is RunStatus.FAILED
        assert (await alone.resume_async(RUN, retry_failed=True)).output == 1
    assert world.calls == ["report"]


async def test_a_task_that_asks_a_human_leaves_its_parent_waiting_for_any_process(store: StateStore) -> None:
    tree = pipeline(
        HumanInTheLoopStep("ask", message=Text("ok?"), config=BACKGROUND),
        Step("after", lambda data: data),
        AwaitStep("answer", task="ask"),
    )
    async with runner(tree, store) as alone:
        result = await alone.run_result_async(0, run_id=RUN)
    assert result.status is RunStatus.WAITING
    assert [pause.kind for pause in result.pauses] == [PauseKind.CHILDREN]
    [task] = await tasks_of(store)
    assert task.status is RunStatus.PAUSED
    async with runner(tree, store, recovery=OFTEN):
        await TaskClient(store).resume_task(task.run_id, "yes")
        record = await reached(store, RunStatus.COMPLETED)
    assert record.output == b'"yes"'


async def test_a_closed_runner_leaves_its_task_to_recovery(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flujo.services.runs.background.GRACE_S", 0.01)
    gate = Gate()
    tree = pipeline(Step("report", gate, config=BACKGROUND), Step("after", lambda data: "done"))
    async with runner(tree, store) as alone:
        result = await alone.run_result_async(5, run_id=RUN)
        assert result.output == "done"
        await gate.entered.wait()
    [task] = await tasks_of(store)
    assert (task.status, task.owner) == (RunStatus.RUNNING, None)
    gate.opened.set()
    async with runner(tree, store, recovery=OFTEN):
        assert (await reached(store, RunStatus.COMPLETED, task.run_id)).output == b"5"


async def test_a_cancelled_run_cancels_its_tasks(store: StateStore) -> None:
    gate, second = Gate(), Gate()
    tree = pipeline(Step("report", gate, config=BACKGROUND), Step("after", second))
    async with runner(tree, store) as alone:
        running = asyncio.create_task(alone.run_result_async(5, run_id=RUN))
        await gate.entered.wait()
        await second.entered.wait()
        await TaskClient(store).cancel_task(RUN)
        assert (await running).status is RunStatus.CANCELLED
        await reached(store, RunStatus.CANCELLED, task_id(RUN, StepPath("report"), 1))


async def test_without_persistence_tasks_are_executed_too() -> None:
    world = World()
    async with Flujo(launching(world), persist_state=False) as alone:
        result = await alone.run_result_async(1)
    assert result.output == {"got": 2}


def test_a_sync_run_stays_until_its_tasks_have_ended() -> None:
    world = World()

    async def slow(data: Any) -> Any:
        await asyncio.sleep(0.05)
        world.calls.append("slow")
        return data

    tree = pipeline(Step("report", slow, config=BACKGROUND), Step("after", world.add("after")))
    assert Flujo(tree, persist_state=False).run(1).success
    assert world.calls == ["after", "slow"]


async def test_an_id_of_no_task_of_the_run_fails_the_await(store: StateStore) -> None:
    tree = pipeline(Step("a", lambda data: data), AwaitStep("done", task="{{ previous }}"))
    async with runner(tree, store) as alone:
        await alone.run_result_async("x", run_id="other")
        missing = await alone.run_result_async("b-none")
        foreign = await alone.run_result_async("other")
    assert missing.error is not None
    assert "there is no run 'b-none'" in missing.error.message
    assert foreign.error is not None
    assert "not a background task of this run" in foreign.error.message


async def test_a_step_in_the_background_is_refused_under_a_limit(store: StateStore) -> None:
    async with runner(launching(World()), store, usage_limits=UsageLimits(total_tokens_limit=5)) as alone:
        with pytest.raises(
            TaskUnderLimit, match="step 'report' runs in the background under a limit on `total_tokens_limit`"
        ):
            await alone.run_result_async(1)


@pytest.mark.parametrize(
    ("tree", "code"),
    [
        (pipeline(Step("a", failing), AwaitStep("b", task="a")), "FLJ282"),
        (pipeline(Step("a", failing), AwaitStep("b", task="c")), "FLJ282"),
        (
            pipeline(Step("a", failing, config=BACKGROUND), AwaitStep("b", task="a", config=BACKGROUND)),
            "FLJ280",
        ),
        (
            Pipeline((Step("a", failing, config=BACKGROUND),), budget=UsageLimits(total_tokens_limit=1)),
            "FLJ283",
        ),
    ],
)
def test_trees_with_tasks_that_cannot_be_are_refused(tree: Pipeline, code: str) -> None:
    with pytest.raises(PipelineError) as caught:
        Flujo(tree)
    assert caught.value.code == code
