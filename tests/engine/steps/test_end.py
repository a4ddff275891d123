"""`end`: a blueprint or a body ends before its last step, with an output or with a failure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.journal import RunId
from flujo.domain.run import Move, NewRun, RunStatus, Write
from flujo.domain.steps import (
    ConditionalStep,
    EndStep,
    ImportStep,
    LoopStep,
    MapStep,
    ParallelStep,
    SetStep,
    State,
    StateMachineStep,
    StepConfig,
    Transition,
)
from flujo.exceptions import PipelineError
from flujo.services.inspection.graph import graph_of
from flujo.services.inspection.trace import trace
from flujo.services.runs.run_request import pinned_by_name
from flujo.services.runs.runner import Flujo
from support import World, call, pipeline, resume, start

if TYPE_CHECKING:
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore

FIELDS = {"type": "object", "properties": {"n": {"type": "integer", "default": 0}}}
COUNT = SetStep("count", {"n": "{{ context.n + 1 }}"})


def inside(world: World) -> Pipeline:
    """Return a pipeline that ends in a branch of the second round of a loop, unless its input is 0."""
    way = ConditionalStep(
        "way",
        condition="context.n == 2 && input > 0",
        then=(EndStep("stop", output={"after": "{{ context.n }}"}), call("late", world.add("late"))),
    )
    again = LoopStep("again", [COUNT, way, call("work", world.add("work"))], until="context.n == 3")
    return pipeline(again, call("z", world.add("z")), context_schema=FIELDS, output="{{ context.n }}")


async def test_the_blueprint_ends_from_inside_a_branch_and_a_loop(store: StateStore) -> None:
    world = World()
    result = await start(inside(world), store, 1)
    assert (result.status, result.output, world.calls) == (RunStatus.COMPLETED, {"after": 2}, ["work"])
    assert (await start(inside(world), store, 0, run_id="whole")).output == 3
    tree = await trace(store, await store.run(RunId("run")))
    assert [(each.path, each.status) for each in tree.children] == [("again", "completed")]


@pytest.mark.guarantee("G1")
async def test_a_run_that_stopped_after_the_entry_of_its_end_does_not_continue(store: StateStore) -> None:
    world = World()
    async with Flujo[Any, Any, Any](inside(world), store=store, recovery=False) as alone:
        await alone.run_result_async(1, run_id="whole")
        entries, whole = await store.entries(RunId("whole")), await store.run(RunId("whole"))
        closure, blobs = pinned_by_name("test")
        cut = await store.accept(
            NewRun(
                run_id=RunId("cut"),
                pipeline="test",
                closure=closure,
                input=whole.input,
                context=whole.context,
            ),
            blobs,
        )
        await store.write(Write(run_id=cut.run_id, fence=cut.fence, entries=tuple(entries)))
        await store.write(Write(run_id=cut.run_id, fence=cut.fence, move=Move(status=RunStatus.INTERRUPTED)))
        world.calls.clear()
        assert (await alone.resume_async("cut")).output == {"after": 2}
        assert world.calls == []
        assert (await alone.replay_from_trace("cut")).output == {"after": 2}


async def test_an_imported_blueprint_ends_alone_and_the_rest_runs(store: StateStore) -> None:
    world = World()
    child = pipeline(
        EndStep("stop", when="input > 1", output="early"), call("a", world.add("a")), output="whole"
    )
    tree = pipeline(ImportStep("sub", child), call("z", world.add("z", lambda data: [data])))
    assert (await start(tree, store, 2)).output == ["early"]
    assert (await start(tree, store, 1, run_id="whole")).output == ["whole"]
    assert world.calls == ["z", "a", "z"]


async def test_a_body_ends_alone_and_the_steps_after_it_are_skipped(store: StateStore) -> None:
    """In a loop the iteration ends, in a map the item, in a parallel the branch, in a machine the state."""
    world = World()
    work = call("work", world.add("work"), input="{{ context.n }}")
    stop = EndStep("stop", of="body", when="context.n < 3", output="early")
    loop = LoopStep(
        "again",
        [COUNT, stop, work],
        until="steps.work.output != null",
        output=["{{ previous }}", "{{ loop.index }}"],
    )
    items = MapStep("each", [EndStep("skip", of="body", when="item == 2"), call("twice", world.add("t", lambda n: 2 * n))],
                    over="[1, 2, 3]")  # fmt: skip
    both = ParallelStep(
        "both", {"a": [EndStep("end", of="body", output=1), work], "b": call("b", world.add("b", len))}
    )
    states = {
        "go": State([COUNT, EndStep("end", of="body", when="context.n < 5"), work], (
            Transition("done", "steps.work.output != null"), Transition("go"))),
        "done": State(),
    }  # fmt: skip
    machine = StateMachineStep("machine", initial="go", states=states, final=["done"])
    tree = pipeline(loop, items, both, machine, context_schema=FIELDS, output={
        "loop": "{{ steps.again.output }}", "map": "{{ steps.each.output }}", "both": "{{ steps.both.output }}",
        "machine": "{{ steps.machine.output }}"})  # fmt: skip
    result = await start(tree, store)
    assert result.output == {"loop": [3, 2], "map": [2, 2, 6], "both": {"a": 1, "b": 3}, "machine": 5}
    assert world.calls.count("work") == 2


async def test_a_failure_fails_the_run_and_is_not_retried(store: StateStore) -> None:
    fails = EndStep("stop", fail="no more than {{ input }}", when="context.n == 1")
    tree = pipeline(
        LoopStep("again", [COUNT, fails], until="false", config=StepConfig(max_retries=3)),
        context_schema=FIELDS,
    )
    result = await start(tree, store, 5)
    assert result.error is not None
    assert (result.status, result.error.code) == (RunStatus.FAILED, "FLJ424")
    assert (result.error.message, result.error.path) == ("no more than 5", "again[0]/stop")
    assert (await resume(tree, store, retry_failed=True)).status is RunStatus.FAILED
    entries = [each for each in await store.entries(RunId("run")) if each.path == "again[0]/stop"]
    assert [each.attempt for each in entries if each.error is not None] == [1, 2]


async def test_a_failed_item_counts_as_one(store: StateStore) -> None:
    items = MapStep("each", EndStep("no", fail="not {{ item }}"), over="[1, 2]", on_error="collect")
    output = (await start(pipeline(items), store)).output
    assert [each["error"]["message"] for each in output] == ["not 1", "not 2"]


def test_the_graph_leads_from_an_end_to_the_end() -> None:
    tree = pipeline(EndStep("stop", when="input"), call("work", World().add("work")))
    graph = graph_of(tree)
    named = {node.id: node.title for node in graph.root.nodes}
    edges = {(named[edge.tail], named[edge.head], edge.label) for edge in graph.edges}
    assert edges == {
        ("start", "stop", ""),
        ("stop", "work", "else"),
        ("work", "end", ""),
        ("stop", "end", ""),
    }


@pytest.mark.parametrize("more", [{"output": 1}, {"of": "body"}])
def test_a_failure_has_no_output_and_nothing_to_end(more: Any) -> None:
    with pytest.raises(PipelineError, match="has `fail` and"):
        EndStep("stop", fail="no", **more)


def test_it_is_refused_where_other_work_is_not_finished() -> None:
    with pytest.raises(PipelineError, match="ends the blueprint, inside step 'each'"):
        Flujo(pipeline(MapStep("each", EndStep("stop"), over="[1]")))
