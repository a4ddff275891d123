"""On Postgres a process hears from others that a wait of a run is settled, whatever has settled it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from flujo.client import TaskClient
from flujo.domain.acts import Actor, Via
from flujo.domain.paths import StepPath
from flujo.domain.pipeline import Pipeline
from flujo.domain.run import Pause, PauseKind, RunStatus, Write
from flujo.domain.sent_events import NewEvent
from flujo.domain.steps import HumanInTheLoopStep
from flujo.services.project.recovery_policy import RecoveryPolicy
from flujo.services.runs.runner import Flujo
from flujo.state import store as state_store
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite.examples import RUN, ask, move, new_run
from flujo.testing.store_suite.families import TASK, launched, wait_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flujo.domain.journal import RunId


@asynccontextmanager
async def two_stores(uri: str) -> AsyncIterator[tuple[SqlStateStore, SqlStateStore]]:
    """Open two stores that share no callbacks, as those of two processes: their URIs differ."""
    other = f"{uri}{'&' if '?' in uri else '?'}application_name=other"
    async with aclosing(SqlStateStore(uri)) as mine, aclosing(SqlStateStore(other)) as theirs:
        yield mine, theirs


async def listening(store: SqlStateStore) -> asyncio.Queue[RunId]:
    """Return what the store hears, once it listens."""
    heard: asyncio.Queue[RunId] = asyncio.Queue()
    store.on_settled(heard.put_nowait)
    listens = asyncio.Event()
    store.on_queued(listens.set)  # called when the connection listens
    await listens.wait()
    return heard


@pytest.mark.parametrize("by", ["answer", "event", "task", "deadline"])
async def test_another_process_is_heard_when_a_wait_is_settled(postgres_uri: str, by: str) -> None:
    async with two_stores(postgres_uri) as (mine, other), asyncio.timeout(60):
        heard = await listening(mine)
        run = await launched(other)
        if by == "task":
            await other.write(wait_for(run, TASK))
            await other.write(move(await other.run(TASK), RunStatus.COMPLETED))
        elif by == "event":
            wait = Pause(pause_id=StepPath("paid"), message="waits", kind=PauseKind.EVENT, event="paid")
            await other.write(Write(run_id=RUN, fence=run.fence, pauses=(wait,)))
            await other.send_event(
                NewEvent(event_id="e", name="paid", payload=b"1", actor=Actor("ada", Via.API), run_id=RUN)
            )
        elif by == "deadline":
            late = Pause(pause_id=StepPath("late"), message="waits", deadline_s=0.0)
            await other.write(Write(run_id=RUN, fence=run.fence, pauses=(late,)))
            assert (await other.expire(RUN, StepPath("late"))).is_expired
        else:
            await ask(other, run, "ok")
            await other.answer(RUN, StepPath("ok"), b"true")
        assert await heard.get() == RUN


async def test_a_run_continues_when_another_process_answers_without_a_look_at_the_database(
    postgres_uri: str,
) -> None:
    tree = Pipeline((HumanInTheLoopStep("ask", message="?"),), name="asking")
    never = RecoveryPolicy(every_s=1000)
    async with two_stores(postgres_uri) as (mine, other), asyncio.timeout(60):
        await listening(mine)
        async with Flujo[Any, Any, Any](tree, store=mine, recovery=never) as runner:
            assert (await runner.run_result_async(1, run_id=RUN)).status is RunStatus.PAUSED
            await other.answer(RUN, StepPath("ask"), b'"yes"')
            assert (await TaskClient(mine).wait(RUN)).output == "yes"


async def test_a_store_does_not_hear_itself_and_not_what_others_do_to_their_own_steps(
    postgres_uri: str,
) -> None:
    async with two_stores(postgres_uri) as (mine, other), asyncio.timeout(60):
        heard = await listening(mine)
        run = await mine.accept(new_run(), {})
        await ask(mine, run, "a", "c")
        second = await other.accept(new_run("second"), {})
        await ask(other, second, "b")
        await mine.answer(RUN, StepPath("a"), b"1")
        # A `TaskClient` has a store of its own. An answer of it wakes nothing in its process either.
        async with aclosing(SqlStateStore(postgres_uri)) as beside:
            await beside.answer(RUN, StepPath("c"), b"1")
        await other.answer(second.run_id, StepPath("b"), b"1")
        assert await heard.get() == "second", "notifications come in the order of the commits"
        assert heard.empty()


async def test_a_process_that_waits_only_for_a_moment_opens_no_connection(
    postgres_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_store, "_HEAR_AFTER_S", 0.0)
    async with two_stores(postgres_uri) as (mine, _):
        begun: list[str] = []
        monkeypatch.setattr(mine._listener, "begin", lambda: begun.append("begin"))
        mine.on_settled(lambda _: None)()
        await asyncio.sleep(0.01)
        assert begun == []
        end = mine.on_settled(lambda _: None)
        await asyncio.sleep(0.01)
        assert begun == ["begin"]
        end()
