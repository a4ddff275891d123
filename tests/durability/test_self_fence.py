"""A process that may have lost a run starts no step before it checks the database."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.conversations import ToolCall
from flujo.domain.journal import RunId
from flujo.domain.ledger import HoldState
from flujo.domain.run import RunStatus, Write
from flujo.domain.steps import CallableRef, Step, StepConfig
from flujo.domain.usage import Usage, UsageLimits
from flujo.exceptions import Fenced, ResumeConflict
from flujo.state.sql import tables
from flujo.state.store import SqlStateStore
from flujo.testing import ScriptedAgent
from flujo.testing.store_suite import RUN, new_run
from support import World, call, pipeline, start

if TYPE_CHECKING:
    from collections.abc import Callable

    import sqlalchemy as sa

    from durability.conftest import Evidence
    from flujo.domain.pipeline import BaseStep, Pipeline

LEASE_S = 0.4


def three_steps(world: World, second: Callable[[int], Any]) -> Pipeline:
    """Return steps that do not wait for the database, so that only the lease can stop them."""
    targets = {
        "first": world.add("first"),
        "second": CallableRef("x:second", second),
        "third": world.add("third"),
    }
    config = StepConfig(durability="exit")
    return pipeline(*(call(name, target, config=config) for name, target in targets.items()))


@pytest.mark.guarantee("G16")
async def test_a_process_that_cannot_renew_its_lease_starts_no_step_until_the_database_is_back(
    sqlite_uri: str, evidence: Evidence
) -> None:
    store, world = SqlStateStore(sqlite_uri, lease_s=LEASE_S, renew_s=LEASE_S / 4), World()
    lapsed, other = asyncio.Event(), await asyncio.to_thread(_opened, store)

    async def second(data: int) -> int:
        other.execute("BEGIN IMMEDIATE")
        while store.may_begin(RunId("run")):  # noqa: ASYNC110 - the lease expires with time
            await asyncio.sleep(0.02)
        lapsed.set()
        return data

    with closing(other):
        running = asyncio.create_task(start(three_steps(world, second), store, 1))
        await lapsed.wait()
        await asyncio.sleep(0.1)
        assert world.calls == ["first"]
        evidence.add(faults=1)
        other.execute("ROLLBACK")
        assert (await running).status is RunStatus.COMPLETED
    assert world.calls == ["first", "third"]
    assert (await store.run(RunId("run"))).fence == 1
    await store.aclose()


def _opened(store: SqlStateStore) -> sqlite3.Connection:
    store._open()  # creates the file
    return sqlite3.connect(str(store.database.url.database), isolation_level=None, check_same_thread=False)


@pytest.mark.guarantee("G16", "G5")
async def test_a_process_that_slept_past_its_lease_starts_no_step_in_a_lost_run(
    store_uri: str, evidence: Evidence
) -> None:
    mine, world = SqlStateStore(store_uri, lease_s=LEASE_S, renew_s=LEASE_S / 4), World()

    async def asleep(data: int) -> int:
        _sleep_until_taken_over(store_uri)
        return data

    with pytest.raises(Fenced):
        await start(three_steps(world, asleep), mine, 1)
    assert world.calls == ["first"]
    evidence.add(faults=1)
    await mine.aclose()


class SleepyStore:
    """A store whose process sleeps after a call is announced, or a request is held, until it has lost the run."""

    def __init__(self, store: SqlStateStore, uri: str) -> None:
        self._store = store
        self._uri = uri

    async def write(self, write: Write) -> bool:
        """Forward a write, and sleep if it announces a call or holds budget for a request."""
        written = await self._store.write(write)
        if write.intents or any(hold.state is HoldState.HELD for hold in write.holds):
            _sleep_until_taken_over(self._uri)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.guarantee("G16", "G3")
async def test_a_process_that_slept_after_an_announcement_does_not_make_the_call_in_a_lost_run(
    store_uri: str, evidence: Evidence
) -> None:
    mine, world = SqlStateStore(store_uri, lease_s=LEASE_S, renew_s=LEASE_S / 4), World()
    tree = pipeline(call("pay", world.add("pay"), enforce_idempotency=True))
    sleepy: Any = SleepyStore(mine, store_uri)
    with pytest.raises(Fenced):
        await start(tree, sleepy, 1)
    assert world.calls == []
    evidence.add(faults=1)
    await mine.aclose()


@pytest.mark.guarantee("G16", "G20")
@pytest.mark.parametrize("step", [Step, Step.granular], ids=["one attempt", "turns"])
async def test_a_process_that_slept_after_a_reservation_sends_no_request_in_a_lost_run(
    store_uri: str, evidence: Evidence, step: Callable[..., BaseStep]
) -> None:
    mine = SqlStateStore(store_uri, lease_s=LEASE_S, renew_s=LEASE_S / 4)
    agent = ScriptedAgent(["an answer"], usage=Usage(input_tokens=10, requests=1))
    tree = pipeline(step("say", agent), budget=UsageLimits(total_tokens_limit=100))
    sleepy: Any = SleepyStore(mine, store_uri)
    with pytest.raises(Fenced):
        await start(tree, sleepy, 1)
    assert agent.count == 0
    evidence.add(faults=1)
    await mine.aclose()


@pytest.mark.guarantee("G16", "G5")
@pytest.mark.parametrize("wakes_in", ["the request", "the tool call"])
async def test_an_attempt_that_slept_past_its_lease_sends_no_further_request_and_calls_no_further_tool(
    store_uri: str, evidence: Evidence, wakes_in: str
) -> None:
    mine = SqlStateStore(store_uri, lease_s=LEASE_S, renew_s=LEASE_S / 4)
    called: list[str] = []

    async def work() -> str:  # in the event loop, which it blocks
        called.append("work")
        if wakes_in == "the tool call":
            _sleep_until_taken_over(store_uri)
        return "worked"

    def script(ask: Any) -> Any:
        if wakes_in == "the request":
            _sleep_until_taken_over(store_uri)
        return [ToolCall("work", {})]

    agent = ScriptedAgent(script, tools=[work])
    with pytest.raises(Fenced):
        await start(pipeline(Step("say", agent=agent)), mine, 1)
    assert agent.count == 1
    assert called == (["work"] if wakes_in == "the tool call" else [])
    evidence.add(faults=1)
    await mine.aclose()


def _sleep_until_taken_over(uri: str) -> None:
    """Block the event loop, so that the lease is not renewed."""
    taking = threading.Thread(target=lambda: asyncio.run(_take_over(uri)))
    taking.start()
    taking.join()


async def _take_over(uri: str) -> None:
    other = SqlStateStore(uri)
    while True:
        try:
            await other.claim(RunId("run"), statuses=[RunStatus.RUNNING])
        except ResumeConflict:
            await asyncio.sleep(0.02)
        else:
            break
    other.let_go(RunId("run"))
    await other.aclose()


def _end_the_lease(connection: sa.Connection) -> None:
    connection.execute(tables.runs.update().values(lease_until=1.0))


@pytest.mark.guarantee("G5")
async def test_an_empty_write_renews_the_lease_or_names_the_new_owner(store_uri: str) -> None:
    mine, other = SqlStateStore(store_uri), SqlStateStore(store_uri)
    run = await mine.accept(new_run(), {})
    assert mine.may_begin(RUN)
    mine.let_go(RUN)
    assert not mine.may_begin(RUN)
    await mine.write(Write(run_id=RUN, fence=run.fence))
    assert mine.may_begin(RUN)
    with pytest.raises(ResumeConflict):
        await other.claim(RUN, statuses=[RunStatus.RUNNING])
    await other.write_apart(_end_the_lease)
    await other.claim(RUN, statuses=[RunStatus.RUNNING])
    mine.let_go(RUN)
    with pytest.raises(Fenced):
        await mine.write(Write(run_id=RUN, fence=run.fence))
    assert not mine.may_begin(RUN)
    await mine.aclose()
    await other.aclose()
