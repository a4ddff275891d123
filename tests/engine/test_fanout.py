"""Concurrent parts of a run share one journal, and leave no task behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.journal import EntryKind
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef, Expr, HumanInTheLoopStep, LoopStep, MapStep, ParallelStep, Text
from flujo.exceptions import PausedException, PipelineAbortSignal, StateBackendUnavailable
from flujo.services.runs.execution import Stop, StopReason
from flujo.services.runs.run_request import Request
from flujo.state.memory_store import MemoryStateStore
from support import World, answer, call, pipeline, resume, service, start

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from flujo.domain.run import Write


@pytest.fixture
def store() -> MemoryStateStore:
    return MemoryStateStore()


@pytest.fixture
def world() -> World:
    return World()


class SlowStore:
    """A store that commits when the test calls `commit`."""

    def __init__(self, store: MemoryStateStore) -> None:
        self._store = store
        self.open: list[tuple[Write, asyncio.Future[bool]]] = []
        self.is_slow = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, write: Write) -> Awaitable[bool]:
        """Queue the write until `commit`."""
        if not self.is_slow:
            return self._store.write(write)
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.open.append((write, waiter))
        return waiter

    async def commit(self) -> None:
        """Commit the oldest write, and release its waiters."""
        write, waiter = self.open.pop(0)
        waiter.set_result(await self._store.write(write))
        await until_nothing_moves()


async def until_nothing_moves() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def two(left: Any, right: Any, **more: Any) -> ParallelStep:
    return ParallelStep(name="p", branches={"left": left, "right": right}, **more)


def paths(slow: SlowStore) -> list[list[str]]:
    return [[entry.path for entry in write.entries] for write, _ in slow.open]


async def test_a_branch_continues_when_its_entry_is_committed_by_any_task(
    store: MemoryStateStore, world: World
) -> None:
    slow: Any = SlowStore(store)

    async def later(data: Any) -> Any:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return data

    tree = pipeline(
        two(
            pipeline(call("a1", world.add("a1")), call("a2", world.add("a2"))),
            pipeline(call("b1", CallableRef("x:later", later)), call("b2", world.add("b2"))),
        )
    )
    running = asyncio.create_task(start(tree, slow, 1))
    await until_nothing_moves()
    assert world.calls == ["a1"]
    assert paths(slow) == [["p:left/a1"], ["p:right/b1"]]
    await slow.commit()
    assert world.calls == ["a1", "a2"]
    await slow.commit()
    assert world.calls == ["a1", "a2", "b2"]
    slow.is_slow = False
    while slow.open:
        await slow.commit()
    assert (await running).success
    recorded = [entry.path for entry in await store.entries((await store.find("run")).run_id)]
    assert len(recorded) == len(set(recorded))


async def test_steps_of_branches_that_end_in_one_turn_of_the_loop_are_one_write(
    store: MemoryStateStore, world: World
) -> None:
    slow: Any = SlowStore(store)
    body = pipeline(call("x", world.add("x")), call("y", world.add("y")))
    tree = pipeline(MapStep(name="m", over=Expr("input"), body=body, max_concurrency=50))
    running = asyncio.create_task(start(tree, slow, [*range(50)]))
    await until_nothing_moves()
    before, written = [*world.calls], paths(slow)
    await slow.commit()
    after = [*world.calls]
    slow.is_slow = False
    while slow.open:
        await slow.commit()
    assert (await running).success
    assert before == ["x"] * 50  # none continues before the write is committed
    assert written == [["m", *(f"m[{item}]/x" for item in range(50))]]
    assert after == ["x"] * 50 + ["y"] * 50


async def test_a_step_whose_branch_is_cut_off_before_the_shared_write_is_recorded(
    store: MemoryStateStore, world: World
) -> None:
    stop = Stop()

    async def cut_off(data: Any) -> Any:
        asyncio.get_running_loop().call_soon(running.cancel)  # between the end of the step and its write
        return data

    tree = pipeline(two(pipeline(call("a", CallableRef("x:cut_off", cut_off))), pipeline()))
    stop.reason = StopReason.SHUTDOWN
    running = asyncio.create_task(service(tree, store).accept(Request(1, run_id="run"), stop=stop))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert "p:left/a" in [entry.path for entry in await store.entries((await store.find("run")).run_id)]
    assert (await resume(tree, store)).success


async def test_a_failed_write_fails_the_run_and_no_later_write_leaves_a_gap(
    store: MemoryStateStore, world: World
) -> None:
    before = asyncio.all_tasks()
    slow: Any = SlowStore(store)
    body = pipeline(call("x", world.add("x")), call("y", world.add("y")))
    tree = pipeline(MapStep(name="m", over=Expr("input"), body=body))
    running = asyncio.create_task(start(tree, slow, [1, 2, 3]))
    await until_nothing_moves()
    slow.is_slow = False
    slow.open[0][1].set_exception(StateBackendUnavailable("away"))
    with pytest.raises(StateBackendUnavailable):
        await running
    assert asyncio.all_tasks() == before
    assert world.calls == ["x"] * 3


async def test_a_run_released_in_the_middle_of_branches_can_be_claimed(
    store: MemoryStateStore, world: World
) -> None:
    waiting, release = asyncio.Barrier(3), [False]

    async def wait(data: Any) -> str:
        if not release[0]:
            await waiting.wait()
            await asyncio.sleep(60)
        return "done"

    body = pipeline(
        LoopStep(
            name="loop",
            body=pipeline(call("w", CallableRef("x:wait", wait))),
            until=Expr("true"),
        )
    )
    tree = pipeline(two(body, body))
    stop = Stop()
    running = asyncio.create_task(service(tree, store).accept(Request(1, run_id="run"), stop=stop))
    await waiting.wait()
    stop.reason = StopReason.SHUTDOWN
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    record = await store.find("run")
    assert (record.status, record.owner) == (RunStatus.RUNNING, None)
    release[0] = True
    assert (await resume(tree, store)).output == {"left": "done", "right": "done"}


async def test_nested_pauses_are_returned_together_and_completed_parts_stay(
    store: MemoryStateStore, world: World
) -> None:
    ask = HumanInTheLoopStep(name="ok", message=Text("{{ item }}?"), when=Expr("item > 1"))
    items = MapStep(name="m", over=Expr("[1, 2, 3]"), body=pipeline(call("w", world.add("w")), ask))
    loop = LoopStep(name="loop", body=pipeline(items), until=Expr("true"))
    tree = pipeline(two(pipeline(loop), pipeline(call("b", world.add("b")))))
    result = await start(tree, store)
    ids = ["p:left/loop[0]/m[1]/ok", "p:left/loop[0]/m[2]/ok"]
    assert [pause.pause_id for pause in result.pauses] == ids
    for pause_id in reversed(ids):
        await answer(store, pause_id, pause_id[-5])
        result = await resume(tree, store)
    assert result.output == {"left": [1, "1", "2"], "right": None}
    assert world.calls.count("w") == 3
    assert world.calls.count("b") == 1
    done = [e.path for e in await store.entries(result.run_id) if e.kind is EntryKind.DONE]
    assert len(done) == len(set(done))


async def test_an_abort_of_a_deciding_callable_cancels_the_run_and_a_pause_fails_it(
    store: MemoryStateStore,
) -> None:
    def over(error: Exception) -> Any:
        def decide(data: Any) -> Any:
            raise error

        return pipeline(MapStep(name="m", over=CallableRef("x:over", decide), body=pipeline()))

    aborted = await start(over(PipelineAbortSignal("enough")), store, run_id="aborted")
    assert aborted.status is RunStatus.CANCELLED
    asked = await start(over(PausedException("please")), store, run_id="asked")
    assert asked.error is not None
    assert asked.error.path == "m"
    assert "asked a human: please" in asked.error.message


async def test_a_run_continues_with_an_answer_given_while_a_sibling_still_ran(
    store: MemoryStateStore, world: World
) -> None:
    async def reply(data: Any) -> str:
        assert [pause.is_open for pause in await store.pauses((await store.find("run")).run_id)] == [True]
        await answer(store, "p:left/ok", "early")
        return "replied"

    tree = pipeline(
        two(
            pipeline(HumanInTheLoopStep(name="ok", message=Text("ok?")), call("a", world.add("a"))),
            pipeline(call("b", world.add("b")), call("reply", CallableRef("x:reply", reply))),
        )
    )
    result = await start(tree, store, 1)
    assert (result.status, result.output) == (RunStatus.COMPLETED, {"left": "early", "right": "replied"})
    assert world.calls == ["b", "a"]
