"""Streams: what a reader sees, what a slow one does to the run, and what is left when it stops reading."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import TYPE_CHECKING, Any

import pytest

from agents.provider_server import provider_server
from flujo.domain.agents import AgentSpec, Ask, Reply
from flujo.domain.events import Chunk, StepEnded
from flujo.domain.models import PipelineResult
from flujo.domain.outcomes import Paused, Success
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef
from flujo.exceptions import InputRejected, SettingsError, StateBackendUnavailable
from flujo.services.inspection.task_client import TaskClient
from flujo.services.runs.runner import Flujo
from flujo.state.memory_store import MemoryStateStore
from support import HumanInTheLoopStep, Step, StepConfig, StoppingStore, Text, World, call, pipeline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore

Runner = Flujo[Any, Any, Any]


class Writer:
    """An agent that writes its answer in pieces, and counts how many were consumed."""

    wants_context = False

    def __init__(self, *pieces: str, fails: int = 0) -> None:
        self.pieces = pieces
        self.fails = fails
        self.taken = 0

    async def ask(self, ask: Ask) -> Reply:
        for piece in self.pieces:
            if ask.on_text is not None:
                await ask.on_text(piece)
            self.taken += 1
        if self.fails:
            self.fails -= 1
            raise OSError("the line went dead")
        return Reply(output="".join(self.pieces))


def writes(name: str, writer: Any, **more: Any) -> Step:
    """Return a step whose agent is `writer`."""
    return call(name, CallableRef(f"x:{name}", writer), **more)


def shown(items: list[Any]) -> list[Any]:
    """Return what a reader would print of each item."""
    found: list[Any] = []
    for item in items:
        match item:
            case Chunk(path=path, attempt=attempt, text=text):
                found.append((path, attempt, text))
            case StepEnded(path=path, outcome=outcome):
                found.append((path, type(outcome).__name__))
            case PipelineResult():
                found.append(item.status)
            case _:
                pytest.fail(f"a stream yields no {type(item).__name__}")
    return found


async def read(runner: Runner, value: Any = None, **options: Any) -> list[Any]:
    async with runner.run_stream(value, **options) as stream:
        return [item async for item in stream]


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110 - the condition has no event to wait for
        await asyncio.sleep(0)


async def quiet() -> None:
    """Let all other tasks run until they wait."""
    for _ in range(200):
        await asyncio.sleep(0)


async def test_text_then_steps_then_the_result(store: StateStore) -> None:
    world = World()
    tree = pipeline(writes("draft", Writer("Dear ", "Ada")), call("send", world.add("send")))
    async with Runner(tree, store=store) as runner:
        items = await read(runner)
    assert shown(items) == [
        ("draft", 1, "Dear "),
        ("draft", 1, "Ada"),
        ("draft", "Success"),
        ("send", "Success"),
        RunStatus.COMPLETED,
    ]
    assert items[2].outcome == Success("Dear Ada")
    assert items[-1].output == "Dear Ada"


async def test_a_step_is_reported_after_it_is_recorded(store: StateStore) -> None:
    tree = pipeline(call("a", World().add("a")), call("b", World().add("b")))
    async with Runner(tree, store=store) as runner, runner.run_stream(1) as stream:
        async for item in stream:
            if isinstance(item, StepEnded):
                assert stream.run_id is not None
                recorded = await store.entries(stream.run_id)
                assert item.path in [entry.path for entry in recorded]


async def test_a_pause_is_reported_when_it_can_be_answered(store: StateStore) -> None:
    tree = pipeline(HumanInTheLoopStep(name="ask", message=Text("Go on?")))
    async with Runner(tree, store=store) as runner:
        client = TaskClient(store, runners=[runner])
        async with runner.run_stream(1) as stream:
            async for item in stream:
                if isinstance(item, StepEnded) and isinstance(item.outcome, Paused):
                    result = await client.resume_task(str(stream.run_id), "yes")
                    assert result.output == "yes"
                    break
            else:
                pytest.fail("nobody was asked")


async def test_the_pieces_of_an_attempt_that_failed_carry_its_number() -> None:
    config = StepConfig(max_retries=1, retry=RetryPolicy(backoff="none"))
    tree = pipeline(writes("draft", Writer("a", "b", fails=1), config=config))
    async with Runner(tree, persist_state=False) as runner:
        items = await read(runner)
    assert shown(items)[:5] == [
        ("draft", 1, "a"),
        ("draft", 1, "b"),
        ("draft", 2, "a"),
        ("draft", 2, "b"),
        ("draft", "Success"),
    ]


async def test_an_agent_does_not_stream_for_a_run_without_a_watcher() -> None:
    asked: list[Any] = []

    class Curious(Writer):
        async def ask(self, ask: Ask) -> Reply:
            asked.append(ask.on_text)
            return Reply(output="")

    async with Runner(pipeline(writes("a", Curious())), persist_state=False) as runner:
        await runner.run_result_async(None)
        await read(runner)
    assert asked[0] is None
    assert asked[1] is not None


async def test_a_model_of_a_provider_is_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: StateStore
) -> None:
    monkeypatch.chdir(tmp_path)
    with provider_server() as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{provider.url}/v1")
        provider.will_answer("The quick brown fox.")
        fox = Step(name="fox", agent=AgentSpec(name="fox", model="openai-chat:gpt-4o-mini"))
        async with Runner(pipeline(fox), store=store) as runner:
            items = await read(runner, "What jumps?")
    assert [item.text for item in items if isinstance(item, Chunk)] == ["The q", "uick ", "brown", " fox."]
    assert items[-1].output == "The quick brown fox."


class TestSlowReaders:
    async def test_a_slow_reader_slows_the_agent(self) -> None:
        writer = Writer(*"abcdefgh")
        tree = pipeline(writes("a", writer))
        async with Runner(tree, persist_state=False) as runner, runner.run_stream(None, buffer=2) as stream:
            await anext(stream)
            await quiet()
            assert writer.taken == 3  # one was read, and two wait
            await anext(stream)
            await quiet()
            assert writer.taken == 4

    async def test_a_step_is_not_held_to_its_limit_while_its_reader_is_slow(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        loop, ahead = asyncio.get_running_loop(), 0.0
        real = loop.time
        monkeypatch.setattr(loop, "time", lambda: real() + ahead)
        tree = pipeline(writes("a", Writer(*"abcd"), config=StepConfig(timeout_s=60)))
        async with Runner(tree, persist_state=False) as runner, runner.run_stream(None, buffer=1) as stream:
            first = await anext(stream)
            await quiet()
            ahead = 3600.0  # the reader comes back after an hour
            await quiet()
            rest = [item async for item in stream]
        assert isinstance(first, Chunk)
        assert shown(rest)[-2:] == [("a", "Success"), RunStatus.COMPLETED]

    async def test_a_buffer_holds_at_least_one_item(self) -> None:
        async with Runner(pipeline(), persist_state=False) as runner:
            with pytest.raises(SettingsError, match="`buffer` is 0"):
                runner.run_stream(None, buffer=0)


def slow(world: World, gate: asyncio.Event) -> Pipeline:
    """Return a pipeline whose second step waits for `gate`."""

    async def wait(data: Any) -> Any:
        world.calls.append("wait")
        await gate.wait()
        return data

    return pipeline(
        call("first", world.add("first")),
        call("wait", CallableRef("x:wait", wait)),
        call("last", world.add("last")),
    )


class TestReadersWhoStop:
    async def test_a_closed_stream_interrupts_the_run_which_can_be_resumed(self, store: StateStore) -> None:
        world, gate = World(), asyncio.Event()
        async with Runner(slow(world, gate), store=store) as runner:
            async with runner.run_stream("x", run_id="run") as stream:
                async for item in stream:
                    assert isinstance(item, StepEnded)
                    break
            assert (await store.run(stream.run_id)).status is RunStatus.INTERRUPTED  # type: ignore[arg-type]
            gate.set()
            result = await runner.resume_async("run")
        assert result.output == "x"
        assert world.calls.count("first") == 1

    async def test_a_closed_stream_ends_without_a_result(self) -> None:
        async with Runner(slow(World(), asyncio.Event()), persist_state=False) as runner:
            stream = runner.run_stream("x")
            await anext(stream)
            await asyncio.gather(stream.aclose(), stream.aclose())
            assert [item async for item in stream] == []

    async def test_a_detached_run_continues_and_the_runner_waits_for_it(self, store: StateStore) -> None:
        world, gate = World(), asyncio.Event()
        runner = Runner(slow(world, gate), store=store)
        async with runner.run_stream("x", run_id="run", detach=True, buffer=1) as stream:
            await anext(stream)
        gate.set()
        await runner.aclose()
        assert world.calls == ["first", "wait", "last"]
        assert (await store.find("run")).status is RunStatus.COMPLETED

    async def test_a_detached_run_does_not_wait_for_unread_items(self, store: StateStore) -> None:
        writer = Writer(*"abcdefgh")
        runner = Runner(pipeline(writes("a", writer)), store=store)
        async with runner.run_stream(None, run_id="run", detach=True, buffer=1) as stream:
            await anext(stream)
        await runner.aclose()
        assert writer.taken == 8
        assert (await store.find("run")).status is RunStatus.COMPLETED

    @pytest.mark.usefixtures("own_objects")
    async def test_a_stream_that_is_dropped_stops_its_run(self) -> None:
        store = MemoryStateStore()
        runner = Runner(slow(World(), asyncio.Event()), store=store)
        async for _ in runner.run_stream("x", run_id="run"):
            break
        gc.collect()
        await until(lambda: next(iter(store.database.runs.values())).record.owner is None)
        await runner.aclose()
        assert (await store.find("run")).status is RunStatus.RUNNING

    async def test_closing_the_runner_closes_its_streams(self, store: StateStore) -> None:
        async with Runner(slow(World(), asyncio.Event()), store=store) as runner:
            stream = runner.run_stream("x", run_id="run")
            await anext(stream)
        record = await store.find("run")
        assert (record.status, record.owner) == (RunStatus.RUNNING, None)
        assert [item async for item in stream] == []

    @pytest.mark.parametrize("closes", ["a context manager", "aclosing"])
    async def test_a_cancelled_reader_releases_the_run(self, store: StateStore, closes: str) -> None:
        gate, reading = asyncio.Event(), asyncio.Event()

        async def reader() -> None:
            opened = runner.run_stream("x", run_id="run")
            async with opened if closes == "a context manager" else contextlib.aclosing(opened) as stream:
                async for _ in stream:
                    reading.set()

        async with Runner(slow(World(), gate), store=store) as runner:
            task = asyncio.create_task(reader())
            await reading.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            record = await store.find("run")
            assert (record.status, record.owner) == (RunStatus.RUNNING, None)

    @pytest.mark.guarantee("G12")
    async def test_a_client_that_disconnects_releases_the_run(self, store: StateStore) -> None:
        """A server drops the generator of a response whose client is gone."""

        async def body() -> AsyncIterator[Any]:
            async with runner.run_stream("x", run_id="run") as stream:
                async for item in stream:
                    yield item

        async with Runner(slow(World(), asyncio.Event()), store=store) as runner:
            response = body()
            await anext(response)
            await response.aclose()  # type: ignore[attr-defined]  # a generator
            record = await store.find("run")
            assert (record.status, record.owner) == (RunStatus.RUNNING, None)

    async def test_an_unread_stream_starts_nothing(self) -> None:
        world = World()
        async with Runner(pipeline(call("a", world.add("a"))), persist_state=False) as runner:
            async with runner.run_stream(1):
                pass
            runner.run_stream(2)
        assert world.calls == []


class TestWhatGoesWrong:
    async def test_a_refused_input_is_raised_to_the_reader(self) -> None:
        tree = pipeline(input_schema={"type": "string"})
        async with Runner(tree, persist_state=False) as runner:
            with pytest.raises(InputRejected):
                await read(runner, 1)

    async def test_a_lost_database_is_raised_after_the_recorded_steps(self) -> None:
        world = World()
        stopping: Any = StoppingStore(MemoryStateStore(), 1)
        tree = pipeline(call("a", world.add("a")), call("b", world.add("b")))
        async with Runner(tree, store=stopping) as runner, runner.run_stream(1) as stream:
            assert shown([await anext(stream)]) == [("a", "Success")]
            with pytest.raises(StateBackendUnavailable):
                await anext(stream)
            with pytest.raises(StateBackendUnavailable):
                await anext(stream)

    async def test_a_failed_run_ends_with_its_result(self) -> None:
        async with Runner(pipeline(writes("a", Writer(fails=1))), persist_state=False) as runner:
            items = await read(runner)
        assert shown(items) == [("a", "Failure"), RunStatus.FAILED]
        assert items[-1].error.path == "a"
