"""The runner: what it takes, what it refuses, whom it tells, how it is closed, and how runs are found again."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from pydantic import BaseModel

from flujo.domain.events import Chunk, RunEnded, RunStarted, StepEnded, StepStarted
from flujo.domain.models import PipelineContext
from flujo.domain.run import RunStatus
from flujo.domain.steps import CachePolicy, CallableRef
from flujo.exceptions import (
    FlujoError,
    InputRejected,
    PausedException,
    ResumeConflict,
    RunConflict,
    RunnerClosed,
    RunNotFound,
    SettingsError,
    SyncInAsync,
)
from flujo.services.inspection.task_client import TaskClient
from flujo.services.project.recovery_policy import RecoveryPolicy
from flujo.services.runs.runner import Flujo
from flujo.state.memory_store import MemoryStateStore
from flujo.state.store import SqlStateStore
from flujo.testing import ScriptedAgent
from support import Expr, HumanInTheLoopStep, Save, Text, World, call, pipeline

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import StateStore

Runner = Flujo[Any, Any, Any]


class Research(PipelineContext):
    """A context with a user."""

    user_id: str
    source: str = "unknown"


def asks(message: str = "Go on?", **more: Any) -> HumanInTheLoopStep:
    return HumanInTheLoopStep(name="ask", message=Text(message), **more)


class TestContexts:
    @pytest.mark.parametrize("model", [dict, BaseModel, {"user_id": "u1"}, "Research"])
    def test_a_class_that_is_not_a_context_is_refused_with_the_reason(self, model: Any) -> None:
        with pytest.raises(SettingsError, match="a context is a subclass of `PipelineContext`") as caught:
            Runner(pipeline(), context_model=model)
        assert "class MyContext(PipelineContext)" in (caught.value.hint or "")

    async def test_fields_are_given_by_name(self) -> None:
        with pytest.raises(InputRejected, match="`initial_context_data` is Research"):
            Runner(pipeline(), initial_context_data=Research(user_id="u1"))  # type: ignore[arg-type]

    async def test_a_runs_own_fields_go_before_the_runners(self) -> None:
        runner: Flujo[Any, Any, Research] = Flujo(
            pipeline(),
            context_model=Research,
            initial_context_data={"user_id": "u1", "source": "cli"},
            persist_state=False,
        )
        async with runner:
            result = await runner.run_result_async(1, initial_context_data={"source": "api"})
        assert result.context == Research(user_id="u1", source="api")

    async def test_a_missing_field_is_named_before_anything_runs(self) -> None:
        world = World()
        tree = pipeline(call("a", world.add("a")))
        async with Runner(tree, context_model=Research, persist_state=False) as runner:
            with pytest.raises(InputRejected, match="user_id"):
                await runner.run_result_async(1)
        assert world.calls == []

    async def test_the_user_of_a_run_is_its_contexts(self, store_uri: str) -> None:
        store = SqlStateStore(store_uri)
        async with Runner(pipeline(), context_model=Research, store=store) as runner:
            for user, team in (("u1", "a"), ("u2", "a"), ("u1", "b")):
                await runner.run_result_async(
                    1, initial_context_data={"user_id": user}, metadata={"team": team}, run_id=user + team
                )
        client = TaskClient(store)

        async def found(**conditions: Any) -> list[str]:
            return sorted(task.run_id for task in await client.list_tasks(**conditions))

        assert await found(user_id="u1") == ["u1a", "u1b"]
        assert await found(metadata_filter={"team": "a"}) == ["u1a", "u2a"]
        assert await found(status="completed", metadata_filter={"team": "a"}, user_id="u2") == ["u2a"]
        assert await found(status="paused", user_id="u2") == []
        await store.aclose()

    async def test_the_user_is_who_started_the_run(self, store: StateStore) -> None:
        tree = pipeline(
            call("a", World().add("a", lambda _: "u2"), save={"user_id": Save(Expr("output"))}),
        )
        async with Runner(tree, context_model=Research, store=store) as runner:
            await runner.run_result_async(1, initial_context_data={"user_id": "u1"}, run_id="run")
        assert (await store.find("run")).user_id == "u1"


class TestHooks:
    async def test_hooks_get_every_event_in_order(self, store: StateStore) -> None:
        told: list[Any] = []

        async def first(event: Any) -> None:
            told.append(("first", type(event)))

        async def second(event: Any) -> None:
            told.append(("second", type(event)))

        agent: Any = ScriptedAgent(["hello"])
        tree = pipeline(call("a", CallableRef("x:a", agent)))
        async with Runner(tree, store=store, hooks=[first, second]) as runner:
            await runner.run_result_async(1)
        events = [RunStarted, StepStarted, Chunk, StepEnded, RunEnded]
        assert told == [(name, event) for event in events for name in ("first", "second")]

    async def test_the_end_of_a_run_is_reported_after_it_is_recorded(self, store: StateStore) -> None:
        seen: list[Any] = []

        async def hook(event: Any) -> None:
            if isinstance(event, RunEnded):
                seen.append((event.status, (await store.run(event.run_id)).status))

        async with Runner(pipeline(asks()), store=store, hooks=[hook]) as runner:
            result = await runner.run_result_async(1)
            await runner.resume_async(result.run_id, "yes")
        assert seen == [(RunStatus.PAUSED, RunStatus.PAUSED), (RunStatus.COMPLETED, RunStatus.COMPLETED)]

    @pytest.mark.parametrize("error", [ValueError("no"), PausedException("wait")])
    async def test_a_hook_that_raises_is_reported_and_breaks_nothing(
        self, error: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        told: list[Any] = []

        async def broken(event: Any) -> None:
            raise error

        async def whole(event: Any) -> None:
            told.append(event)

        tree = pipeline(call("a", World().add("a")))
        async with Runner(tree, persist_state=False, hooks=[broken, whole]) as runner:
            with caplog.at_level(logging.ERROR, "flujo.hooks"):
                result = await runner.run_result_async(1)
        assert result.success
        assert len(told) == 4
        assert "broken` raised at RunStarted; the run continues" in caplog.messages[0]

    async def test_streams_and_hooks_get_the_same_events(self) -> None:
        told: list[Any] = []

        async def hook(event: Any) -> None:
            told.append(event)

        tree = pipeline(call("a", World().add("a")))
        async with (
            Runner(tree, persist_state=False, hooks=[hook]) as runner,
            runner.run_stream(1) as stream,
        ):
            items = [item async for item in stream]
        assert items[0] in told


class TestClosing:
    async def test_closing_twice_and_at_once_is_fine(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        runner = Runner(pipeline())
        await runner.run_result_async(1)
        await asyncio.gather(runner.aclose(), runner.aclose(), runner.aclose())
        await runner.aclose()
        await refused(runner.run_result_async(1))

    async def test_a_closed_runner_is_refused_by_name(self) -> None:
        runner = Runner(pipeline(), persist_state=False)
        await runner.aclose()
        for used in (runner.run_result_async(1), runner.resume_async("x"), anext(runner.run_stream(1))):
            await refused(used)

    async def test_runs_in_flight_are_released_and_say_so(self, store: StateStore) -> None:
        world, gate, waiting = World(), asyncio.Event(), asyncio.Event()
        runner = Runner(held_up(world, gate, waiting), store=store)
        running = asyncio.create_task(runner.run_result_async(1, run_id="run"))
        await waiting.wait()
        await runner.aclose()
        with pytest.raises(RunnerClosed, match="was closed while it executed a run"):
            await running
        assert running.cancelling() == 0
        await is_released(store)
        gate.set()
        async with Runner(held_up(world, gate, waiting), store=store) as another:
            assert (await another.resume_async("run")).output == 1
        assert world.calls == ["first", "wait", "wait"]

    async def test_a_run_that_is_being_cancelled_is_waited_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_uri: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("FLUJO_STATE_URI", store_uri)
        waiting = asyncio.Event()
        runner = Runner(held_up(World(), asyncio.Event(), waiting))
        running = asyncio.create_task(runner.run_result_async(1))
        await waiting.wait()
        running.cancel()  # as a server does when its requests have had their time
        await runner.aclose()
        with pytest.raises(asyncio.CancelledError):
            await running
        async with TaskClient() as client:
            assert [task.status for task in await client.list_tasks()] == [RunStatus.RUNNING]

    async def test_a_step_may_close_the_runner_that_executes_it(self, store: StateStore) -> None:
        async def close(data: Any) -> None:
            await runner.aclose()

        runner = Runner(pipeline(call("close", CallableRef("x:close", close))), store=store)
        with pytest.raises(RunnerClosed):
            await runner.run_result_async(1, run_id="run")
        await is_released(store)

    async def test_many_first_runs_share_one_store(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_uri: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("FLUJO_STATE_URI", store_uri)
        async with Runner(pipeline(call("a", World().add("a")))) as runner:
            results = await asyncio.gather(*(runner.run_result_async(n) for n in range(20)))
            async with TaskClient() as client:
                listed = await client.list_tasks("completed")
        assert [result.output for result in results] == list(range(20))
        assert {task.run_id for task in listed} == {result.run_id for result in results}

    async def test_three_first_runs_call_a_step_with_a_cache_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The runs start together, so each of them finds a runner that has opened nothing yet."""
        (tmp_path / "flujo.toml").write_text('[cache]\nbackend = "state"\n', "utf-8")
        monkeypatch.chdir(tmp_path)
        world = World()
        cached = replace(call("a", world.add("a", lambda data: data + 1)), cache=CachePolicy())
        async with Runner(pipeline(cached)) as runner:
            results = await asyncio.gather(*(runner.run_result_async(1) for _ in range(3)))
        assert [result.output for result in results] == [2, 2, 2]
        assert world.calls == ["a"]

    async def test_the_callers_store_stays_open(self) -> None:
        store = MemoryStateStore()
        async with Runner(pipeline(), store=store) as runner:
            result = await runner.run_result_async(1)
        assert (await store.run(result.run_id)).status is RunStatus.COMPLETED


class TestScripts:
    def test_a_script_may_run_several_times(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        runner = Runner(pipeline(call("a", World().add("a", lambda data: data + 1))))
        assert [runner.run(n).output for n in (1, 2)] == [2, 3]

    async def test_inside_a_loop_it_says_what_to_call(self) -> None:
        with pytest.raises(SyncInAsync, match="running event loop") as caught:
            Runner(pipeline(), persist_state=False).run(1)
        assert "run_result_async" in (caught.value.hint or "")


class TestCancelling:
    async def test_a_run_cancelled_while_it_is_accepted_is_released(self, store: StateStore) -> None:
        world = World()
        slow: Any = SlowStore(store)
        async with Runner(pipeline(call("a", world.add("a"))), store=slow) as runner:
            task = asyncio.create_task(runner.run_result_async(1, run_id="run"))
            await slow.accepting.wait()
            task.cancel()
            await asyncio.sleep(0)
            slow.gate.set()
            with pytest.raises(asyncio.CancelledError):
                await task
            await is_released(store)
            assert (await runner.resume_async("run")).success
        assert world.calls == ["a"]

    @pytest.mark.guarantee("G10", "G12")
    @pytest.mark.parametrize("way", ["a task", "a timeout", "a cancel scope"])
    async def test_a_cancelled_run_is_recovered_by_another_process(self, store: StateStore, way: str) -> None:
        world, waiting, gate = World(), asyncio.Event(), asyncio.Event()
        tree = held_up(world, gate, waiting)
        async with Runner(tree, store=store, recovery=False) as runner:
            await cancelled(runner.run_result_async(1, run_id="run"), waiting, way)
            await is_released(store)
        gate.set()
        async with Runner(tree, store=store, recovery=RecoveryPolicy(every_s=0.05)):
            while (await store.find("run")).status is not RunStatus.COMPLETED:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert world.calls == ["first", "wait", "wait"]

    async def test_the_same_runner_recovers_a_run_whose_request_was_cancelled(
        self, store: StateStore
    ) -> None:
        world, waiting, gate = World(), asyncio.Event(), asyncio.Event()
        policy = RecoveryPolicy(every_s=0.05)
        async with Runner(held_up(world, gate, waiting), store=store, recovery=policy) as runner:
            await cancelled(runner.run_result_async(1, run_id="run"), waiting, "a timeout")
            gate.set()
            assert (await runner.run_result_async(1, run_id="run")).output == 1
        assert world.calls == ["first", "wait", "wait"]


async def cancelled(work: Awaitable[Any], waiting: asyncio.Event, way: str) -> None:
    """Cancel the work once the run `waiting`s."""
    match way:
        case "a task":
            task = asyncio.ensure_future(work)
            await waiting.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        case "a timeout":
            with pytest.raises(TimeoutError):  # noqa: PT012 - the timeout begins in the block
                async with asyncio.timeout(None) as limit:
                    now = asyncio.get_running_loop().time()
                    waits = asyncio.create_task(waiting.wait())
                    waits.add_done_callback(lambda _: limit.reschedule(now))
                    await work
        case _:
            async with anyio.create_task_group() as group:

                async def cancel() -> None:
                    await waiting.wait()
                    group.cancel_scope.cancel()

                group.start_soon(cancel)
                await work


async def is_released(store: StateStore) -> None:
    """Check that any process may take the run over at once.

    A cancel scope cancels again and again, so the last write may still be in progress when it is left.
    """
    async with asyncio.timeout(10):
        while (record := await store.find("run")).owner is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert record.status is RunStatus.RUNNING
    assert "run" in (await store.due()).runs


class TestResuming:
    async def test_a_run_is_found_by_the_beginning_of_its_id(self, store: StateStore) -> None:
        async with Runner(pipeline(asks()), store=store) as runner:
            await runner.run_result_async(1, run_id="first-run")
            await runner.run_result_async(1, run_id="second-run")
            assert (await runner.resume_async("first", "yes")).output == "yes"
            assert (await runner.resume_async("@last", "no")).output == "no"
            with pytest.raises(RunNotFound):
                await runner.resume_async("third")

    async def test_an_answer_may_be_null_and_has_to_fit(self, store: StateStore) -> None:
        schema = {"type": ["boolean", "null"]}
        async with Runner(pipeline(asks(answer_schema=schema)), store=store) as runner:
            await runner.run_result_async(1, run_id="run")
            with pytest.raises(InputRejected, match="answer to `ask`"):
                await runner.resume_async("run", "yes")
            waiting = await runner.resume_async("run")
            assert (waiting.status, [p.pause_id for p in waiting.pauses]) == (RunStatus.PAUSED, ["ask"])
            result = await runner.resume_async("run", None)
        assert (result.status, result.output) == (RunStatus.COMPLETED, None)

    async def test_a_run_of_another_pipeline_is_refused(self, store: StateStore) -> None:
        async with Runner(pipeline(asks(), name="one"), store=store) as runner:
            await runner.run_result_async(1, run_id="run")
        async with Runner(pipeline(asks(), name="two"), store=store) as runner:
            with pytest.raises(RunConflict, match="is of pipeline 'one', and this runner runs 'two'"):
                await runner.resume_async("run", "yes")
        assert (await store.pauses((await store.find("run")).run_id))[0].is_open

    async def test_a_pause_is_raised_to_those_who_want_it(self, store: StateStore) -> None:
        async with Runner(pipeline(asks("Send?")), store=store, raise_on_pause=True) as runner:
            with pytest.raises(PausedException, match="Send") as caught:
                await runner.run_result_async(1)
            assert (await runner.resume_async(caught.value.facts["run_id"], "yes")).output == "yes"
            async with runner.run_stream(1) as stream:
                *_, result = [item async for item in stream]
            assert result.status is RunStatus.PAUSED  # type: ignore[union-attr]  # the last one is the result


class TestTaskClients:
    async def test_a_service_needs_the_databases_address_alone(self, store_uri: str) -> None:
        store = SqlStateStore(store_uri)
        async with Runner(pipeline(asks("Send?"), name="mail"), store=store) as runner:
            result = await runner.run_result_async("hi", metadata={"team": "a"})
            async with TaskClient(store_uri) as client:
                (task,) = await client.list_tasks(status="paused", metadata_filter={"team": "a"})
                detail = await client.get_task(task.run_id)
                answered = await client.resume_task(task.run_id, "yes")
            assert (detail.input, detail.pauses[0].message) == ("hi", "Send?")
            assert answered.status is RunStatus.PAUSED
            assert "the answer is recorded" in answered.note
            assert "runner.resume_async" in answered.note
            assert (await runner.resume_async(result.run_id)).output == "yes"
        await store.aclose()

    async def test_with_the_runner_the_run_is_resumed(self, store: StateStore) -> None:
        async with Runner(pipeline(asks(), name="mail"), store=store) as runner:
            result = await runner.run_result_async(1)
            client = TaskClient(store, runners=[runner])
            answered = await client.resume_task(result.run_id, "yes")
            with pytest.raises(ResumeConflict):
                await client.resume_task(result.run_id, "no")
        assert (answered.output, answered.note) == ("yes", "")

    async def test_an_answer_may_be_recorded_without_a_resume(self, store: StateStore) -> None:
        async with Runner(pipeline(asks()), store=store) as runner:
            result = await runner.run_result_async(1)
            answered = await TaskClient(store, runners=[runner]).resume_task(
                result.run_id, "yes", detach=True
            )
            assert (answered.status, answered.pauses) == (RunStatus.PAUSED, ())
            assert (await runner.resume_async(result.run_id)).output == "yes"

    @pytest.mark.parametrize("state", ["uri", "project"])
    async def test_a_closed_client_refuses_every_call(
        self, sqlite_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        client = TaskClient(sqlite_uri) if state == "uri" else TaskClient()
        assert await client.list_tasks() == []
        await asyncio.gather(client.aclose(), client.aclose())
        await client.aclose()
        for used in (client.list_tasks(), client.get_task("x"), client.cancel_task("x")):
            with pytest.raises(RunnerClosed, match="TaskClient is closed"):
                await used

    async def test_a_client_that_was_never_used_opens_nothing_after_it_is_closed(
        self, sqlite_uri: str
    ) -> None:
        client = TaskClient(sqlite_uri)
        await client.aclose()
        with pytest.raises(RunnerClosed):
            await client.list_tasks()


def held_up(world: World, gate: asyncio.Event, waiting: asyncio.Event) -> Pipeline:
    """Return a pipeline whose second step says that it is `waiting`, and waits for `gate`."""

    async def wait(data: Any) -> Any:
        world.calls.append("wait")
        waiting.set()
        await gate.wait()
        return data

    return pipeline(call("first", world.add("first")), call("wait", CallableRef("x:wait", wait)))


class SlowStore:
    """A store whose `accept` waits for a gate after it has begun."""

    def __init__(self, store: StateStore) -> None:
        self._store = store
        self.accepting, self.gate = asyncio.Event(), asyncio.Event()

    async def accept(self, *args: Any, **options: Any) -> Any:
        self.accepting.set()
        await self.gate.wait()
        return await self._store.accept(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def refused(used: Awaitable[Any]) -> None:
    with pytest.raises(RunnerClosed, match="the runner of pipeline 'test' is closed") as caught:
        await used
    assert isinstance(caught.value, FlujoError)
