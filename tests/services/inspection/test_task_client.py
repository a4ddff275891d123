"""`TaskClient`: pages, counts, waiting, retries, and what a caller can do wrong."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flujo import EventStep, Flujo, HumanInTheLoopStep, Pipeline, Step, TaskClient
from flujo.domain.run import RunStatus
from flujo.domain.usage import NOTHING, Usage
from flujo.domain.values import Text
from flujo.exceptions import (
    EventConflict,
    EventRefused,
    FlujoError,
    InputRejected,
    ResumeConflict,
    RunNotFound,
    SettingsError,
    WaitTimedOut,
)
from flujo.state.store import SqlStateStore
from flujo.testing import ScriptedAgent
from flujo.testing.store_suite import new_run
from support import pipeline, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from flujo.domain.ports import StateStore
    from flujo.domain.run import RunQuery, RunRecord


@pytest.fixture
async def sql_store(store_uri: str) -> AsyncIterator[SqlStateStore]:
    store = await SqlStateStore.open(store_uri)
    yield store
    await store.aclose()


async def test_pages_are_the_whole_list_while_runs_are_inserted(sql_store: SqlStateStore) -> None:
    client = TaskClient(sql_store)
    for number in range(7):
        await sql_store.accept(new_run(f"run-{number}"), {}, claim=False)
    found: list[str] = []
    cursor: str | None = None
    while page := await client.list_tasks(limit=2, cursor=cursor):
        found += [task.run_id for task in page]
        cursor = page[-1].cursor
        await sql_store.accept(new_run(f"new-{len(found)}"), {}, claim=False)
    assert found == [f"run-{number}" for number in reversed(range(7))]
    assert await client.count(cursor=cursor) == {}
    assert await client.count("blueprint") == {"triage": 11}
    assert await client.count(status="running") == {}


async def test_a_time_is_seconds_a_datetime_or_how_long_ago(sql_store: SqlStateStore) -> None:
    client = TaskClient(sql_store)
    created = (await sql_store.accept(new_run(), {}, claim=False)).created_at
    for since in (created, datetime.fromtimestamp(created - 1, UTC), timedelta(hours=1)):
        assert len(await client.list_tasks(since=since)) == 1
        assert await client.list_tasks(until=since) == []
    assert await client.list_tasks(since=created + 1) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"status": "bogus"},
        {"status": 5},
        {"status": ["failed", "bogus"]},
        {"metadata_filter": "customer=c1"},
        {"metadata_filter": [("customer", "c1")]},
        {"metadata_filter": {"customer": b"c1"}},
        {"metadata_filter": {5: 5}},
        {"user_id": 5},
        {"blueprint": b"ask"},
        {"pause": 5},
        {"since": "2h"},
        {"since": datetime(2026, 1, 1)},  # noqa: DTZ001 - a time without a zone
        {"until": float("nan")},
        {"until": True},
        {"order": "random"},
        {"order": None},
        {"cursor": "next"},
        {"cursor": 5},
        {"cursor": "newest:x:y"},
        {"cursor": "oldest:1.0:run-1"},
        {"limit": "10"},
        {"limit": 0},
        {"limit": 10_001},
        {"limit": True},
    ],
    ids=str,
)
async def test_a_wrong_argument_of_a_list_is_an_error_with_a_hint(
    sql_store: SqlStateStore, wrong: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError) as raised:
        await TaskClient(sql_store).list_tasks(**wrong)
    assert raised.value.hint or "limit" in wrong
    if "limit" not in wrong:
        with pytest.raises(SettingsError):
            await TaskClient(sql_store).count(**wrong)


async def test_an_unknown_status_names_the_nearest_one(sql_store: SqlStateStore) -> None:
    with pytest.raises(SettingsError, match="'complete' is not the status of a run") as raised:
        await TaskClient(sql_store).list_tasks(status="complete")
    assert raised.value.hint == "did you mean `completed`?"
    with pytest.raises(SettingsError, match="`group_by` is 'state'"):
        await TaskClient(sql_store).count("state")


async def test_wait_returns_when_a_run_asks_or_ends(sql_store: SqlStateStore) -> None:
    tree = Pipeline(
        HumanInTheLoopStep("ask", "Well?") >> Step("use", lambda data: f"got {data}"), name="wait"
    )
    async with Flujo(tree, store=sql_store, recovery=False) as runner, TaskClient(sql_store) as client:
        running = asyncio.ensure_future(runner.run_result_async("x", run_id="w1"))
        await running
        asked = await client.wait("w1", timeout=30)
        assert (asked.status, [pause.message for pause in asked.pauses]) == (RunStatus.PAUSED, ["Well?"])
        await client.resume_task("w1", "yes")  # without a runner the answer is only recorded
        with pytest.raises(WaitTimedOut, match=r"run w1 is still paused after 0\.01 s"):
            await client.wait("w1", timeout=0.01)
        waiting = asyncio.ensure_future(client.wait("w1"))
        await runner.resume_async("w1")
        ended = await waiting
        assert (ended.status, ended.output) == (RunStatus.COMPLETED, "got yes")


async def test_a_client_retries_a_failed_run_with_its_runner(sql_store: SqlStateStore) -> None:
    broken = [True]

    def fragile(data: str) -> str:
        if broken:
            raise ValueError("not yet")
        return data

    tree = Pipeline(Step("fragile", fragile), name="fragile")
    async with Flujo(tree, store=sql_store, recovery=False) as runner:
        await runner.run_result_async("x", run_id="f1")
        alone = TaskClient(sql_store)
        [task] = await alone.list_tasks(status="failed")
        assert task.error is not None
        assert "not yet" in task.error.message
        with pytest.raises(SettingsError, match="it has no runner of pipeline 'fragile'"):
            await alone.retry_task("f1")
        client = TaskClient(sql_store, runners=[runner], by="ops")
        broken.clear()
        assert (await client.retry_task("f1", by="ada")).output == "x"
        with pytest.raises(ResumeConflict):
            await client.retry_task("f1")
    assert [
        (act.verb, act.actor.by) for act in await sql_store.acts((await sql_store.find("f1")).run_id)
    ] == [("retry", "ada")]


@pytest.mark.parametrize("run_id", [None, 5, b"x", ["x"]])
async def test_a_run_id_that_is_not_a_text_is_an_error_with_a_hint(
    sql_store: SqlStateStore, run_id: Any
) -> None:
    client = TaskClient(sql_store)
    for act in (client.get_task, client.cancel_task, client.retry_task, client.wait):
        with pytest.raises(SettingsError, match="`run_id` is"):
            await act(run_id)
    with pytest.raises(SettingsError, match="`run_id` is"):
        await client.resume_task(run_id, "x")
    with pytest.raises(RunNotFound):
        await client.wait("nothing")


async def test_every_wrong_argument_of_a_client_is_an_error_of_flujo(sql_store: SqlStateStore) -> None:
    await sql_store.accept(new_run("run-1"), {}, claim=False)
    client: Any = TaskClient(sql_store)
    wrong: list[Any] = [
        lambda: client.wait("run-1", timeout="5"),
        lambda: client.wait("run-1", timeout=-1),
        lambda: client.resume_task("run-1", "x", pause_id=5),
        lambda: client.resume_task("run-1", object()),
        lambda: client.resume_task("run-1", "x", by=5),
        lambda: client.resolve_task("run-1", 5),
        lambda: client.cancel_task("run-1", by=""),
        lambda: client.cancel_task("run-1", by=5),
        lambda: client.get_task(""),
    ]
    for act in wrong:
        with pytest.raises(FlujoError):
            await act()


# Events ---------------------------------------------------------------------------------------------------


def waits_for_event() -> Pipeline:
    """Return a pipeline that waits for a number."""
    return pipeline(EventStep("paid", key="input.order", event_schema={"type": "integer"}))


async def test_an_event_reaches_the_run_and_is_checked_before(store: StateStore) -> None:
    runner: Flujo[Any, Any, Any] = Flujo(waits_for_event(), store=store, recovery=False)
    client = TaskClient(store, runners=[runner], by="ada")
    result = await runner.run_result_async({"order": "A7"}, run_id="a7")
    [task] = await client.list_tasks("waiting")
    assert [wait.event for wait in task.waits] == ["paid"]
    with pytest.raises(EventRefused) as unknown:
        await client.send_event("payd", 1, run_id="a7")
    assert "did you mean `paid`?" in (unknown.value.hint or "")
    with pytest.raises(InputRejected):
        await client.send_event("paid", "much", key="A7")
    delivery = await client.send_event("paid", 12, key="A7", event_id="w1")
    assert [each.run_id for each in delivery.taken] == [result.run_id]
    with pytest.raises(EventConflict):
        await client.send_event("paid", 13, key="A7", event_id="w1")
    waiting = asyncio.create_task(client.wait("a7", timeout=30))
    assert (await runner.resume_async("a7")).output == 12
    assert (await waiting).output == 12
    with pytest.raises(EventRefused, match="completed"):
        await client.send_event("paid", 1, run_id="a7")
    assert [(act.actor.by, act.object) for act in (await client.get_task("a7")).acts] == [("ada", "paid")]


async def test_a_payload_that_a_later_step_cannot_take_is_refused_early(store: StateStore) -> None:
    tree = pipeline(HumanInTheLoopStep("ask", message=Text("ok?")), *waits_for_event().steps)
    runner: Flujo[Any, Any, Any] = Flujo(tree, store=store, recovery=False)
    await runner.run_result_async({"order": "A7"}, run_id="a7")
    client = TaskClient(store, runners=[runner])
    with pytest.raises(InputRejected, match="`paid` of run a7 expects"):
        await client.send_event("paid", "much", run_id="a7")
    assert (await client.send_event("paid", 5, run_id="a7")).taken == ()
    [kept] = (await client.get_task("a7")).events
    assert (kept.name, kept.payload) == ("paid", b"5")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({}, "neither a run nor a key"),
        ({"run_id": "a", "key": "k"}, "a run and a key"),
        ({"run_id": "a", "all": True}, "has no key"),
        ({"key": ""}, "`key`"),
        ({"key": 5}, "`key`"),
        ({"key": "k", "event_id": "a b"}, "the id of an event"),
        ({"key": "k", "event": "a b"}, "the name of an event"),
        ({"key": "k", "event": 5}, "`event`"),
    ],
)
async def test_an_event_with_wrong_arguments_is_an_error_of_flujo(
    store: StateStore, words: dict[str, Any], named: str
) -> None:
    with pytest.raises(SettingsError, match=named):
        await TaskClient(store).send_event(**{"event": "paid", **words})


async def test_waiting_for_a_run_that_waits_ends_at_its_time_limit(store: StateStore) -> None:
    runner: Flujo[Any, Any, Any] = Flujo(waits_for_event(), store=store, recovery=False)
    await runner.run_result_async({"order": "A7"}, run_id="a7")
    with pytest.raises(WaitTimedOut, match="still waiting"):
        await TaskClient(store).wait("a7", timeout=0.1)


class Orphans:
    """A store whose runs have lost their process."""

    def __init__(self, store: StateStore) -> None:
        self._store = store

    async def runs(self, query: RunQuery) -> list[RunRecord]:
        found = await self._store.runs(query)
        return [replace(each, status=RunStatus.RUNNING, owner=None, usage=NOTHING) for each in found]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def test_the_list_has_the_usage_of_a_run_whose_process_was_killed(store: StateStore) -> None:
    used = Usage(input_tokens=30, output_tokens=12, requests=1)
    agent = ScriptedAgent(["hello"], usage=used)
    await start(pipeline(Step("talk", agent=agent), HumanInTheLoopStep("ask", message="?")), store)
    client: Any = Orphans(store)
    [task] = await TaskClient(client).list_tasks()
    assert (task.display_status, task.usage) == ("orphaned", used)
