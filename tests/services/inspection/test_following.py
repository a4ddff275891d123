"""The log of a run: the entries of its journal in order, also those that are added meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flujo import TaskClient
from flujo.domain.retry import RetryPolicy
from flujo.domain.steps import SleepStep
from flujo.domain.usage import Usage
from flujo.exceptions import RunNotFound, SettingsError, StateBackendUnavailable
from flujo.services.inspection.following import FollowedSource, LogKind, LogLine, follow
from flujo.testing import ScriptedAgent
from support import (
    ConditionalStep,
    Expr,
    HumanInTheLoopStep,
    Step,
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
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore
    from flujo.domain.values import CallableRef

NEVER = RetryPolicy(initial_s=0)


def told(lines: list[LogLine]) -> list[tuple[int, str, str, Any]]:
    return [(each.offset, str(each.kind), each.path, each.text or each.value) for each in lines]


def asking(world: World) -> Pipeline:
    return pipeline(
        call("first", world.add("first")),
        HumanInTheLoopStep("ask", message=Text("Go on?")),
        call("last", world.add("last")),
    )


def flaky(world: World, failures: int) -> CallableRef:
    def work(_: Any) -> str:
        if world.calls.count("work") <= failures:
            raise OSError("no network")
        return "done"

    return world.add("work", work)


async def test_a_log_has_each_attempt_decision_question_and_answer_in_order(store: StateStore) -> None:
    world = World()
    tree = pipeline(
        call("work", flaky(world, 1), config=StepConfig(max_retries=1, retry=NEVER)),
        ConditionalStep("choose", condition=Expr("true"), then=(call("yes", world.add("yes")),)),
        HumanInTheLoopStep("ask", message=Text("Go on?")),
        call("last", world.add("last")),
    )
    await start(tree, store)
    before = await TaskClient(store).get_log("run")
    asked = [
        (0, "accepted", "", "test"),
        (1, "failed", "work", None),
        (2, "completed", "work", None),
        (3, "decided", "choose", True),
        (4, "completed", "choose:then/yes", None),
        (5, "completed", "choose", None),
        (5, "asked", "ask", "Go on?"),
    ]
    assert told(before) == [*asked, (5, "status", "", "paused")]
    assert [each.attempt for each in before[1:3]] == [1, 2]
    assert before[1].error is not None
    assert before[1].error.message == "OSError: no network"

    await answer(store, "ask", "yes")
    await resume(tree, store)
    after = await TaskClient(store).get_log("run")
    assert told(after) == [
        *asked,
        (6, "answered", "ask", "yes"),
        (7, "completed", "last", None),
        (7, "status", "", "completed"),
    ]


async def test_an_offset_continues_where_a_reader_stopped(store: StateStore) -> None:
    world = World()
    tree = asking(world)
    await start(tree, store)
    client = TaskClient(store)
    assert told(await client.get_log("run", after=1)) == [
        (1, "asked", "ask", "Go on?"),  # still open
        (1, "status", "", "paused"),
    ]
    await answer(store, "ask", "yes")
    await resume(tree, store)
    whole = await client.get_log("run")
    assert await client.get_log("run", after=1) == whole[2:]
    assert told(await client.get_log("run", after=2)) == told(whole[-2:])
    assert told(await client.get_log("run", after=99)) == [(99, "status", "", "completed")]


async def test_a_wait_and_the_end_of_a_failed_run_are_lines(store: StateStore) -> None:
    world = World()
    tree = pipeline(SleepStep("nap", for_s=0.01), call("work", flaky(world, 9)))
    await start(tree, store)
    lines = await TaskClient(store).get_log("run")
    assert [(each.kind, each.path) for each in lines[1:]] == [
        (LogKind.WAITING, "nap"),
        (LogKind.COMPLETED, "nap"),
        (LogKind.FAILED, "work"),
        (LogKind.STATUS, ""),
    ]
    assert lines[-1].text == "failed"
    assert lines[-1].error is not None
    assert lines[-1].error.code == "FLJ401"


async def test_a_request_to_an_agent_has_its_usage(store: StateStore) -> None:
    await start(pipeline(Step("draft", agent=ScriptedAgent(["Hello"], usage=Usage(requests=1)))), store)
    lines = await TaskClient(store).get_log("run")
    assert [(each.path, each.usage.requests) for each in lines if each.kind is LogKind.COMPLETED] == [
        ("draft", 1)
    ]


async def test_a_follower_sees_each_line_once_until_the_run_ends(store: StateStore) -> None:
    world, lines = World(), list[LogLine]()
    tree = asking(world)
    await start(tree, store)
    has_asked = asyncio.Event()

    async def watch() -> None:
        async for line in TaskClient(store).follow("run"):
            lines.append(line)
            if line.text == "paused":
                has_asked.set()

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(watch())
        await has_asked.wait()
        await answer(store, "ask", "yes")
        await resume(tree, store)
    moves = [each for each in lines if each.kind is LogKind.STATUS]
    assert [each.text for each in moves][:: len(moves) - 1] == ["paused", "completed"]
    assert told([each for each in lines if each.kind is not LogKind.STATUS]) == told(
        [each for each in await TaskClient(store).get_log("run") if each.kind is not LogKind.STATUS]
    )


async def test_a_follower_that_stops_leaves_the_run_alone(store: StateStore) -> None:
    world = World()
    await start(asking(world), store)
    before = await store.find("run")
    watching = TaskClient(store).follow("run")
    assert (await anext(watching)).kind is LogKind.ACCEPTED
    await watching.aclose()
    after = await store.find("run")
    assert (after.status, after.fence, after.updated_at) == (before.status, before.fence, before.updated_at)


class Absent:
    """A source that does not answer at some looks."""

    def __init__(self, source: StateStore, looks: list[int]) -> None:
        self._source, self._looks, self._count = source, looks, 0
        self.pauses, self.entries = source.pauses, source.entries

    async def run(self, run_id: Any) -> Any:
        self._count += 1
        if self._count in self._looks:
            raise StateBackendUnavailable("the database is away")
        return await self._source.run(run_id)


async def test_a_follower_continues_when_the_database_is_back(
    store: StateStore, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    tree = asking(world)
    await start(tree, store)
    record = await store.find("run")
    source: FollowedSource = Absent(store, [2])
    lines = follow(source, record.run_id)
    async with asyncio.timeout(30):
        seen = [await anext(lines) for _ in range(4)]
        await answer(store, "ask", "yes")
        await resume(tree, store)
        seen += [line async for line in lines]
    assert seen[-1].text == "completed"
    assert "the log of run run stands still, trying again: the database is away" in caplog.text


async def test_a_database_that_is_away_at_the_beginning_is_an_error(store: StateStore) -> None:
    await start(asking(World()), store)
    record = await store.find("run")
    with pytest.raises(StateBackendUnavailable):
        await anext(follow(Absent(store, [1]), record.run_id))


@pytest.mark.parametrize("wrong", [-1, "3", True, 1.5])
async def test_a_wrong_offset_is_refused(store: StateStore, wrong: Any) -> None:
    await start(asking(World()), store)
    client = TaskClient(store)
    with pytest.raises(SettingsError, match="`after` is"):
        await client.get_log("run", after=wrong)
    with pytest.raises(SettingsError, match="`after` is"):
        await anext(client.follow("run", after=wrong))


async def test_a_run_that_does_not_exist_is_refused(store: StateStore) -> None:
    client = TaskClient(store)
    with pytest.raises(RunNotFound):
        await client.get_log("nothing")
    with pytest.raises(RunNotFound):
        await anext(client.follow("nothing"))
