"""A fork has everything before a path in common with its parent, makes no call with an effect, and changes no row of it."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from durability.random_programs import known, random_program, tree
from engine.talking import add, context_of
from flujo.domain import canonical, paths
from flujo.domain.acts import Verb
from flujo.domain.journal import TRANSCRIPT, RunId
from flujo.domain.paths import ROOT, StepPath
from flujo.domain.pipeline import Pipeline
from flujo.domain.run import PauseKind, RunStatus
from flujo.domain.run_forks import Forked, forks_of
from flujo.domain.steps import (
    AwaitStep,
    CallableRef,
    Expr,
    HumanInTheLoopStep,
    MapStep,
    ParallelStep,
    Step,
    StepConfig,
)
from flujo.domain.tools import CallableTool
from flujo.exceptions import (
    CorruptState,
    ForkPointMissing,
    ForkRefused,
    RunConflict,
    SettingsError,
)
from flujo.services.admin.purge import purge
from flujo.services.runs.runner import Flujo
from flujo.state.memory_runs import MemoryDatabase
from flujo.state.memory_store import MemoryStateStore
from flujo.state.store import SqlStateStore
from flujo.testing import ScriptedAgent
from support import World, call, everything, fork, pipeline, resume, start, together

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.ports import StateStore
    from flujo.domain.run import RunRecord

RUN = RunId("run")


async def reached(store: StateStore, run: str = RUN) -> list[StepPath]:
    """Return every path of steps, items, branches and visits that a run has reached."""
    found: dict[StepPath, None] = {}
    for entry in await store.entries(RunId(run)):
        path = paths.step_of(entry.path)
        while path != ROOT and not path.endswith((":merge", ":cache", ":files")):
            found[path] = None
            path = paths.parent(path)
    return list(found)


async def snapshot(store: StateStore, run: str = RUN) -> tuple[RunRecord, Any, Any, Any]:
    run_id = RunId(run)
    return (
        await store.run(run_id),
        await store.entries(run_id),
        await store.pauses(run_id),
        await store.intents(run_id),
    )


# At every place ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("build", "given"), [(everything, 1), (together, 1)])
async def test_a_fork_at_any_path_without_changes_has_the_output_of_its_parent_and_makes_no_call(
    build: Callable[[World], Pipeline], given: Any
) -> None:
    world, store = World(), MemoryStateStore()
    whole = build(world)
    parent = await start(whole, store, given)
    before = await snapshot(store)
    async with Flujo[Any, Any, Any](whole, store=store) as runner:
        for at in await reached(store):
            world.calls.clear()
            forked = await runner.fork_async(RUN, at=at)
            assert (forked.output, forked.status) == (parent.output, RunStatus.COMPLETED), at
            assert context_of(forked) == context_of(parent), at
            assert world.calls == [], at
    assert await snapshot(store) == before


async def test_a_fork_makes_only_the_calls_after_its_point(store: StateStore) -> None:
    world = World()
    parent = await start(everything(world), store, 1)
    before = await snapshot(store)
    for at, made in (
        ("loop[1]/tock", ["tock", "tick", "tock", "double", "plus", "note", "pass", "last"]),
        ("child/plus", ["plus", "note", "pass", "last"]),
        ("last", ["last"]),
    ):
        world.calls.clear()
        forked = await fork(everything(world), store, at, live_effects=True)
        assert forked.output == parent.output
        assert world.calls == made
    assert await snapshot(store) == before


async def test_finished_items_and_branches_beside_the_point_are_kept() -> None:
    world, store = World(), MemoryStateStore()
    whole = together(world)
    parent = await start(whole, store, 1)
    async with Flujo[Any, Any, Any](whole, store=store) as runner:
        for at, made in (
            ("at_once:looping/loop[1]/squares[0]/square", {"square": 1, "last": 1, "one": 0, "shout": 2}),
            ("each[1]", {"shout": 1, "square": 0, "up": 3}),
        ):
            world.calls.clear()
            forked = await runner.fork_async(RUN, at=at, live_effects=True)
            assert forked.output == parent.output
            assert {name: world.calls.count(name) for name in made} == made, at


async def test_a_range_of_a_map_is_not_read_when_the_point_is_in_it() -> None:
    world, store = World(), MemoryStateStore()
    whole = pipeline(
        MapStep(
            "each",
            over=Expr("[0, 1, 2, 3, 4]"),
            body=pipeline(call("add", world.add("add", lambda n: n + 1))),
        )
    )
    await start(whole, store, None, range_length=2)
    ranges = {entry.path for entry in await store.entries(RUN) if ".." in entry.path}
    assert ranges == {"each[0..1]", "each[2..3]"}
    world.calls.clear()
    async with Flujo[Any, Any, Any](whole, store=store, range_length=2) as runner:
        forked = await runner.fork_async(RUN, at="each[3]/add", live_effects=True, new_run_id="f")
    assert (forked.output, world.calls) == ([1, 2, 3, 4, 5], ["add"])


@pytest.mark.parametrize("seed", range(1, 5))
async def test_random_programs_forked_at_a_random_path_have_the_output_of_their_parent(
    store_uri: str, seed: int
) -> None:
    chance = Random(seed)
    program = random_program(chance, also=("search", "spare"))

    async def act(name: str, data: int, key: str) -> None:
        return None

    store = await SqlStateStore.open(store_uri)
    try:
        parent = await start(tree(program, act), store, seed)
        assert parent.output == known(program, seed).output
        before = await snapshot(store)
        run = RUN
        async with Flujo[Any, Any, Any](tree(program, act), store=store) as runner:
            for number in range(3):  # each of the one before
                at = chance.choice(await reached(store, run))
                live = bool(number % 2)
                forked = await runner.fork_async(run, at=at, live_effects=live)
                assert (forked.output, forked.pauses) == (parent.output, ()), f"{run} at {at}"
                run = RunId(forked.run_id)
        assert await snapshot(store) == before
    finally:
        await store.aclose()


# Pauses and failures -------------------------------------------------------------------------------------


def asking(world: World) -> Pipeline:
    return pipeline(
        call("first", world.add("first", lambda n: n + 1)),
        HumanInTheLoopStep("ask", message="how many?", answer_schema={"type": "integer"}),
        call("last", world.add("last", lambda n: n * 10)),
    )


async def test_a_fork_at_an_open_question_asks_again_and_takes_an_answer_given_beforehand(
    store: StateStore,
) -> None:
    world = World()
    await start(asking(world), store, 1)
    forked = await fork(asking(world), store, "ask")
    assert [pause.pause_id for pause in forked.pauses] == ["ask"]
    answered = await fork(asking(world), store, "ask", answers={"ask": 3}, live_effects=True)
    assert (answered.output, world.calls) == (30, ["first", "last"])
    [act] = [act for act in await store.acts(RunId(answered.run_id)) if act.verb is Verb.ANSWER]
    assert act.object == "ask"
    assert (await store.run(RUN)).status is RunStatus.PAUSED


async def test_a_fork_behind_an_answered_question_keeps_the_answer(store: StateStore) -> None:
    world = World()
    await start(asking(world), store, 1)
    await resume(asking(world), store, run_id=RUN, answer=4)
    assert (await fork(asking(world), store, "last", live_effects=True)).output == 40
    other = await fork(asking(world), store, "ask", answers={"ask": 5}, live_effects=True)
    assert other.output == 50


async def test_a_fork_of_a_failed_run_begins_at_the_failed_step_with_all_its_attempts(
    store: StateStore,
) -> None:
    broken = [True]

    def work(data: int) -> int:
        if broken[0]:
            raise ConnectionError("down")
        return data + 1

    whole = pipeline(
        call("first", CallableRef("w:first", lambda data: data)),
        Step("second", CallableRef("w:second", work), effect="read", config=StepConfig(max_retries=1)),
    )
    assert (await start(whole, store, 1)).status is RunStatus.FAILED
    broken[0] = False
    forked = await fork(whole, store, "second")
    assert forked.output == 2
    copied = await store.entries(RunId(forked.run_id))
    assert [(entry.path, entry.attempt) for entry in copied] == [("first", 1), ("second", 1)]


# Changes -------------------------------------------------------------------------------------------------


async def test_prompts_and_models_of_a_pipeline_in_python_are_not_pinned(store: StateStore) -> None:
    world = World()
    await start(asking(world), store, 1)
    with pytest.raises(ForkRefused, match="written in Python"):
        await fork(asking(world), store, "first", prompts={"writer": "short"})


# Families ------------------------------------------------------------------------------------------------


async def test_both_runs_know_their_family_and_who_forked(store: StateStore) -> None:
    world = World()
    await start(asking(world), store, 1)
    forked = await fork(asking(world), store, "ask", by="ada", new_run_id="second")
    [act] = await store.acts(RunId(forked.run_id))
    assert (act.verb, act.actor.by, act.object) == (Verb.FORK, "ada", "ask")
    own = Forked.of([act])
    assert own is not None
    assert (own.parent, own.at, own.copied, own.stubs) == (RUN, "ask", 1, ())
    assert forks_of(await store.acts(RUN)) == [("second", "ask")]
    assert Forked.of(await store.acts(RUN)) is None
    with pytest.raises(RunConflict):
        await fork(asking(world), store, "ask", new_run_id="second")


async def test_a_fork_is_stubbed_in_any_process_that_continues_it() -> None:
    world, database = World(), MemoryDatabase()
    whole = pipeline(
        HumanInTheLoopStep("ask", message="?", answer_schema={"type": "integer"}),
        call("send", world.add("send")),
    )
    store = MemoryStateStore(database)
    await start(whole, store, 1)
    await resume(whole, store, run_id=RUN, answer=2)
    forked = await fork(whole, store, "ask")
    del database.runs[RUN]  # its parent may be purged
    world.calls.clear()
    async with Flujo[Any, Any, Any](whole, store=MemoryStateStore(database)) as runner:
        same = await runner.resume_async(forked.run_id, 2)
    assert (same.output, world.calls) == (2, [])


async def test_a_launched_task_counts_when_it_has_ended_and_is_launched_anew_otherwise(
    store: StateStore,
) -> None:
    world, ready, again = World(), asyncio.Event(), asyncio.Event()

    async def report(data: int) -> int:
        world.calls.append("report")
        if len(world.calls) == 2:
            again.set()
        await ready.wait()
        return data + 1

    whole = pipeline(
        Step(
            "report",
            CallableRef("w:report", report),
            effect="read",
            config=StepConfig(execution_mode="background"),
        ),
        HumanInTheLoopStep("ask", message="?", answer_schema={"type": "integer"}),
        AwaitStep("wait", task="report"),
    )
    async with Flujo[Any, Any, Any](whole, store=store) as runner:
        await runner.run_result_async(1, run_id=RUN)
        early = asyncio.create_task(runner.fork_async(RUN, at="ask", answers={"ask": 1}))
        await again.wait()
        ready.set()
        assert (await runner.resume_async(RUN, 2)).output == 2
        assert (await early).output == 2
        late = await runner.fork_async(RUN, at="wait")
        assert late.output == 2
    assert world.calls == ["report", "report"], "the first fork has launched its own, the second has not"


async def test_a_task_that_a_fork_launches_makes_no_call_with_an_effect_either(store: StateStore) -> None:
    world = World()
    whole = pipeline(
        call("send", world.add("send"), config=StepConfig(execution_mode="background")),
        HumanInTheLoopStep("ask", message="?"),
    )
    async with Flujo[Any, Any, Any](whole, store=store) as runner:
        await runner.run_result_async(1, run_id=RUN)
        await runner.resume_async(RUN, "go on")
        assert runner._services is not None
        await runner._services.tasks.settled()
        forked = await runner.fork_async(RUN, at="send", answers={"ask": "go on"})
        assert forked.output == "go on"
        [launch, _] = await store.entries(RunId(forked.run_id))
        task = RunId(canonical.decode(launch.output or b"{}")["task_id"])
        await runner._services.tasks.settled()
        asked = await store.pauses(task)
    assert [(pause.pause_id, pause.kind) for pause in asked] == [("send!stub", PauseKind.STUB)]
    assert world.calls == ["send"]


# Refusals ------------------------------------------------------------------------------------------------


async def test_a_path_that_does_not_exist_or_was_not_reached_is_refused(store: StateStore) -> None:
    world = World()
    await start(everything(world), store, 1)
    with pytest.raises(ForkPointMissing) as wrong:
        await fork(everything(world), store, "loop[1]/tik")
    assert wrong.value.hint == "did you mean `loop[1]/tick`? `flujo trace run` lists all steps"
    with pytest.raises(ForkPointMissing, match="has not reached"):
        await fork(everything(world), store, "loop[7]/tick")
    with pytest.raises(ForkPointMissing, match="has not reached"):
        await fork(everything(world), store, "route:else/small")
    with pytest.raises(ForkPointMissing, match="could ask"):
        await fork(everything(world), store, "last", answers={"lst": 1})
    assert forks_of(await store.acts(RUN)) == []


async def test_a_run_that_is_executed_or_is_a_task_is_refused() -> None:
    database = MemoryDatabase()
    store, began, ready = MemoryStateStore(database), asyncio.Event(), asyncio.Event()

    async def work(data: int) -> int:
        began.set()
        await ready.wait()
        return data

    whole = pipeline(call("work", CallableRef("w:work", work)))
    async with Flujo[Any, Any, Any](whole, store=store) as runner:
        running = asyncio.create_task(runner.run_result_async(1, run_id=RUN))
        await began.wait()
        with pytest.raises(ForkRefused, match="being executed"):
            await runner.fork_async(RUN, at="work")
        ready.set()
        await running
        with pytest.raises(SettingsError):
            await runner.fork_async(RUN, at="work", new_run_id="no spaces")


async def test_a_content_that_is_missing_is_an_error_and_nothing_is_recorded(sqlite_uri: str) -> None:
    world = World()
    large = pipeline(
        call("large", world.add("large", lambda n: "x" * 40_000)), call("last", world.add("last", len))
    )
    store = await SqlStateStore.open(sqlite_uri)
    try:
        await start(large, store, 1)

        def purge(connection: Any) -> None:
            connection.exec_driver_sql("DELETE FROM blobs WHERE size = 40002")

        await store.write_apart(purge)
        with pytest.raises(CorruptState):
            await fork(large, store, "last", new_run_id="f")
        assert forks_of(await store.acts(RUN)) == []
    finally:
        await store.aclose()


async def test_tools_with_effects_whose_calls_no_entry_records_are_refused(store: StateStore) -> None:
    agent = ScriptedAgent(["hello"], tools=[CallableTool(add, effect="unsafe")])
    whole = pipeline(call("first", CallableRef("w:first", lambda n: n)), Step("say", agent=agent))
    await start(whole, store, 1)
    with pytest.raises(ForkRefused, match="`say`"):
        await fork(whole, store, "say")


async def test_parallel_branches_keep_what_has_ended_when_one_of_them_is_forked(store: StateStore) -> None:
    world = World()
    whole = pipeline(
        ParallelStep(
            "both",
            branches={
                "left": pipeline(
                    call("a", world.add("a", lambda n: n + 1)), call("b", world.add("b", lambda n: n + 1))
                ),
                "right": pipeline(call("c", world.add("c", lambda n: n + 5))),
            },
        )
    )
    parent = await start(whole, store, 1)
    world.calls.clear()
    forked = await fork(whole, store, "both:left/b", live_effects=True)
    assert (forked.output, world.calls) == (parent.output, ["b"])


async def test_the_contents_of_copied_entries_outlive_the_parent(store_uri: str) -> None:
    whole = pipeline(
        Step("say", agent=ScriptedAgent(["hello"], tools=[CallableTool(add, effect="read")])),
        call("large", CallableRef("w:large", lambda data: "x" * 40_000)),
        HumanInTheLoopStep("ask", message="?"),
    )
    store = await SqlStateStore.open(store_uri)
    try:
        await start(whole, store, "go")
        await resume(whole, store, answer="yes")
        forked = RunId((await fork(whole, store, "ask")).run_id)
        purged = await purge(store, [RunStatus.COMPLETED], 0.0)
        assert purged.runs == 1
        said, large = await store.entries(forked)
        assert len(large.output or b"") == 40_002
        transcript = canonical.decode(said.detail or b"{}")[TRANSCRIPT]
        assert b"hello" in (await store.blobs([transcript]))[transcript]
        assert (await resume(whole, store, run_id=forked, answer="no")).output == "no"
    finally:
        await store.aclose()


async def test_a_fork_behind_a_question_whose_deadline_passed_is_replayed() -> None:
    now = [1000.0]
    store = MemoryStateStore(now=lambda: now[0])
    body = Pipeline((HumanInTheLoopStep("ask", message="{{ item }}?", deadline_s=60),))
    each = MapStep("each", over=Expr("[1, 2]"), body=body, on_error="skip")
    tree = pipeline(each, call("last", World().add("last")))
    async with Flujo[Any, Any, Any](tree, store=store, recovery=False) as runner:
        await runner.run_result_async(1, run_id=RUN)
        now[0] += 61
        for pause in await store.pauses(RUN):
            await store.expire(RUN, pause.pause_id)
        late = await runner.recover_async(RUN, max_recoveries=5)
        forked = await runner.fork_async(RUN, at="last", live_effects=True)
        assert (late.status, forked.output) == (RunStatus.COMPLETED, late.output)
        again = await runner.replay_from_trace(forked.run_id)
        assert again.output == late.output
