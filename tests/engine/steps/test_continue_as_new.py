"""`continue_as_new`: a run ends, and a new one with its context and an empty journal continues it."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from flujo.client import TaskClient
from flujo.domain import canonical
from flujo.domain.events import RunEnded
from flujo.domain.journal import Entry, RunId
from flujo.domain.queues import DEFAULT_QUEUE, ClaimOrder, Queued, QueueLimits
from flujo.domain.run import Move, NewRun, RunOrder, RunQuery, RunRecord, RunStatus, Write
from flujo.domain.steps import (
    CallableRef,
    ContinueAsNewStep,
    EventStep,
    HumanInTheLoopStep,
    LoopStep,
    MapStep,
    ParallelStep,
    State,
    StateMachineStep,
    Step,
    StepConfig,
)
from flujo.engine.journal import Journal
from flujo.exceptions import EventRefused, PipelineError, ResumeConflict, RunNotFound
from flujo.services.project.recovery_policy import RecoveryPolicy
from flujo.services.runs.chains import find_last
from flujo.services.runs.run_request import Request, pinned_by_name
from flujo.services.runs.runner import Flujo
from flujo.state.store import SqlStateStore
from support import World, call, pipeline

if TYPE_CHECKING:
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore
    from flujo.domain.steps import BaseStep

RUN = RunId("run")
TOTAL = {"type": "object", "properties": {"total": {"type": "integer", "default": 0}}}
NUMBER = {"type": "integer", "maximum": 1_000_000}


def counting(world: World, rounds: int, *more: BaseStep) -> Pipeline:
    """Return a pipeline that adds its input to the total, and continues with the next number."""
    return pipeline(
        call("add", world.add("add"), save={"total": "context.total + input"}),
        *more,
        ContinueAsNewStep("next", input="{{ input + 1 }}", when=f"input < {rounds}"),
        call("end", world.add("end")),
        context_schema=TOTAL,
        input_schema=NUMBER,
        output="{{ context.total }}",
    )


def runner(tree: Pipeline, store: StateStore, **more: Any) -> Flujo[Any, Any, Any]:
    """Return a runner; it recovers no run by default."""
    return Flujo(tree, store=store, **{"recovery": False, **more})


async def listed(store: StateStore) -> list[str]:
    """Return the ids of all runs, the oldest first."""
    return [each.run_id for each in await store.runs(RunQuery(order=RunOrder.OLDEST, limit=1000))]


@pytest.mark.guarantee("G1")
async def test_the_result_is_that_of_the_last_run_and_each_has_its_own_journal(store: StateStore) -> None:
    world = World()
    async with runner(counting(world, 3), store) as alone:
        result = await alone.run_result_async(1, run_id=RUN, metadata={"customer": "c1"})
        again = await alone.run_result_async(1, run_id=RUN, metadata={"customer": "c1"})
    assert (result.run_id, result.output, result.continued_as) == ("run~3", 6, None)
    assert (again.run_id, again.output) == ("run~3", 6)
    assert world.calls == ["add", "add", "add", "end"]
    assert await listed(store) == [RUN, "run~2", "run~3"]
    first, last = await store.run(RUN), await store.run(RunId("run~3"))
    assert first.status is last.status is RunStatus.COMPLETED
    assert canonical.decode(first.output or b"") == {"continued_as": "run~2"}
    assert (last.metadata, last.input, last.context) == ({"customer": "c1"}, b"3", b'{"total":3}')
    assert last.closure == first.closure
    paths = [[each.path for each in await store.entries(RunId(run))] for run in (RUN, "run~2")]
    assert paths[0] == paths[1]


async def test_without_an_input_the_next_run_has_the_same(store: StateStore) -> None:
    tree = pipeline(
        call("add", World().add("add"), save={"total": "context.total + input"}),
        ContinueAsNewStep("again", when="context.total < 20", save={"total": "context.total * 2"}),
        context_schema=TOTAL,
        output="{{ context.total }}",
    )
    async with runner(tree, store) as alone:
        result = await alone.run_result_async(7, run_id=RUN)
    assert (result.run_id, result.output) == ("run~2", 21)


@pytest.mark.parametrize("place", ["loop", "state"])
async def test_a_loop_and_a_state_can_end_the_run(place: str, store: StateStore) -> None:
    ending = [ContinueAsNewStep("next", input=0, when="input > 0"), call("rest", World().add("rest"))]
    inside: BaseStep = LoopStep("again", ending, until="true", max_iterations=9)
    if place == "state":
        inside = StateMachineStep("machine", states={"work": State(ending)}, initial="work", final=["work"])
    async with runner(pipeline(inside), store) as alone:
        result = await alone.run_result_async(1, run_id=RUN)
    assert (result.status, result.run_id) == (RunStatus.COMPLETED, "run~2")


async def test_an_input_that_does_not_fit_fails_the_step_and_a_retry_continues(store: StateStore) -> None:
    def tree(given: Any) -> Pipeline:
        steps = ContinueAsNewStep("next", input=given, when="input == 1")
        return pipeline(steps, input_schema={"type": "integer"}, output="{{ input }}")

    async with runner(tree("two"), store) as alone:
        result = await alone.run_result_async(1, run_id=RUN)
    assert result.error is not None
    assert (result.status, result.error.path) == (RunStatus.FAILED, "next")
    assert "the input of step 'next'" in result.error.message
    assert await listed(store) == [RUN]
    async with runner(tree(2), store) as alone:
        assert (await alone.resume_async(RUN, retry_failed=True)).output == 2


async def test_resume_answers_waits_and_cancels_at_the_end_of_the_chain(store: StateStore) -> None:
    ask = HumanInTheLoopStep("ask", message="go on?", when="input == 2")
    async with runner(counting(World(), 4, ask), store) as alone:
        paused = await alone.run_result_async(1, run_id=RUN)
        assert (paused.status, paused.run_id) == (RunStatus.PAUSED, "run~2")
        client = TaskClient(store)
        assert (await client.wait(RUN)).run_id == "run~2"
        assert (await alone.resume_async(RUN, "yes")).run_id == "run~4"
        assert (await client.wait("run~2")).output == 10
        detail = await client.get_task("run~2")
        assert (detail.continues, detail.continued_as) == (RUN, "run~3")
        with pytest.raises(ResumeConflict, match="run~4"):
            await client.cancel_task(RUN)
        await alone.run_result_async(1, run_id="other")
        assert (await client.cancel_task("other")).run_id == "other~2"


async def test_any_process_continues_when_the_first_one_has_ended(store: StateStore) -> None:
    """The next run is accepted with the end of the one before, so a process that dies then loses nothing."""

    async def cut_off(event: Any) -> None:
        if isinstance(event, RunEnded):
            task.cancel()
            await asyncio.sleep(0)

    world = World()
    async with runner(counting(world, 3), store) as alone:
        task = asyncio.create_task(alone.run_result_async(1, run_id=RUN, sink=cut_off))
        with pytest.raises(asyncio.CancelledError):
            await task
    assert (await store.run(RunId("run~2"))).status is RunStatus.ACCEPTED
    async with runner(counting(world, 3), store, recovery=RecoveryPolicy(every_s=0.02)):
        assert (await TaskClient(store).wait(RUN, timeout=60)).output == 6
    assert world.calls == ["add", "add", "add", "end"]


async def test_a_run_that_stopped_after_the_entry_of_its_end_is_continued_from_there(
    store: StateStore,
) -> None:
    world = World()
    async with runner(counting(world, 3), store) as alone:
        await alone.run_result_async(1, run_id="whole")
        entries, whole = await store.entries(RunId("whole")), await store.run(RunId("whole"))
        closure, blobs = pinned_by_name("test")
        cut = await store.accept(
            NewRun(run_id=RUN, pipeline="test", closure=closure, input=whole.input, context=whole.context),
            blobs,
        )
        await store.write(Write(run_id=RUN, fence=cut.fence, entries=tuple(entries)))
        await store.write(Write(run_id=RUN, fence=cut.fence, move=Move(status=RunStatus.INTERRUPTED)))
        world.calls.clear()
        result = await alone.resume_async(RUN)
    assert (result.run_id, result.output) == ("run~3", 6)
    assert world.calls == ["add", "add", "end"]


async def test_the_next_run_of_a_queue_waits_in_the_queue(store: StateStore) -> None:
    world = World()
    async with runner(counting(world, 2), store) as alone:
        await alone.submit(1, run_id=RUN)
        order = ClaimOrder(queues=((DEFAULT_QUEUE, QueueLimits()),), limit=5)
        service = await alone._open()
        for run_id in (RUN, "run~2"):
            (claimed,) = await store.claim_next(order)
            assert claimed.run_id == run_id
            await service.execute(claimed, max_recoveries=3)
        assert not await store.claim_next(order)
    assert (await TaskClient(store).wait(RUN)).output == 3


async def test_a_replay_of_a_run_and_a_fork_without_effects_end_with_it(store: StateStore) -> None:
    async with runner(counting(World(), 2), store) as alone:
        await alone.run_result_async(1, run_id=RUN)
        replayed = await alone.replay_from_trace(RUN)
        assert (replayed.run_id, replayed.continued_as) == (RUN, "run~2")
        fork = await alone.fork_async(RUN, at="add", new_run_id="fork")
    assert (fork.status, fork.output, fork.continued_as) == (RunStatus.COMPLETED, 2, None)
    assert await listed(store) == [RUN, "run~2", "fork"]


@pytest.mark.usefixtures("own_objects")
async def test_a_pipeline_that_never_ends_does_not_grow(store: StateStore) -> None:
    """After 200 rounds the process holds as much of runs as after 20, and each journal has as many entries."""
    held = []

    async def measure(event: Any) -> None:
        if isinstance(event, RunEnded) and event.run_id in ("run~20", "run~199"):
            gc.collect()
            held.append(sum(isinstance(each, Journal | RunRecord | Entry) for each in gc.get_objects()))

    async with runner(counting(World(), 200), store) as alone:
        result = await alone.run_result_async(1, run_id=RUN, sink=measure)
    assert (result.run_id, result.output) == ("run~200", 20_100)
    entries = {len(await store.entries(RunId(f"run~{each}"))) for each in (2, 100, 199)}
    assert len(entries) == 1
    if isinstance(store, SqlStateStore):  # a store in memory holds what a database would
        assert held[1] <= held[0] + 10, held
    assert (await TaskClient(store).wait(RUN)).run_id == "run~200"


@pytest.mark.parametrize(
    "outer",
    [
        lambda inner: MapStep("outer", inner, over="[1]"),
        lambda inner: ParallelStep("outer", {"a": inner, "b": inner}),
        lambda inner: LoopStep(
            "outer", inner, until="true", max_iterations=1, config=StepConfig(execution_mode="background")
        ),
    ],
)
def test_it_is_refused_where_other_work_is_not_finished(outer: Any) -> None:
    with pytest.raises(PipelineError, match="ends the run, inside step 'outer'"):
        Flujo(pipeline(outer(ContinueAsNewStep("next"))))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"config": StepConfig(execution_mode="background")}, "cannot run in the background"),
        ({"config": StepConfig(timeout_s=5)}, "does not support `timeout_s`"),
        ({"save": {"total": "1"}, "config": StepConfig(max_retries=2)}, "does not support `max_retries`"),
    ],
)
def test_a_setting_that_has_no_meaning_is_refused(more: Any, message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        Flujo(pipeline(ContinueAsNewStep("next", **more), context_schema=TOTAL))


async def test_events_to_the_first_run_reach_the_last_one_whatever_ends_meanwhile(store: StateStore) -> None:
    tree = pipeline(
        EventStep("order", event_schema={"type": "integer"}, save={"total": "context.total + output"}),
        call("work", World().add("work")),
        ContinueAsNewStep("next", input="{{ input + 1 }}", when="input < 20"),
        context_schema=TOTAL,
        output="{{ context.total }}",
    )
    async with runner(tree, store, recovery=RecoveryPolicy(every_s=0.02)) as alone:
        first = await alone.run_result_async(1, run_id=RUN)
        assert first.status is RunStatus.WAITING
        client = TaskClient(store, runners=[alone])
        for number in range(20):  # some while a run waits, some while it ends
            await client.send_event("order", number, run_id=RUN, event_id=f"e{number}")
            await asyncio.sleep(0 if number % 2 else 0.02)
        again = await client.send_event("order", 0, run_id=RUN, event_id="e0")
        result = await client.wait(RUN, timeout=30)
    assert (result.run_id, result.output) == ("run~20", sum(range(20)))
    assert again.is_repeated


async def test_an_event_that_meets_the_end_of_a_run_goes_to_the_next_one(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = HumanInTheLoopStep("ask", message="go on?")
    tree = counting(World(), 2, ask, EventStep("paid", when="input == 2"))
    async with runner(tree, store) as alone:
        await alone.run_result_async(1, run_id=RUN)
        client, send = TaskClient(store, runners=[alone]), store.send_event

        async def late(event: Any) -> Any:
            if event.run_id == RUN:
                await alone.resume_async(RUN, "yes")
            return await send(event)

        monkeypatch.setattr(store, "send_event", late)
        delivery = await client.send_event("paid", 5, run_id=RUN)
        assert delivery.taken == ()
        assert [each.name for each in await store.kept_events(RunId("run~2"))] == ["paid"]
        assert (await alone.resume_async(RUN, "yes")).status is RunStatus.COMPLETED
        with pytest.raises(EventRefused, match="run~2 is completed"):
            await client.send_event("paid", 5, run_id=RUN)


@pytest.mark.guarantee("G13")
async def test_a_cancel_ends_the_chain_although_its_runs_end(
    store: StateStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, cancel = World(), store.cancel
    async with runner(counting(world, 1_000_000), store) as alone:
        going = asyncio.create_task(alone.run_result_async(1, run_id=RUN))
        while len(world.calls) < 3:  # noqa: ASYNC110 - it observes from outside, like a user
            await asyncio.sleep(0)

        async def late(run_id: RunId, actor: Any) -> RunRecord:
            begun = len(world.calls)
            while len(world.calls) < begun + 3:  # noqa: ASYNC110 - until the run has been continued
                await asyncio.sleep(0)
            monkeypatch.setattr(store, "cancel", cancel)
            return await cancel(run_id, actor)

        monkeypatch.setattr(store, "cancel", late)
        ended = await TaskClient(store).cancel_task(RUN)
        await going
    assert ended.status is RunStatus.CANCELLED
    assert (await find_last(store, RUN)).run_id == ended.run_id


async def test_a_retry_of_the_first_run_retries_the_last_one(store: StateStore) -> None:
    fails = [True]

    def fragile(data: int) -> int:
        if data == 2 and fails:
            fails.clear()
            raise ValueError("down")
        return data

    tree = counting(World(), 3, Step("fragile", CallableRef("test:fragile", fragile), input="{{ input }}"))
    async with runner(tree, store) as alone:
        failed = await alone.run_result_async(1, run_id=RUN)
        assert (failed.run_id, failed.status) == ("run~2", RunStatus.FAILED)
        again = await TaskClient(store, runners=[alone]).retry_task(RUN)
    assert (again.run_id, again.output) == ("run~3", 6)


async def test_a_chain_holds_one_place_of_its_queue_and_of_its_key(store: StateStore) -> None:
    limits = QueueLimits(concurrency=2, one_per_key=True)
    order = ClaimOrder(queues=((DEFAULT_QUEUE, limits),), limit=5)
    async with runner(counting(World(), 3), store) as alone:
        service = await alone._open()
        for run_id, key in ((RUN, "ada"), ("same", "ada"), ("other", "bob")):
            new = await service.new_run(Request(input=1, run_id=RunId(run_id)))
            queued = Queued(queue=DEFAULT_QUEUE, key=key)
            await store.accept(replace(new, queued=queued), service.blobs, claim=False)
        seen = []
        while claimed := await store.claim_next(order):
            keys = [each.queued.key for each in claimed if each.queued is not None]
            assert len(keys) == len(set(keys)) <= 2
            assert not await store.claim_next(order), "both places are held, one for each key"
            for each in claimed:
                seen.append(each.run_id)
                await service.execute(each, max_recoveries=3)
    assert sorted(seen) == sorted(f"{run}{at}" for run in (RUN, "same", "other") for at in ("", "~2", "~3"))
    assert [each for each in seen if each.startswith(RUN)] == [RUN, "run~2", "run~3"]


async def test_the_runs_of_a_chain_are_listed_by_any_of_them(store: StateStore) -> None:
    async with runner(counting(World(), 3), store) as alone:
        await alone.run_result_async(1, run_id=RUN)
        await alone.run_result_async(1, run_id="running")
    client = TaskClient(store)
    for run_id in (RUN, "run~2"):
        found = await client.list_tasks(chain=run_id, order="oldest")
        assert [each.run_id for each in found] == [RUN, "run~2", "run~3"]
    assert dict(await client.count(chain="run~3")) == {"completed": 3}
    with pytest.raises(RunNotFound):
        await client.list_tasks(chain="nobody")
