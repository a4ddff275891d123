"""A run stopped after any of its writes resumes to the same result and calls no completed step again."""

from __future__ import annotations

import os
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.run import RunStatus
from flujo.exceptions import Fenced, JournalConflict, ResumeConflict, StateBackendUnavailable
from flujo.state.memory_store import MemoryStateStore
from support import (
    PROGRAMS,
    ConditionalStep,
    MapStep,
    Program,
    StoppingStore,
    World,
    call,
    everything,
    pipeline,
    resume,
    start,
)

if TYPE_CHECKING:
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore
    from flujo.domain.steps import BaseStep


IS_WHOLE = os.environ.get("FLUJO_CRASH_EVERY") == "1"
"""Whether runs are stopped after each write on each store; `make test` does so in memory alone."""


@pytest.fixture(params=PROGRAMS)
def program(request: pytest.FixtureRequest) -> Program:
    """A pipeline with a known result: sequential, or as parallel as possible."""
    return PROGRAMS[request.param]


async def stopped_after(writes: int, store: StateStore, program: Program, world: World, run_id: str) -> bool:
    """Start a run whose database becomes unavailable after `writes` commits; return whether that stopped it."""
    stopping: Any = StoppingStore(store, writes)
    try:
        await start(program.build(world), stopping, 1, run_id=run_id, cache=world.cache)
    except StateBackendUnavailable:
        return True
    return False


@pytest.mark.guarantee("G2", "G18")
async def test_stopping_after_each_write_changes_nothing(store: StateStore, program: Program) -> None:
    step = 1 if IS_WHOLE or isinstance(store, MemoryStateStore) else 3
    for writes in count(0, step):
        world, run_id = World(), f"run-{writes}"
        if not await stopped_after(writes, store, program, world, run_id):
            break
        result = await resume(program.build(world), store, run_id=run_id, cache=world.cache)
        assert (result.status, result.output) == (RunStatus.COMPLETED, program.output), f"after {writes}"
        again = Counter(world.calls) - Counter(program.calls)
        assert again.total() <= program.in_flight, (
            f"more than the steps in flight ran again after {writes}: {again}"
        )
    assert not Counter(program.calls) - Counter(world.calls)
    assert writes >= len(program.calls) / program.in_flight


async def test_a_resumed_run_has_the_journal_of_an_uninterrupted_one(
    store: StateStore, program: Program
) -> None:
    def columns(entries: list[Any]) -> list[tuple[Any, ...]]:
        return sorted(
            (e.path, e.kind, e.attempt, e.status, e.output or b"", e.patch or b"", e.detail or b"")
            for e in entries
        )

    await start(program.build(World()), store, 1, run_id="unbroken")
    unbroken = columns(await store.entries("unbroken"))  # type: ignore[arg-type]
    world = World()
    assert await stopped_after(6, store, program, world, "broken")
    await resume(program.build(world), store, run_id="broken", cache=world.cache)
    assert columns(await store.entries("broken")) == unbroken  # type: ignore[arg-type]


async def test_a_completed_subtree_is_not_loaded_again(store: StateStore) -> None:
    world = World()
    assert await stopped_after(10, store, PROGRAMS["everything"], world, "run")
    levels: list[Any] = []

    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

        async def entries(self, run_id: Any, **which: Any) -> Any:
            levels.append(which.get("parent"))
            return await store.entries(run_id, **which)

    watched: Any = Watched()
    await resume(everything(world), watched, run_id="run")
    assert "loop[0]" not in levels
    assert "child" in levels  # where the run stopped


@pytest.mark.guarantee("G1")
async def test_a_recorded_step_is_not_the_result_of_a_step_of_another_kind(store: StateStore) -> None:
    world = World()

    def broken(_: Any) -> Any:
        raise ValueError("not yet")

    def tree(first: BaseStep) -> Pipeline:
        return pipeline(first, call("last", world.add("last", broken)))

    await start(tree(call("first", world.add("first"))), store, 1)
    body = pipeline(call("item", world.add("item")))
    result = await resume(tree(MapStep("first", over="[1]", body=body)), store, retry_failed=True)
    conflict = result.cause
    assert isinstance(conflict, JournalConflict)
    assert (conflict.path, conflict.recorded, conflict.now) == ("first", "step", "map")
    assert world.calls == ["first", "last"]


@pytest.mark.guarantee("G1")
async def test_a_callable_that_has_decided_is_not_called_again(store: StateStore) -> None:
    world = World()
    work = pipeline(call("first", world.add("first")), call("second", world.add("second")))
    branches = {"then": work, "else": pipeline()}
    decide = world.add("decide", lambda _: True)
    tree = pipeline(ConditionalStep("route", condition=decide, branches=branches))
    stopping: Any = StoppingStore(store, 3)
    with pytest.raises(StateBackendUnavailable):
        await start(tree, stopping, 1)
    assert world.calls[:2] == ["decide", "first"]
    assert (await resume(tree, store)).success
    assert world.calls.count("decide") == 1


async def test_a_zombie_cannot_write(store: StateStore) -> None:
    world = World()
    stopping: Any = StoppingStore(store, 3)
    with pytest.raises(StateBackendUnavailable):
        await start(everything(world), stopping, 1)
    result = await resume(everything(world), store)
    assert result.status is RunStatus.COMPLETED
    from flujo.domain.journal import Entry, EntryKind
    from flujo.domain.paths import StepPath
    from flujo.domain.run import Write

    late = Entry(path=StepPath("late"), kind=EntryKind.WORK, seq=99)
    with pytest.raises(Fenced):
        await store.write(Write(run_id=result.run_id, fence=1, entries=(late,)))


async def test_a_completed_run_cannot_be_resumed(store: StateStore) -> None:
    await start(everything(World()), store, 1)
    with pytest.raises(ResumeConflict):
        await resume(everything(World()), store)
