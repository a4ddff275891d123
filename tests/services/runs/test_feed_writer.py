"""The feed of a followed run: what its owner says, and that it changes nothing of the run."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from flujo import TaskClient
from flujo.domain.agents import Reply
from flujo.domain.feed import FeedKind
from flujo.domain.journal import RunId
from flujo.domain.retry import RetryPolicy
from flujo.domain.steps import CallableRef, HumanInTheLoopStep, Step, StepConfig, Text
from flujo.exceptions import StateBackendUnavailable
from flujo.governance.sink import GATE
from flujo.services.inspection.following import LogKind, LogLine
from flujo.services.runs.feed_writer import MOST_LINES
from flujo.state import memory_feeds
from flujo.state.memory_store import MemoryStateStore
from flujo.testing import ScriptedAgent
from support import call, pipeline, start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from flujo.domain.agents import Ask
    from flujo.domain.feed import FeedLine
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore

RUN = RunId("run")
CODE = logging.getLogger("mine")


class Seen:
    """The lines that a follower has seen, and events for those that code of the run waits for."""

    def __init__(self) -> None:
        self.lines: list[LogLine] = []
        self._has: defaultdict[tuple[str, str], asyncio.Event] = defaultdict(asyncio.Event)

    async def follow(self, store: StateStore) -> None:
        async for line in TaskClient(store).follow(RUN):
            self.lines.append(line)
            self._has[line.kind, line.path].set()

    async def has(self, kind: LogKind, path: str = "") -> None:
        await self._has[kind, path].wait()

    def of(self, *kinds: LogKind) -> list[tuple[str, str, Any]]:
        return [(str(each.kind), each.path, each.text) for each in self.lines if each.kind in kinds]


@asynccontextmanager
async def followed(tree: Pipeline, store: StateStore, seen: Seen) -> AsyncIterator[None]:
    """Execute a run in a task of its own and follow it, until it has ended."""
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        running = group.create_task(start(tree, store))
        while not await is_there(store):  # noqa: ASYNC110 - the store has no event for an accepted run
            await asyncio.sleep(0.01)
        group.create_task(seen.follow(store))
        yield
        result = await running
        assert result.success, result.error


async def is_there(store: StateStore) -> bool:
    try:
        await store.run(RUN)
    except Exception:  # noqa: BLE001 - it is accepted a moment later
        return False
    return True


def coded(name: str, work: Callable[[Any], Any], **more: Any) -> Step:
    return call(name, CallableRef(f"t:{name}", work), **more)


async def test_a_follower_sees_starts_log_lines_and_text_before_their_entries(store: StateStore) -> None:
    seen = Seen()

    async def wait(_: Any) -> None:
        await seen.has(LogKind.STARTED, "wait")  # it began before the run was followed
        CODE.warning("it is %s", "there")
        await seen.has(LogKind.LOGGED, "wait")

    async def write(ask: Ask) -> Reply:
        assert ask.on_text is not None
        for piece in ("Hel", "lo "):
            await ask.on_text(piece)
        await seen.has(LogKind.TEXT, "draft")
        return Reply(output="Hello world")

    async with followed(
        pipeline(coded("wait", wait), Step("draft", agent=ScriptedAgent(write))), store, seen
    ):
        await seen.has(LogKind.TEXT, "draft")
        assert not seen.of(LogKind.FAILED)
        assert ("completed", "draft", "") not in seen.of(LogKind.COMPLETED)
    kinds = (LogKind.STARTED, LogKind.LOGGED, LogKind.TEXT, LogKind.COMPLETED)
    assert seen.of(*kinds) == [
        ("started", "wait", ""),
        ("logged", "wait", "it is there"),
        ("completed", "wait", ""),
        ("started", "draft", ""),
        ("text", "draft", "Hello "),
        ("completed", "draft", ""),
    ]
    provisional = [each for each in seen.lines if each.provisional]
    assert {each.kind for each in provisional} == {LogKind.STARTED, LogKind.LOGGED, LogKind.TEXT}
    assert [each.offset for each in provisional] == [0, 0, 1, 1]
    numbers = [each.number for each in provisional]
    assert numbers == sorted(set(numbers))
    assert provisional[1].value == {"level": "warning", "logger": "mine"}
    assert {each.number for each in seen.lines if not each.provisional} == {0}
    assert seen.lines[-1].text == "completed"
    # A reader that continues sees nothing of it again.
    again = TaskClient(store).follow(RUN, after=1, after_number=numbers[1])
    assert [(each.offset, str(each.kind), each.provisional) async for each in again] == [
        (2, "completed", False),
        (2, "status", False),
    ]


class Watched(MemoryStateStore):
    """A store that counts writes, and whose feed may be broken."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.tries = 0
        self.broken: Callable[[int], Awaitable[None]] | None = None

    def write(self, write: Any) -> Awaitable[bool]:
        self.writes += 1
        return super().write(write)

    async def add_to_feed(self, run_id: RunId, fence: int, lines: Sequence[FeedLine]) -> None:
        self.tries += 1
        if self.broken is not None:
            await self.broken(self.tries)
        await super().add_to_feed(run_id, fence, lines)

    async def kinds(self) -> list[str]:
        """Return the kinds of the lines that are not about the first step, which begins before it is followed."""
        return [str(line.kind) for line in await self.feed(RUN) if line.path != "begin"]

    async def logged(self) -> list[str]:
        return [line.text for line in await self.feed(RUN) if line.kind is FeedKind.LOGGED]


async def until(condition: Callable[[], Any]) -> None:
    """Return when a condition holds."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - the conditions have no events
            await asyncio.sleep(0.01)


async def written(store: MemoryStateStore, count: int = 1) -> None:
    """Return when the feed has so many lines."""
    await until(lambda: len(store.database.feeds.after(RUN, 0)) >= count)


def program(store: MemoryStateStore, *, is_followed: bool, work: Callable[[], Awaitable[None]]) -> Pipeline:
    """Return a pipeline that has a retry, text of a model, a question at its end, and code of its own."""
    failures = [OSError("no network")]

    async def begin(_: Any) -> None:
        if is_followed:
            await store.watch(RUN)
            await asyncio.sleep(0)
        await work()

    def flaky(_: Any) -> str:
        if failures:
            raise failures.pop()
        return "done"

    patient = StepConfig(max_retries=1, retry=RetryPolicy(backoff="none"))
    return pipeline(
        coded("begin", begin),
        coded("flaky", flaky, config=patient),
        Step("draft", agent=ScriptedAgent(["Hello"])),
        HumanInTheLoopStep("ask", message=Text("Go on?")),
    )


async def nothing() -> None:
    pass


async def test_a_followed_run_commits_what_it_would_commit_alone() -> None:
    found = []
    for is_followed in (False, True):
        store = Watched()
        result = await start(program(store, is_followed=is_followed, work=nothing), store)
        assert str(result.status) == "paused"
        entries = await store.entries(RUN)
        found.append(
            (
                store.writes,
                [
                    (each.seq, each.path, each.kind, each.attempt, each.output, each.detail)
                    for each in entries
                ],
            )
        )
        if is_followed:
            await written(store, 5)
            assert await store.kinds() == ["started", "retried", "started", "started", "text"]
    assert found[0] == found[1]


async def refuse(_: int) -> None:
    raise StateBackendUnavailable("the feed is away")


async def hang(_: int) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("broken", [refuse, hang])
async def test_a_feed_that_cannot_be_written_does_not_delay_or_fail_the_run(
    broken: Callable[[int], Awaitable[None]],
) -> None:
    store = Watched()
    store.broken = broken

    async def until_tried() -> None:
        CODE.warning("hello")
        await until(lambda: store.tries)

    async with asyncio.timeout(30):
        result = await start(program(store, is_followed=True, work=until_tried), store)
    assert str(result.status) == "paused"
    assert await store.kinds() == []


async def test_lines_that_could_not_be_written_are_counted() -> None:
    store = Watched()

    async def once(tries: int) -> None:
        if tries == 1:
            raise StateBackendUnavailable("the feed is away")

    async def work() -> None:
        for text in ("one", "two"):
            CODE.warning(text)
        await until(lambda: store.tries)
        for number in range(MOST_LINES + 3):
            CODE.warning("%d", number)
        await written(store)

    store.broken = once
    await start(program(store, is_followed=True, work=work), store)
    lines = await store.feed(RUN)
    the_start = 1
    assert (lines[0].kind, lines[0].value) == (FeedKind.DROPPED, the_start + 2 + 3)
    assert [each.text for each in lines[1 : MOST_LINES + 1]] == [
        str(number) for number in range(3, MOST_LINES + 3)
    ]


async def test_secrets_are_masked_also_in_pieces() -> None:
    store, secret = Watched(), "a-very-secret-word"
    GATE.know([secret], "TEST_SECRET")

    async def work() -> None:
        CODE.warning("it is %s", secret)
        CODE.error("broken", exc_info=ValueError(secret))

    async def write(ask: Ask) -> Reply:
        assert ask.on_text is not None
        for piece in (secret[:5], secret[5:]):
            await ask.on_text(piece)
        return Reply(output="x")

    begin, *_ = program(store, is_followed=True, work=work).steps
    await start(pipeline(begin, Step("draft", agent=ScriptedAgent(write))), store)
    await written(store, 4)
    lines = await store.feed(RUN)
    assert "ValueError" in (await store.logged())[1]
    assert secret not in "".join(line.text for line in lines)
    assert FeedKind.TEXT in {line.kind for line in lines}


async def test_the_logging_of_the_program_is_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    store, root = Watched(), logging.getLogger()
    before = list(root.handlers)
    root.handlers = []

    async def work() -> None:
        CODE.warning("shown by the last resort")
        CODE.info("not enabled")
        CODE.warning("%d", "no number")

    try:
        await start(program(store, is_followed=True, work=work), store)
        assert root.handlers == []
    finally:
        root.handlers = before
    shown = capsys.readouterr().err
    assert shown.count("shown by the last resort") == 1
    await written(store)
    assert await store.logged() == ["shown by the last resort"]


async def test_only_the_lines_of_the_run_are_in_its_feed() -> None:
    store = Watched()

    async def work() -> None:
        await asyncio.to_thread(CODE.warning, "in a thread")

    begin, *_ = program(store, is_followed=True, work=work).steps
    async with asyncio.TaskGroup() as group:
        group.create_task(start(pipeline(begin), store))
        CODE.warning("outside")
        group.create_task(
            start(pipeline(coded("other", lambda _: CODE.warning("other"))), store, run_id="other")
        )
    await written(store)
    assert await store.logged() == ["in a thread"]
    assert await store.feed(RunId("other")) == []


async def test_the_owner_stops_when_the_last_follower_has_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_feeds, "WATCH_S", 0.05)
    store, before = Watched(), list(logging.getLogger().handlers)

    async def work() -> None:
        CODE.warning("followed")
        await until(lambda: logging.getLogger().handlers == before)
        CODE.warning("alone")

    async with asyncio.timeout(30):
        await start(program(store, is_followed=True, work=work), store)
    await written(store)
    assert await store.logged() == ["followed"]
