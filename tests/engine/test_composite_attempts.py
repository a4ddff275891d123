"""Attempts of a whole composite: one time limit for all of it, and retries that keep completed parts."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.events import StepRetried
from flujo.domain.journal import EntryKind, RunId
from flujo.domain.pipeline import Pipeline
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import RunStatus
from flujo.domain.steps import BaseStep, CallableRef
from flujo.domain.usage import Usage
from flujo.exceptions import PausedException, StateBackendUnavailable
from flujo.state.memory_store import MemoryStateStore
from support import (
    COUNTER_SCHEMA,
    ConditionalStep,
    DynamicParallelRouterStep,
    Expr,
    HumanInTheLoopStep,
    ImportStep,
    LoopStep,
    MapStep,
    ParallelStep,
    Save,
    State,
    StateMachineStep,
    StepConfig,
    StoppingStore,
    Text,
    Transition,
    World,
    answer,
    call,
    pipeline,
    resume,
    start,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.agents import Reply
    from flujo.domain.ports import StateStore

RUN = RunId("run")
AT_ONCE = RetryPolicy(backoff="none")
TWICE = StepConfig(max_retries=1, retry=AT_ONCE)
SLOWLY = StepConfig(timeout_s=0.05)


@pytest.fixture
def world() -> World:
    return World()


def failing(times: int) -> Callable[[Any], Any]:
    """Return work that fails a number of times, then returns its input."""
    left = iter(range(times))

    def work(data: Any) -> Any:
        if next(left, None) is not None:
            raise RuntimeError("down")
        return data

    return work


async def hang(data: Any) -> None:
    await asyncio.Event().wait()


HANGS = CallableRef("test:hang", hang)


def composites(body: Pipeline, config: StepConfig) -> list[BaseStep]:
    """Return each kind of composite around a body that returns its input."""
    choose = CallableRef("test:choose", lambda data: "only")
    return [
        ConditionalStep(name="x", condition=Expr("true"), branches={"then": body}, config=config),
        ConditionalStep(
            name="x",
            condition=CallableRef("test:choose", lambda data: "only"),
            form="switch",
            branches={"only": body},
            config=config,
        ),
        LoopStep(name="x", body=body, until=Expr("loop.index == 1"), config=config),
        StateMachineStep(
            name="x",
            initial="a",
            states={"a": State(body, (Transition("b"),)), "b": State(pipeline())},
            final=("b",),
            config=config,
        ),
        MapStep(name="x", over=Expr("[input, input]"), body=body, max_concurrency=1, config=config),
        ParallelStep(name="x", branches={"only": body}, config=config),
        DynamicParallelRouterStep(name="x", router=choose, branches={"only": body}, config=config),
        ImportStep(
            name="x",
            blueprint="child.yaml",
            pipeline=Pipeline(body.steps, context_schema=COUNTER_SCHEMA),
            config=config,
        ),
    ]


KINDS = range(8)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_retry_continues_with_the_failed_part(world: World, kind: int) -> None:
    store = MemoryStateStore()
    body = pipeline(
        call("first", world.add("first"), save={"log": Save(Expr("output"), append=True)}),
        call("second", world.add("second", failing(1))),
    )
    step = composites(body, TWICE)[kind]
    tree = pipeline(step, context_schema=COUNTER_SCHEMA)
    result = await start(tree, store, 7)
    assert result.status is RunStatus.COMPLETED, result.error
    turns = 2 if step.kind in ("loop", "map") else 1
    assert world.calls[:3] == ["first", "second", "second"]
    assert world.calls[3:] == ["first", "second"] * (turns - 1)
    done = [
        (e.attempt, e.status) for e in await store.entries(RUN) if e.path == "x" and e.kind is EntryKind.DONE
    ]
    assert done == [(1, "failed"), (2, "completed")]


async def test_context_writes_of_a_failed_attempt_are_applied_once(store: StateStore, world: World) -> None:
    body = pipeline(
        call("first", world.add("first"), save={"log": Save(Expr("output"), append=True)}),
        call("second", world.add("second", failing(2))),
    )
    step = ConditionalStep(
        name="x",
        condition=Expr("size(context.log) == 0"),
        branches={"then": body},
        config=StepConfig(max_retries=2, retry=AT_ONCE),
    )
    tree = pipeline(step, context_schema=COUNTER_SCHEMA, output=Text("{{ context.log }}"))
    assert (await start(tree, store, 7)).output == [7]
    assert world.calls == ["first", "second", "second", "second"]


async def test_inner_steps_have_their_own_retries_in_each_attempt(store: StateStore, world: World) -> None:
    inner = call("leaf", world.add("leaf", failing(3)), config=TWICE)
    tree = pipeline(ParallelStep(name="x", branches={"a": pipeline(inner)}, config=TWICE))
    assert (await start(tree, store, 7)).output == {"a": 7}
    assert world.calls == ["leaf"] * 4
    attempts = [e.attempt for e in await store.entries(RUN) if e.path == "x:a/leaf"]
    assert attempts == [1, 2, 3, 4]


async def test_retries_of_nested_composites_multiply(store: StateStore, world: World) -> None:
    leaf = call("leaf", world.add("leaf", failing(3)))
    inner = ConditionalStep(
        name="inner", condition=Expr("true"), branches={"then": pipeline(leaf)}, config=TWICE
    )
    tree = pipeline(LoopStep(name="outer", body=pipeline(inner), until=Expr("true"), config=TWICE))
    assert (await start(tree, store, 7)).output == 7
    assert world.calls == ["leaf"] * 4


async def test_attempts_are_counted_across_crashes(store: StateStore) -> None:
    writes = 0
    for writes in count():
        world, run_id = World(), f"run-{writes}"
        body = pipeline(call("first", world.add("first")), call("second", world.add("second", failing(9))))
        step = ConditionalStep(
            name="x",
            condition=Expr("true"),
            branches={"then": body},
            config=StepConfig(max_retries=2, retry=AT_ONCE),
        )
        stopping: Any = StoppingStore(store, writes)
        try:
            await start(pipeline(step), stopping, 1, run_id=run_id)
            break
        except StateBackendUnavailable:
            pass
        result = await resume(pipeline(step), store, run_id=run_id)
        assert result.status is RunStatus.FAILED
        entries = await store.entries(RunId(run_id))
        assert sum(e.path == "x" and e.kind is EntryKind.DONE for e in entries) == 3, writes
        assert world.calls.count("first") <= 2
        assert world.calls.count("second") <= 4
    assert writes > 6


async def test_retry_failed_gives_a_composite_its_attempts_again(store: StateStore, world: World) -> None:
    body = pipeline(call("first", world.add("first")), call("second", world.add("second", failing(3))))
    tree = pipeline(ImportStep(name="x", blueprint="b.yaml", pipeline=body, config=TWICE))
    assert (await start(tree, store, 7)).status is RunStatus.FAILED
    assert (await resume(tree, store, retry_failed=True)).output == 7
    assert world.calls == ["first", *["second"] * 4]


async def test_a_permanent_error_is_not_retried(store: StateStore, world: World) -> None:
    step = LoopStep(
        name="x",
        body=pipeline(call("a", world.add("a"))),
        until=Expr("false"),
        max_iterations=2,
        config=TWICE,
    )
    result = await start(pipeline(step), store, 7)
    assert result.error is not None
    assert result.error.code == "FLJ406"
    assert world.calls == ["a", "a"]


async def test_each_attempt_emits_an_event(store: StateStore, world: World) -> None:
    told: list[Any] = []

    async def hear(event: Any) -> None:
        told.append(event)

    body = pipeline(call("leaf", world.add("leaf", failing(1))))
    tree = pipeline(ImportStep(name="x", blueprint="b.yaml", pipeline=body, config=TWICE))
    await start(tree, store, 7, sink=hear)
    assert [(e.path, e.attempt) for e in told if isinstance(e, StepRetried)] == [("x", 1)]


# Time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_a_time_limit_covers_the_whole_composite(world: World, kind: int) -> None:
    store = MemoryStateStore()
    body = pipeline(call("first", world.add("first")), call("second", HANGS))
    tree = pipeline(composites(body, SLOWLY)[kind], context_schema=COUNTER_SCHEMA)
    result = await start(tree, store, 7)
    assert result.error is not None
    assert (result.error.code, result.error.path) == ("FLJ403", "x")
    assert "`timeout_s` of 0.05 s" in result.error.message
    cut_off = [e for e in await store.entries(RUN) if e.path.endswith("/second")]
    assert [(e.kind, e.status) for e in cut_off] == [(EntryKind.WORK, "failed")]
    assert b"was interrupted" in (cut_off[0].error or b"")


async def test_the_usage_of_a_step_that_timed_out_counts(store: StateStore) -> None:
    class Dear:
        wants_context = False

        async def ask(self, ask: Any) -> Reply:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError as signal:
                signal.usage = Usage(requests=1)  # type: ignore[attr-defined]  # as a chat agent does
                raise
            raise AssertionError

    dear: Any = Dear()
    body = pipeline(call("dear", CallableRef("test:dear", dear)))
    step = ParallelStep(name="x", branches={"a": body, "b": body}, config=SLOWLY)
    assert (await start(pipeline(step), store)).usage.requests == 2


async def test_another_attempt_has_the_whole_time_and_keeps_completed_parts(world: World) -> None:
    store = MemoryStateStore()
    hangs = iter([True])

    async def once(data: Any) -> Any:
        if next(hangs, False):
            await asyncio.Event().wait()
        return data

    body = pipeline(call("first", world.add("first")), call("second", CallableRef("test:once", once)))
    config = StepConfig(timeout_s=0.2, max_retries=1, retry=AT_ONCE)
    tree = pipeline(LoopStep(name="x", body=body, until=Expr("true"), config=config))
    assert (await start(tree, store, 7)).output == 7
    assert world.calls == ["first"]


async def test_a_pause_is_not_a_timeout_and_stops_the_clock(world: World) -> None:
    store = MemoryStateStore()
    body = pipeline(HumanInTheLoopStep(name="ask", message=Text("Well?")), call("after", world.add("after")))
    tree = pipeline(
        ConditionalStep(
            name="x", condition=Expr("true"), branches={"then": body}, config=StepConfig(timeout_s=0.4)
        )
    )
    assert (await start(tree, store, 7)).status is RunStatus.PAUSED
    await asyncio.sleep(0.5)
    await answer(store, "x:then/ask", "yes")
    assert (await resume(tree, store)).output == "yes"


async def test_a_question_of_a_timed_out_attempt_is_repeated_by_the_next(world: World) -> None:
    store = MemoryStateStore()
    hangs = iter([True])

    async def once(data: Any) -> Any:
        if next(hangs, False):
            await asyncio.Event().wait()
        return data

    def ask(data: Any) -> Any:
        raise PausedException("Well?")

    step = ParallelStep(
        name="x",
        branches={
            "asks": pipeline(call("ask", world.add("ask", ask))),
            "works": pipeline(call("work", CallableRef("test:once", once))),
        },
        config=StepConfig(timeout_s=0.2, max_retries=1, retry=AT_ONCE),
    )
    paused = await start(pipeline(step), store, 7)
    assert [pause.pause_id for pause in paused.pauses] == ["x:asks/ask"]
    assert world.calls == ["ask", "ask"]
    await answer(store, "x:asks/ask", "yes")
    assert (await resume(pipeline(step), store)).output == {"asks": "yes", "works": 7}


async def test_a_question_of_the_last_failed_attempt_is_closed() -> None:
    store = MemoryStateStore()
    step = ParallelStep(
        name="x",
        branches={
            "asks": pipeline(HumanInTheLoopStep(name="ask", message=Text("Well?"))),
            "works": pipeline(call("work", HANGS)),
        },
        config=SLOWLY,
    )
    again = ImportStep(name="again", blueprint="b.yaml", pipeline=pipeline(step), on_failure="skip")
    assert (await start(pipeline(again), store, 7)).success
    assert not [pause for pause in await store.pauses(RUN) if pause.is_open]


async def test_cancelling_a_run_inside_a_time_limit_is_not_a_failed_attempt(
    store: StateStore, world: World
) -> None:
    begun = asyncio.Event()

    async def wait(data: Any) -> None:
        begun.set()
        await asyncio.Event().wait()

    body = pipeline(call("leaf", CallableRef("test:wait", wait)))
    config = StepConfig(timeout_s=60)
    tree = pipeline(ConditionalStep(name="x", condition=Expr("true"), branches={"then": body}, config=config))
    task = asyncio.ensure_future(start(tree, store, 7))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [e for e in await store.entries(RUN) if e.status == "failed"]
    record = await store.run(RUN)
    assert (record.status, record.owner) == (RunStatus.RUNNING, None)
