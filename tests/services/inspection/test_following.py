"""The log of a run: the entries of its journal in order, also those that are added meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from flujo import TaskClient
from flujo.domain.feed import FeedKind, FeedLine
from flujo.domain.journal import Entry, EntryStatus
from flujo.domain.paths import StepPath
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import RunStatus
from flujo.domain.steps import SleepStep
from flujo.domain.usage import Usage
from flujo.exceptions import RunNotFound, SettingsError, StateBackendUnavailable
from flujo.services.inspection.following import FollowedSource, Follower, LogKind, LogLine, follow
from flujo.state.memory_store import MemoryStateStore
from flujo.state.store import SqlStateStore
from flujo.testing import ScriptedAgent
from flujo.testing.store_suite import RUN, entry, new_run
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
    from flujo.domain.journal import RunId
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore
    from flujo.domain.run import Pause, RunRecord
    from flujo.domain.values import CallableRef
    from flujo.exceptions import StateError

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
        self.watch, self.feed = source.watch, source.feed

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


class Recorded:
    """A source with a record, entries and a feed that a test changes between two looks."""

    def __init__(self, record: RunRecord) -> None:
        self.record, self.journal, self.lines = record, list[Entry](), list[FeedLine]()
        self.refusal: StateError | None = None

    async def run(self, _: RunId) -> RunRecord:
        return self.record

    async def entries(self, _: RunId, *, after: int = 0) -> list[Entry]:
        return [entry for entry in self.journal if entry.seq > after]

    async def pauses(self, _: RunId) -> list[Pause]:
        return []

    async def watch(self, _: RunId) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def feed(self, _: RunId, *, after: int = 0) -> list[FeedLine]:
        if self.refusal is not None:
            raise self.refusal
        return [line for line in self.lines if line.number > after]

    def says(self, *lines: tuple[FeedKind, int, str, int]) -> None:
        """Add lines: the kind, the entry before it, the step and its attempt."""
        self.lines += [
            FeedLine(at=0.0, kind=kind, after=after, path=StepPath(path), attempt=attempt, number=number)
            for number, (kind, after, path, attempt) in enumerate(lines, len(self.lines) + 1)
        ]


@pytest.fixture
async def recorded() -> Recorded:
    """A run that is executed."""
    return Recorded(await MemoryStateStore().accept(new_run(), {}))


def brief(lines: list[LogLine]) -> list[str]:
    """Return the offset, kind and step of each line; provisional ones in parentheses."""
    texts = [f"{each.offset} {each.kind} {each.path}".rstrip() for each in lines]
    return [f"({text})" if each.provisional else text for text, each in zip(texts, lines, strict=True)]


async def test_each_provisional_line_stands_behind_the_entry_before_it(recorded: Recorded) -> None:
    recorded.journal += [
        entry(1, "one"),
        replace(entry(2, "two"), status=EntryStatus.FAILED, attempt=1),
        replace(entry(3, "two"), attempt=2),
    ]
    recorded.says(
        (FeedKind.LOGGED, 0, "one", 1),
        (FeedKind.STARTED, 1, "two", 1),  # has ended
        (FeedKind.LOGGED, 1, "two", 1),
        (FeedKind.RETRIED, 2, "two", 1),
        (FeedKind.TEXT, 2, "two", 2),  # has ended
        (FeedKind.STARTED, 3, "three", 1),
        (FeedKind.LOGGED, 9, "three", 1),  # the entry before it is not committed yet
    )
    follower = Follower(recorded, RUN)
    assert brief(await follower.look()) == [
        "0 accepted",
        "(0 logged one)",
        "1 completed one",
        "(1 logged two)",
        "2 failed two",
        "(2 retried two)",
        "3 completed two",
        "(3 started three)",
        "3 status",
    ]
    assert brief(await follower.look()) == ["(3 logged three)"]
    assert await follower.look() == []
    recorded.journal += [entry(4, "three")]
    recorded.says((FeedKind.TEXT, 3, "three", 1))
    assert brief(await follower.look()) == ["4 completed three"]


async def test_an_offset_and_a_number_continue_where_a_follower_stopped(recorded: Recorded) -> None:
    recorded.journal += [entry(1, "one"), entry(2, "two")]
    recorded.says(*((FeedKind.LOGGED, after, "one", 1) for after in (0, 1, 2)))
    assert brief(await Follower(recorded, RUN, 1).look()) == [
        "(1 logged one)",
        "2 completed two",
        "(2 logged one)",
        "2 status",
    ]
    assert brief(await Follower(recorded, RUN, 2, 3).look()) == ["2 status"]


async def test_a_run_that_has_lost_its_owner_is_a_line_and_its_new_owner_too(recorded: Recorded) -> None:
    follower = Follower(recorded, RUN)
    before = recorded.record
    assert brief(await follower.look()) == ["0 accepted", "0 status"]
    recorded.record = replace(before, lease_left_s=-1.0)
    assert brief(await follower.look()) == ["(0 lost)"]
    assert await follower.look() == []
    recorded.record = before
    [line] = await follower.look()
    assert (line.kind, line.text) == (LogKind.STATUS, "running")


async def test_the_journal_of_a_run_without_an_owner_is_read_once(recorded: Recorded) -> None:
    recorded.journal += [entry(1, "one")]
    executed = recorded.record
    released = replace(executed, owner=None, status=RunStatus.PAUSED)
    recorded.record = released
    follower = Follower(recorded, RUN)
    assert brief(await follower.look()) == ["0 accepted", "1 completed one", "1 status"]
    recorded.journal += [entry(2, "two")]  # no store takes it before a claim
    assert await follower.look() == []
    recorded.says((FeedKind.LOGGED, 1, "one", 1))  # by the owner that has left it, a moment later
    assert brief(await follower.look()) == ["(1 logged one)"]
    recorded.record = replace(released, fence=executed.fence + 1)  # it was claimed and released meanwhile
    assert brief(await follower.look()) == ["2 completed two"]


@pytest.mark.parametrize("is_retryable", [True, False])
async def test_where_nothing_may_be_written_the_log_is_that_of_the_journal(
    recorded: Recorded, caplog: pytest.LogCaptureFixture, *, is_retryable: bool
) -> None:
    recorded.journal += [entry(1, "one")]
    recorded.refusal = StateBackendUnavailable("it is read-only", retryable=is_retryable)
    async with asyncio.timeout(30), aclosing(follow(recorded, RUN)) as lines:
        seen = [await anext(lines) for _ in range(3)]
        recorded.record = replace(recorded.record, status=RunStatus.COMPLETED)
        seen += [line async for line in lines]
    assert brief(seen) == ["0 accepted", "1 completed one", "1 status", "1 status"]
    assert [each.message for each in caplog.records] == [
        "run run-1 is followed by its journal alone, without starts, log lines and text: it is read-only"
    ]


async def test_a_replica_is_followed_by_its_journal(
    postgres_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqlStateStore(postgres_uri)
    await start(asking(World()), store)
    replica = SqlStateStore(f"{postgres_uri}&options=-c%20default_transaction_read_only%3Don")
    async with asyncio.timeout(30), aclosing(TaskClient(replica).follow("run")) as lines:
        seen = [await anext(lines) for _ in range(4)]
        while not caplog.records:  # noqa: ASYNC110 - the log is the event
            await asyncio.sleep(0.01)
    assert brief(seen) == ["0 accepted", "1 completed first", "1 asked ask", "1 status"]
    assert "followed by its journal alone" in caplog.text
    for opened in (replica, store):
        await opened.aclose()


@pytest.mark.parametrize("wrong", [-1, "3", True, 1.5])
async def test_a_wrong_offset_is_refused(store: StateStore, wrong: Any) -> None:
    await start(asking(World()), store)
    client = TaskClient(store)
    with pytest.raises(SettingsError, match="`after` is"):
        await client.get_log("run", after=wrong)
    with pytest.raises(SettingsError, match="`after` is"):
        await anext(client.follow("run", after=wrong))
    with pytest.raises(SettingsError, match="`after_number` is"):
        await anext(client.follow("run", after_number=wrong))


async def test_a_run_that_does_not_exist_is_refused(store: StateStore) -> None:
    client = TaskClient(store)
    with pytest.raises(RunNotFound):
        await client.get_log("nothing")
    with pytest.raises(RunNotFound):
        await anext(client.follow("nothing"))
