"""A fallback runs only after every attempt of its step has failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain import canonical
from flujo.domain.journal import EntryKind, RunId
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef, Processors
from flujo.exceptions import PausedException, PipelineAbortSignal
from flujo.services.inspection.trace import trace
from support import (
    COUNTER_SCHEMA,
    Expr,
    Save,
    StepConfig,
    Text,
    World,
    answer,
    call,
    pipeline,
    resume,
    start,
)

if TYPE_CHECKING:
    from flujo.domain.ports import StateStore

RUN = RunId("run")


@pytest.fixture
def world() -> World:
    return World()


def fails(data: Any) -> Any:
    raise RuntimeError("down")


def raises(error: BaseException) -> Any:
    def call(data: Any) -> Any:
        raise error

    return call


async def test_a_fallback_takes_over_after_the_last_attempt(store: StateStore, world: World) -> None:
    step = call(
        "x",
        world.add("primary", fails),
        config=StepConfig(max_retries=1),
        fallback=call("spare", world.add("spare", lambda data: data + 1)),
        save={"total": Save(Expr("output * 10"))},
    )
    tree = pipeline(
        step,
        context_schema=COUNTER_SCHEMA,
        output={
            "output": Text("{{ steps.x.output }}"),
            "fell_back": Text("{{ steps.x.fell_back }}"),
            "total": Text("{{ context.total }}"),
        },
    )
    result = await start(tree, store, 1)
    assert result.output == {"output": 2, "fell_back": True, "total": 20}
    assert world.calls == ["primary", "primary", "spare"]
    entries = [(e.path, e.kind, e.attempt, e.status) for e in await store.entries(RUN)]
    assert entries == [
        ("x", EntryKind.WORK, 1, "failed"),
        ("x", EntryKind.WORK, 2, "failed"),
        ("x/fallback", EntryKind.WORK, 1, "completed"),
        ("x", EntryKind.DONE, 1, "completed"),
    ]


async def test_a_successful_step_reports_no_fallback(store: StateStore, world: World) -> None:
    tree = pipeline(
        call("x", world.add("primary"), fallback=call("spare", world.add("spare"))),
        output=Text("{{ steps.x.fell_back }}"),
    )
    assert (await start(tree, store, 1)).output is False
    assert world.calls == ["primary"]


async def test_a_trace_shows_why_a_step_fell_back(store: StateStore, world: World) -> None:
    step = call("x", world.add("primary", fails), fallback=call("spare", world.add("spare")))
    result = await start(pipeline(step), store, 1)
    node = (await trace(store, await store.run(result.run_id))).at("x")
    assert node.status == "completed"
    assert node.fell_back is not None
    assert "down" in node.fell_back.message
    assert [child.path for child in node.children] == ["x/fallback"]


async def test_a_fallback_gets_the_input_of_its_step(store: StateStore, world: World) -> None:
    same = call("spare", world.add("spare"))
    other = call("spare", world.add("other"), input=Text("other"))
    steps = (
        call("a", world.add("a", fails), input=Text("{{ input }}!"), fallback=same),
        call("b", world.add("b", fails), input=Text("{{ input }}!"), fallback=other),
        call("c", world.add("c", fails), arguments={"data": Text("named")}, fallback=same),
        call("d", world.add("d", fails), fallback=same),
    )
    tree = pipeline(*steps, output={name: Text(f"{{{{ steps.{name}.output }}}}") for name in "abcd"})
    assert (await start(tree, store, "hi")).output == {"a": "hi!", "b": "other", "c": "named", "d": "named"}


async def test_fallbacks_may_have_fallbacks(store: StateStore, world: World) -> None:
    last = call("last", world.add("last"))
    spare = call("spare", world.add("spare", fails), fallback=last, config=StepConfig(max_retries=1))
    tree = pipeline(call("x", world.add("x", fails), fallback=spare))
    assert (await start(tree, store, 1)).output == 1
    assert world.calls == ["x", "spare", "spare", "last"]
    assert [path for path, _ in tree.walk()] == ["x", "x/fallback", "x/fallback/fallback"]


async def test_when_both_fail_the_fallbacks_error_counts_and_a_retry_starts_with_the_step(
    store: StateStore, world: World
) -> None:
    step = call(
        "x",
        world.add("primary", fails),
        fallback=call("spare", world.add("spare", raises(ValueError("worse")))),
    )
    result = await start(pipeline(step), store, 1)
    assert result.error is not None
    assert (result.error.path, result.error.message) == ("x/fallback", "ValueError: worse")
    better = call("x", world.add("primary"), fallback=call("spare", world.add("spare")))
    assert (await resume(pipeline(better), store, retry_failed=True)).output == 1
    assert world.calls == ["primary", "spare", "primary"]


async def test_a_retry_keeps_the_result_of_a_successful_fallback(store: StateStore, world: World) -> None:
    step = call("x", world.add("primary", fails), fallback=call("spare", world.add("spare")))
    await start(pipeline(step, call("after", world.add("after", fails))), store, 1)
    assert (await resume(pipeline(step, call("after", world.add("after"))), store, retry_failed=True)).success
    assert world.calls == ["primary", "spare", "after", "after"]


@pytest.mark.parametrize(
    ("signal", "status"),
    [(PausedException("Well?"), RunStatus.PAUSED), (PipelineAbortSignal("enough"), RunStatus.CANCELLED)],
    ids=["paused", "cancelled"],
)
async def test_a_step_that_pauses_or_stops_the_run_has_not_failed(
    store: StateStore, world: World, signal: BaseException, status: RunStatus
) -> None:
    step = call("x", world.add("primary", raises(signal)), fallback=call("spare", world.add("spare")))
    result = await start(pipeline(step), store, 1)
    assert result.status is status
    assert world.calls == ["primary"]


async def test_a_fallback_may_ask_a_human(store: StateStore, world: World) -> None:
    step = call(
        "x",
        world.add("primary", fails),
        fallback=call("spare", world.add("spare", raises(PausedException("Well?")))),
    )
    paused = await start(pipeline(step), store, 1)
    assert [pause.pause_id for pause in paused.pauses] == ["x/fallback"]
    await answer(store, "x/fallback", "yes")
    assert (await resume(pipeline(step), store)).output == "yes"
    assert world.calls == ["primary", "spare"]


async def test_an_output_that_never_passes_a_validator_falls_back_too(
    store: StateStore, world: World
) -> None:
    step = call(
        "x",
        world.add("primary"),
        validators=(CallableRef("test:no", lambda data: "no"),),
        processors=Processors(output=(CallableRef("test:up", lambda data: data + 1),)),
        fallback=call("spare", world.add("spare")),
    )
    assert (await start(pipeline(step), store, 1)).output == 1
    error = canonical.decode((await store.entries(RUN))[0].error or b"{}")
    assert "does not pass validator `test:no`" in error["message"]
