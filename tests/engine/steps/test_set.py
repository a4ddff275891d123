"""`set`: values are written to the context without a callable, in one entry."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from flujo.domain import canonical
from flujo.domain.journal import EntryKind, RunId
from flujo.domain.run import RunStatus
from flujo.domain.steps import LoopStep, MapStep, ParallelStep, SetStep, State, StateMachineStep, Transition
from flujo.exceptions import PipelineError
from flujo.services.runs.runner import Flujo
from support import World, call, pipeline, resume, start

if TYPE_CHECKING:
    from flujo.domain.ports import StateStore

FIELDS = {
    "type": "object",
    "properties": {"n": {"type": "integer", "default": 0}, "log": {"type": "array", "default": []}},
}


async def test_all_values_see_the_context_as_it_was_and_the_output_is_what_was_set(store: StateStore) -> None:
    tree = pipeline(
        SetStep("put", {"n": "{{ context.n + input }}", "log": ["n was {{ context.n }}", None, 1.5]}),
        SetStep(
            "more", {"n": "{{ context.n * 2 }}"}, when="previous.n == 3", save={"log": {"append": "output.n"}}
        ),
        SetStep("never", {"n": -1}, when="false"),
        context_schema=FIELDS,
        output={"n": "{{ context.n }}", "log": "{{ context.log }}", "put": "{{ steps.put.output }}"},
    )
    result = await start(tree, store, 3)
    put = {"n": 3, "log": ["n was 0", None, 1.5]}
    assert result.output == {"n": 6, "log": ["n was 0", None, 1.5, 6], "put": put}
    entries = await store.entries(RunId("run"))
    assert [
        (each.path, each.kind) for each in entries if each.output is not None and each.kind is EntryKind.WORK
    ] == [
        ("put", EntryKind.WORK),
        ("more", EntryKind.WORK),
    ]
    assert canonical.decode(entries[0].output or b"") == put


async def test_a_counter_needs_no_callable_in_loops_and_machines(store: StateStore) -> None:
    count = SetStep("count", {"n": "{{ context.n + 1 }}"})
    states = {"go": State(count, (Transition("end", "context.n == 5"), Transition("go"))), "end": State()}
    tree = pipeline(
        LoopStep("again", count, until="context.n == 3"),
        StateMachineStep("machine", initial="go", states=states, final=["end"]),
        context_schema=FIELDS,
        output="{{ context.n }}",
    )
    assert (await start(tree, store)).output == 5


async def test_branches_merge_what_they_set_and_a_map_drops_it(store: StateStore) -> None:
    tree = pipeline(
        ParallelStep("both", {"a": SetStep("one", {"n": 4}), "b": SetStep("two", {"log": ["b"]})}),
        MapStep("each", SetStep("count", {"n": "{{ item }}"}), over="[1, 2]"),
        context_schema=FIELDS,
        output="{{ [context.n, context.log, steps.each.output.map(one, one.n)] }}",
    )
    assert (await start(tree, store)).output == [4, ["b"], [1, 2]]


@pytest.mark.guarantee("G1")
async def test_a_resumed_run_does_not_count_again(store: StateStore) -> None:
    world, fails = World(), [False, True]

    def fragile(data: dict[str, int]) -> int:
        if fails.pop():
            raise ValueError("down")
        return data["n"]

    count = SetStep("count", {"n": "{{ context.n + 1 }}"})
    work = call("work", world.add("work", fragile))
    tree = pipeline(count, work, context_schema=FIELDS, output="{{ [previous, context.n] }}")
    assert (await start(tree, store)).status is RunStatus.FAILED
    assert (await resume(tree, store, retry_failed=True)).output == [1, 1]


async def test_a_value_of_another_type_fails_the_step_and_writes_nothing(store: StateStore) -> None:
    tree = pipeline(SetStep("put", {"log": ["x"], "n": "{{ input }}"}), context_schema=FIELDS)
    result = await start(tree, store, "many")
    assert result.error is not None
    assert (result.status, result.error.path) == (RunStatus.FAILED, "put")
    assert result.context is not None
    assert result.context.log == []


async def test_a_replay_computes_the_values_again(store: StateStore) -> None:
    def tree(step: str) -> Flujo:
        put = SetStep("put", {"n": f"{{{{ input + {step} }}}}"})
        return Flujo(pipeline(put, context_schema=FIELDS), store=store, recovery=False)

    async with tree("1") as runner:
        await runner.run_result_async(1, run_id="run")
        assert (await runner.replay_from_trace("run")).output == {"n": 2}


def test_a_name_that_is_not_an_identifier_is_refused() -> None:
    with pytest.raises(PipelineError, match="not a valid name"):
        Flujo(pipeline(SetStep("put", {"a b": 1})))
