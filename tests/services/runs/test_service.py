"""The service of a pipeline's runs: whom a stopped run is left to, and how an attached caller waits."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.acts import Actor, Via
from flujo.domain.models import PipelineContext
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef
from flujo.exceptions import RunConflict, RunnerClosed
from flujo.services.project.system import SystemClock
from flujo.services.runs.execution import Stop, StopReason
from flujo.services.runs.run_request import Request
from flujo.services.runs.runner import Flujo
from flujo.state.memory_runs import MemoryDatabase
from flujo.state.memory_store import MemoryStateStore
from support import World, call, pipeline, service

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.journal import RunId
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.run import RunRecord
    from flujo.domain.store import StateStore

Runner = Flujo[Any, Any, Any]

ADA = Actor("ada", Via.API)


@pytest.mark.parametrize(
    ("reason", "status"),
    [(StopReason.INTERRUPT, RunStatus.INTERRUPTED), (StopReason.SHUTDOWN, RunStatus.RUNNING)],
)
async def test_the_reason_of_a_stop_decides_who_continues_the_run(
    store: StateStore, reason: StopReason, status: RunStatus
) -> None:
    world, gate, waiting, stop = World(), asyncio.Event(), asyncio.Event(), Stop()
    runs = service(held_up(world, gate, waiting), store)
    running = asyncio.create_task(runs.accept(Request(1, run_id="run"), stop=stop))
    await waiting.wait()
    stop.reason = reason
    running.cancel("a message means nothing")
    with pytest.raises(asyncio.CancelledError):
        await running
    record = await store.find("run")
    assert (record.status, record.owner) == (status, None)
    assert [run for run in (await store.due()).runs if run == "run"] == (
        ["run"] if status is RunStatus.RUNNING else []
    )
    gate.set()
    assert (await runs.resume("run", actor=ADA)).output == 1
    assert world.calls == ["first", "wait", "wait"]


async def test_a_run_of_another_pipeline_is_refused(store: StateStore) -> None:
    await service(pipeline(call("a", World().add("a"))), store).accept(Request(1, run_id="run"))
    other = pipeline(call("a", World().add("a")), name="other")
    with pytest.raises(RunConflict, match="is of pipeline 'test', and this runner runs 'other'"):
        await service(other, store).resume("run", actor=ADA)


async def test_a_run_with_a_live_owner_is_read_and_seldom_claimed() -> None:
    """A claim is a write; in ten seconds of waiting there are forty reads and at most three claims."""
    world, gate, waiting = World(), asyncio.Event(), asyncio.Event()
    database = MemoryDatabase()
    tree, mine = held_up(world, gate, waiting), CountingStore(MemoryStateStore(database=database))
    async with (
        Runner(tree, store=MemoryStateStore(database=database)) as owner,
        Runner(tree, store=mine, clock=JumpingClock(after_s=10, then=gate.set), recovery=False) as other,
    ):
        running = asyncio.create_task(owner.run_result_async(1, run_id="run"))
        await waiting.wait()
        attached = await other.run_result_async(1, run_id="run")
        assert attached.output == (await running).output == 1
    assert mine.reads >= 40
    assert mine.claims <= 3
    assert world.calls == ["first", "wait"]


async def test_a_run_that_its_owner_releases_is_claimed_at_the_next_look() -> None:
    world, gate, waiting = World(), asyncio.Event(), asyncio.Event()
    database = MemoryDatabase()
    tree, mine = held_up(world, gate, waiting), CountingStore(MemoryStateStore(database=database))
    owner = Runner(tree, store=MemoryStateStore(database=database))
    async with Runner(tree, store=mine, clock=JumpingClock(), recovery=False) as other:
        running = asyncio.create_task(owner.run_result_async(1, run_id="run"))
        await waiting.wait()
        attached = asyncio.create_task(other.run_result_async(1, run_id="run"))
        await owner.aclose()
        with pytest.raises(RunnerClosed):
            await running
        gate.set()
        assert (await attached).output == 1


def held_up(world: World, gate: asyncio.Event, waiting: asyncio.Event) -> Pipeline:
    """Return a pipeline whose second step says that it is `waiting`, and waits for `gate`."""

    async def wait(data: Any) -> Any:
        world.calls.append("wait")
        waiting.set()
        await gate.wait()
        return data

    return pipeline(call("first", world.add("first")), call("wait", CallableRef("x:wait", wait)))


class CountingStore:
    """A store that counts how often a run is read and claimed."""

    def __init__(self, store: MemoryStateStore) -> None:
        self._store = store
        self.reads = self.claims = 0

    async def run(self, run_id: RunId) -> RunRecord:
        self.reads += 1
        return await self._store.run(run_id)

    async def claim(self, *args: Any, **options: Any) -> RunRecord:
        self.claims += 1
        return await self._store.claim(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class JumpingClock(SystemClock):
    """A clock that sleeps in no time, and does something `then` when `after_s` have been slept."""

    def __init__(self, after_s: float = float("inf"), then: Callable[[], None] = lambda: None) -> None:
        self._slept, self._after_s, self._then = 0.0, after_s, then

    def monotonic(self) -> float:
        return self._slept

    async def sleep(self, seconds: float) -> None:
        self._slept += seconds
        if self._slept >= self._after_s:
            self._then()
        for _ in range(20):  # the owner may continue meanwhile
            await asyncio.sleep(0)


# The identity of a run ------------------------------------------------------------------------------------


class Account(PipelineContext):
    user_id: str = "nobody"
    limit: float = 1


async def started(store: StateStore, how: str, if_exists: Any = "attach", **context: Any) -> Any:
    """Start the run `run` with this context through one of the doors of a runner."""
    seen = CallableRef("x:user", lambda data, context: context.user_id)
    tree = pipeline(call("user", seen))
    options: dict[str, Any] = {"run_id": "run", "if_exists": if_exists}
    if how == "defaults of the runner":
        runner = Flujo[Any, Any, Account](
            tree, store=store, context_model=Account, initial_context_data=context
        )
    else:
        runner = Flujo[Any, Any, Account](tree, store=store, context_model=Account)
        options["initial_context_data"] = context
    async with runner:
        if how != "stream":
            return (await runner.run_result_async(1, **options)).output
        async with runner.run_stream(1, **options) as stream:
            return [item async for item in stream][-1].output  # type: ignore[union-attr]  # the result


DOORS = ["arguments", "defaults of the runner", "stream"]


@pytest.mark.guarantee("G4")
@pytest.mark.parametrize("if_exists", ["attach", "fail", "resume", "return"])
@pytest.mark.parametrize("how", DOORS)
async def test_a_run_id_with_another_initial_context_is_a_conflict(
    store: StateStore, how: str, if_exists: Any
) -> None:
    assert await started(store, how, user_id="alice") == "alice"
    with pytest.raises(RunConflict, match="another initial context; different fields: `user_id`") as refused:
        await started(store, how, if_exists, user_id="bob")
    assert "alice" not in str(refused.value)
    with pytest.raises(RunConflict, match="`user_id`"):
        await started(store, how, if_exists)


@pytest.mark.parametrize("how", DOORS)
async def test_defaults_that_are_spelled_out_are_the_same_initial_context(
    store: StateStore, how: str
) -> None:
    assert await started(store, how) == "nobody"
    for same in ({"user_id": "nobody"}, {"limit": 1}, {"limit": 1.0, "user_id": "nobody"}):
        assert await started(store, how, **same) == "nobody"


async def test_a_run_is_compared_by_its_context_at_the_start_not_by_the_present_one(
    store: StateStore,
) -> None:
    def spend(data: Any, context: Account) -> float:
        context.limit -= 1
        return context.limit

    tree = pipeline(call("spend", CallableRef("x:spend", spend)))
    async with Flujo[Any, Any, Account](tree, store=store, context_model=Account) as runner:
        for _ in range(2):
            result = await runner.run_result_async(1, run_id="run", initial_context_data={"limit": 5})
            assert result.output == 4
        with pytest.raises(RunConflict, match="`limit`"):
            await runner.run_result_async(1, run_id="run", initial_context_data={"limit": 4})
