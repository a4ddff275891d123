"""Cancelling: the owner of a run ends it; another process does only when the run has no living owner."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flujo import Flujo, TaskClient
from flujo.domain.acts import Actor, Verb, Via
from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef, HumanInTheLoopStep, LoopStep, SetStep, Text
from flujo.engine import foreign_code
from flujo.exceptions import Fenced, ResumeConflict, SettingsError
from flujo.services.project.system import SystemClock
from flujo.services.runs import blueprint_runs
from flujo.state import leases
from flujo.state.memory_runs import MemoryDatabase
from flujo.state.memory_store import MemoryStateStore
from flujo.state.sql import tables
from flujo.state.store import SqlStateStore
from support import World, call, pipeline, resume, service, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import sqlalchemy as sa

    from flujo.domain.pipeline import Pipeline
    from flujo.domain.store import StateStore

ADA = Actor("ada", Via.CLI)
RUN = RunId("run")


@pytest.fixture(autouse=True)
def _soon_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LOOK_S", 0.1)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[tuple[StateStore, StateStore]]:
    """The stores of two processes on one database."""
    database = MemoryDatabase()
    made: tuple[StateStore, StateStore]
    if request.param == "memory":
        made = MemoryStateStore(database), MemoryStateStore(database)
    else:
        uri = request.getfixturevalue(f"{request.param}_uri")
        made = SqlStateStore(uri), SqlStateStore(uri)
    yield made
    for store in made:
        await store.aclose()


class Held:
    """A pipeline whose first step does not end while it is held."""

    def __init__(self, *, stubborn: bool = False, **step: Any) -> None:
        self.world, self.began, self.release = World(), asyncio.Event(), asyncio.Event()
        self._stubborn, self._step = stubborn, step

    async def _hold(self, data: Any) -> Any:
        self.began.set()
        while not self.release.is_set():
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                if not self._stubborn:
                    raise
        return data

    def pipeline(self) -> Pipeline:
        target = CallableRef("world:hold", self._hold)
        return pipeline(
            call("hold", target, **self._step),
            call("rest", CallableRef("world:rest", _rest)),
            call("after", self.world.add("after")),
        )


async def _rest(data: Any) -> Any:
    await asyncio.sleep(30)
    return data


@pytest.mark.guarantee("G5")
async def test_a_living_owner_ends_the_run_itself(stores: tuple[StateStore, StateStore]) -> None:
    mine, other = stores
    held = Held()
    running = asyncio.create_task(start(held.pipeline(), mine))
    await held.began.wait()
    cancelled = await TaskClient(other, by="ada").cancel_task("run")
    assert cancelled.status is RunStatus.CANCELLED
    result = await running
    assert (result.status, result.run_id) == (RunStatus.CANCELLED, "run")
    assert result.error is not None
    assert result.error.message == "cancelled by ada"
    assert held.world.calls == []
    assert (await other.run(RUN)).fence == 1, "nobody has claimed it from its owner"
    with pytest.raises(ResumeConflict):
        await TaskClient(other).cancel_task("run")


async def test_the_result_of_a_cancelled_run_has_its_completed_steps(
    stores: tuple[StateStore, StateStore],
) -> None:
    mine, other = stores
    held = Held()
    tree = pipeline(call("first", held.world.add("first")), *held.pipeline().steps)
    running = asyncio.create_task(start(tree, mine))
    await held.began.wait()
    await TaskClient(other, by="ada").cancel_task("run")
    result = await running
    assert [(step.path, step.status) for step in result.steps] == [("first", "completed")]
    assert result.note == ""


async def test_the_result_of_a_cancelled_run_names_its_calls_in_doubt(
    stores: tuple[StateStore, StateStore],
) -> None:
    mine, other = stores
    held = Held(enforce_idempotency=True)
    running = asyncio.create_task(start(held.pipeline(), mine))
    await held.began.wait()
    await TaskClient(other, by="ada").cancel_task("run")
    assert (await running).note == "in doubt: `hold` called `world:hold`; its outcome is not recorded"


async def test_a_live_owner_is_not_fenced_during_its_step(
    stores: tuple[StateStore, StateStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign_code, "GRACE_S", 60.0)
    monkeypatch.setattr(blueprint_runs, "_TRY_S", 0.5)
    mine, other = stores
    held = Held(stubborn=True)
    running = asyncio.create_task(start(held.pipeline(), mine))
    await held.began.wait()
    record = await blueprint_runs.cancel(other, "run", ADA, clock=SystemClock(), owner_s=1.0)
    assert (record.status, record.fence) == (RunStatus.RUNNING, 1)
    held.release.set()
    assert (await running).status is RunStatus.CANCELLED
    assert held.world.calls == []


async def test_a_run_without_a_living_owner_is_cancelled_at_once(store: StateStore) -> None:
    asks = pipeline(HumanInTheLoopStep(name="ask", message=Text("ok?")))
    await start(asks, store)
    record = await blueprint_runs.cancel(store, "run", ADA, clock=SystemClock())
    assert record.status is RunStatus.CANCELLED
    [question] = await store.pauses(RUN)
    assert question.void
    assert [(act.verb, act.actor) for act in await store.acts(RUN)] == [(Verb.CANCEL, ADA)]


async def test_a_wish_is_fulfilled_by_the_next_owner_when_who_cancelled_has_died(store: StateStore) -> None:
    world = World()
    tree = pipeline(HumanInTheLoopStep(name="ask", message=Text("ok?")), call("after", world.add("after")))
    await start(tree, store)
    await store.cancel(RUN, ADA)
    result = await resume(tree, store, answer="yes")
    assert (result.status, world.calls) == (RunStatus.CANCELLED, [])


async def test_a_run_whose_owner_died_is_cancelled_after_its_lease(sqlite_uri: str) -> None:
    dead, store = SqlStateStore(sqlite_uri), SqlStateStore(sqlite_uri)
    held = Held(stubborn=True)
    running = asyncio.create_task(start(held.pipeline(), dead))
    await held.began.wait()
    await store.write_apart(_end_the_lease)
    record = await blueprint_runs.cancel(store, "run", ADA, clock=SystemClock())
    assert (record.status, record.fence) == (RunStatus.CANCELLED, 2)
    held.release.set()
    with pytest.raises(Fenced):
        await running
    await dead.aclose()
    await store.aclose()


def _end_the_lease(connection: sa.Connection) -> None:
    connection.execute(tables.runs.update().values(lease_until=1.0))


async def test_calls_that_were_under_way_are_listed_as_in_doubt(store: StateStore) -> None:
    held = Held(enforce_idempotency=True)
    running = asyncio.create_task(start(held.pipeline(), store, 7))
    await held.began.wait()
    client = TaskClient(store)
    assert (await client.get_task("run")).in_doubt == ()
    await client.cancel_task("run")
    await running
    [doubtful] = (await client.get_task("run")).in_doubt
    assert (doubtful.path, doubtful.tool, doubtful.input) == ("hold", "world:hold", b"7")


async def test_who_answers_and_retries_is_recorded(store: StateStore) -> None:
    world = World()
    broken = True

    def work(data: Any) -> Any:
        if broken:
            raise ValueError("no")
        return data

    tree = pipeline(
        HumanInTheLoopStep(name="ask", message=Text("ok?")), call("work", world.add("work", work))
    )
    async with Flujo[Any, Any, Any](tree, store=store) as runner:
        await runner.run_result_async(1, run_id="run")
        await runner.resume_async("run", "yes", by="ada")
        broken = False
        await runner.resume_async("run", retry_failed=True)
        with pytest.raises(SettingsError, match="not a valid actor name"):
            await runner.resume_async("run", by="a\nb")
    acts = (await TaskClient(store).get_task("run")).acts
    assert [(act.verb, act.object, act.actor.via) for act in acts] == [
        (Verb.ANSWER, "ask", Via.API),
        (Verb.RETRY, "", Via.API),
    ]
    assert acts[0].actor.by == "ada"
    assert acts[1].actor.by.strip()


# finally -------------------------------------------------------------------------------------------------

HOLD = {"type": "object", "properties": {"hold": {"type": "string", "default": ""}}}


class Closed(Held):
    """A pipeline with `finally`, whose second step is a loop that writes to the context and then holds."""

    def __init__(self, **more: Any) -> None:
        super().__init__()
        self.seen: list[Any] = []
        self.more = more

    def pipeline(self) -> Pipeline:
        reserve, hold, *after = SetStep("reserve", {"hold": "h-1"}), *super().pipeline().steps
        said = {"how": "{{ ended.status }}", "hold": "{{ context.hold }}"}
        close = call("close", self.world.add("close", self.close), input=said)
        first = call("first", self.world.add("first"))
        body = LoopStep("each", [reserve, hold], until="true")
        return pipeline(first, body, *after, context_schema=HOLD, finally_=close, **self.more)

    def close(self, said: Any) -> str:
        self.seen.append(said)
        return "closed"


@pytest.mark.guarantee("G5")
async def test_a_living_owner_executes_finally_before_it_ends_the_run(
    stores: tuple[StateStore, StateStore],
) -> None:
    mine, other = stores
    held = Closed()
    tree = held.pipeline()
    running = asyncio.create_task(start(tree, mine))
    await held.began.wait()
    await TaskClient(other, by="ada").cancel_task("run")
    result = await running
    assert result.error is not None
    assert (result.status, result.error.message) == (RunStatus.CANCELLED, "cancelled by ada")
    assert held.seen == [{"how": "cancelled", "hold": "h-1"}]
    assert result.context is not None
    assert result.context.hold == "h-1"
    assert held.world.calls == ["first", "close"]
    assert [step.path for step in result.steps] == ["first", "each[0]/reserve", ":finally/close"]
    assert (await other.run(RUN)).fence == 1, "no other process has claimed it"
    async with Flujo[Any, Any, Any](tree, store=other, recovery=False) as runner:
        assert (await runner.replay_from_trace("run")).error == result.error


async def test_a_cancel_that_comes_in_finally_does_not_interrupt_it(
    stores: tuple[StateStore, StateStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blueprint_runs, "_TRY_S", 0.2)
    mine, other = stores
    held = Held()
    hold = held.pipeline().steps[0]
    running = asyncio.create_task(start(pipeline(finally_=hold), mine))
    await held.began.wait()
    record = await blueprint_runs.cancel(other, "run", ADA, clock=SystemClock(), owner_s=0.5)
    assert record.status is RunStatus.RUNNING
    held.release.set()
    assert (await running).status is RunStatus.COMPLETED
    recorded = {entry.path for entry in await other.entries(RUN)}
    assert recorded == {":end", "nothing", ":finally/hold"}, "no attempt was interrupted"


async def test_a_stopped_process_leaves_finally_to_the_resumed_run(store: StateStore) -> None:
    held = Closed()
    running = asyncio.create_task(start(held.pipeline(), store))
    await held.began.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert held.seen == []
    await store.cancel(RUN, ADA)
    result = await resume(held.pipeline(), store)
    assert (result.status, held.seen) == (RunStatus.CANCELLED, [{"how": "cancelled", "hold": "h-1"}])
    assert held.world.calls == ["first", "close"]


async def test_finally_is_not_executed_when_the_record_does_not_fit_the_pipeline(store: StateStore) -> None:
    asked = HumanInTheLoopStep("ask", message="?"), call("after", World().add("after"))
    close = call("close", World().add("close"))
    await start(pipeline(call("first", World().add("first")), *asked, finally_=close), store)
    await store.cancel(RUN, ADA)
    world = World()
    changed = pipeline(call("renamed", world.add("a")), *asked, finally_=call("close", world.add("close")))
    result = await resume(changed, store)
    assert (result.status, world.calls) == (RunStatus.CANCELLED, [])
    assert result.error is not None
    assert result.error.message == (
        "cancelled by ada; `finally` was not executed: "
        "the journal has a step at `first`, which the pipeline lacks"
    )


class Asking(Closed):
    """A pipeline with `finally` that asks a human after a write to the context."""

    def pipeline(self) -> Pipeline:
        closed = super().pipeline()
        steps = closed.steps[0], SetStep("reserve", {"hold": "h-1"}), HumanInTheLoopStep("ask", message="?")
        return pipeline(*steps, context_schema=HOLD, finally_=closed.finally_, **self.more)


async def test_a_waiting_run_is_cancelled_after_finally_by_the_client_that_has_its_pipeline(
    store: StateStore,
) -> None:
    asks = Asking()
    tree = asks.pipeline()
    await start(tree, store)
    async with Flujo[Any, Any, Any](tree, store=store, recovery=False) as runner:
        task = await TaskClient(store, runners=[runner], by="ada").cancel_task("run")
    assert task.error is not None
    assert (task.status, task.error.message) == (RunStatus.CANCELLED, "cancelled by ada")
    assert (asks.world.calls, asks.seen) == (["first", "close"], [{"how": "cancelled", "hold": "h-1"}])
    assert [question.void for question in await store.pauses(RUN)] == [True]


async def test_a_client_without_the_pipeline_leaves_finally_to_the_process_that_resumes_the_run(
    store: StateStore,
) -> None:
    asks = Asking()
    tree = asks.pipeline()
    await start(tree, store)
    client = TaskClient(store, by="ada")
    for _ in range(2):
        task = await client.cancel_task("run")
        assert (task.status, task.display_status) == (RunStatus.RUNNING, "orphaned")
    assert [act.verb for act in await store.acts(RUN)] == [Verb.CANCEL]
    assert RUN in (await store.due(pipeline="test", limit=9)).runs
    result = await service(tree, store).recover(RUN, max_recoveries=3)
    assert result.status is RunStatus.CANCELLED
    assert (asks.world.calls, asks.seen) == (["first", "close"], [{"how": "cancelled", "hold": "h-1"}])


async def test_finally_is_executed_once_when_several_processes_cancel_and_recover(
    stores: tuple[StateStore, StateStore],
) -> None:
    asks = Asking()
    tree = asks.pipeline()
    await start(tree, stores[0])
    async with (
        Flujo[Any, Any, Any](tree, store=stores[0], recovery=False) as one,
        Flujo[Any, Any, Any](tree, store=stores[1], recovery=False) as two,
    ):
        clients = [TaskClient(each, runners=[run]) for each, run in zip(stores, (one, two), strict=True)]
        recoveries = [service(tree, each).recover(RUN, max_recoveries=3) for each in stores]
        await asyncio.gather(
            *(client.cancel_task("run") for client in (*clients, TaskClient(stores[1]))),
            *recoveries,
            return_exceptions=True,
        )
    assert (await stores[0].run(RUN)).status is RunStatus.CANCELLED
    assert asks.world.calls == ["first", "close"]


async def test_a_run_that_never_began_is_cancelled_without_finally(store: StateStore) -> None:
    asks = Asking()
    async with Flujo[Any, Any, Any](asks.pipeline(), store=store, recovery=False) as runner:
        await runner.submit("x", run_id="run")
        task = await TaskClient(store, runners=[runner]).cancel_task("run")
    assert (task.status, asks.world.calls) == (RunStatus.CANCELLED, [])


async def test_a_failed_run_whose_finally_has_ended_is_cancelled_at_once(store: StateStore) -> None:
    def down(_: Any) -> Any:
        raise ValueError("down")

    world = World()
    tree = pipeline(call("work", world.add("work", down)), finally_=call("close", world.add("close", down)))
    await start(tree, store)
    task = await TaskClient(store).cancel_task("run")
    assert (task.status, world.calls) == (RunStatus.CANCELLED, ["work", "close"])
