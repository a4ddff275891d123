"""Step code that misbehaves: it exits, is cancelled from inside, or does not stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain import canonical
from flujo.domain.journal import EntryStatus, RunId
from flujo.domain.paths import StepPath
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef, Processors, Save, Step, TreeSearchStep
from flujo.engine import foreign_code
from flujo.exceptions import PipelineAbortSignal, RunnerClosed, RunNotFound
from flujo.services.runs.runner import Flujo
from flujo.state import leases
from flujo.state.memory_store import MemoryStateStore
from support import (
    DynamicParallelRouterStep,
    Expr,
    LoopStep,
    MapStep,
    ParallelStep,
    StepConfig,
    World,
    call,
    pipeline,
    resume,
    start,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from flujo.domain.models import PipelineResult
    from flujo.domain.ports import StateStore
    from flujo.domain.steps import BaseStep

AGAIN = StepConfig(max_retries=1, retry=RetryPolicy(backoff="none"))
RUN = RunId("run")


class OwnError(BaseException):
    """An exception that `except Exception` does not catch."""


class NoText(Exception):
    """An exception without a usable text."""

    def __init__(self, text: Any) -> None:
        super().__init__()
        self.text = text

    def __str__(self) -> str:
        if isinstance(self.text, BaseException):
            raise self.text
        return self.text  # type: ignore[no-any-return]  # possibly not a text, on purpose


RAISED = [
    asyncio.CancelledError(),
    asyncio.CancelledError("with a message"),
    SystemExit(0),
    KeyboardInterrupt(),
    GeneratorExit(),
    StopIteration(1),
    StopAsyncIteration(),
    OwnError("own"),
    BaseExceptionGroup("several", [SystemExit(0), asyncio.CancelledError()]),
    ExceptionGroup("several", [ValueError("x")]),
    NoText(OSError("no text")),
    NoText(SystemExit(0)),
    NoText(7),
    NoText("x" * 1_000_000),
    NoText("\ud800 and \x00"),
]


def name_of(value: object) -> str:
    return type(value).__name__


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_code, "GRACE_S", 0.2)
    monkeypatch.setattr(leases, "LOOK_S", 0.1)  # for requests to cancel


class Once:
    """Callables that misbehave at their first call for an input."""

    def __init__(self, error: BaseException) -> None:
        self._error = error
        self.calls: list[Any] = []

    def _act(self, data: Any) -> None:
        self.calls.append(data)
        if self.calls.count(data) == 1 and data in (0, 2):
            raise self._error

    def sync(self, data: Any) -> Any:
        """Raise in a thread."""
        self._act(data)
        return data

    async def at_once(self, data: Any) -> Any:
        """Raise before the first await."""
        self._act(data)
        return data

    async def later(self, data: Any) -> Any:
        """Raise after an await."""
        await asyncio.sleep(0)
        self._act(data)
        return data


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize("how", [Once.sync, Once.at_once, Once.later])
@pytest.mark.parametrize("error", RAISED, ids=name_of)
async def test_whatever_a_step_raises_fails_its_attempt_and_loses_no_branch(
    error: BaseException, how: Callable[[Once, Any], Any]
) -> None:
    store, once = MemoryStateStore(), Once(error)
    target = CallableRef("x:once", how.__get__(once))
    items = MapStep(name="m", over=Expr("[1, 2, 3]"), body=pipeline(call("a", target, config=AGAIN)))
    result = await start(pipeline(items), store)
    assert (result.status, result.output) == (RunStatus.COMPLETED, [1, 2, 3])
    assert sorted(once.calls) == [1, 2, 2, 3]
    entries = await store.entries(RUN, parent=StepPath("m[1]"))
    [failed] = [entry for entry in entries if entry.status is EntryStatus.FAILED]
    recorded = canonical.decode(failed.error or b"{}")
    assert recorded["message"].isprintable()
    assert len(recorded["message"]) < 11_000


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize(
    "error",
    [asyncio.CancelledError(), SystemExit(0), OwnError(), RunNotFound("a run of another database")],
    ids=name_of,
)
async def test_an_exit_of_a_step_without_retries_fails_the_run_on_every_store(
    store: StateStore, error: BaseException
) -> None:
    once = Once(error)
    body = {name: pipeline(call("a", CallableRef("x:once", once.later))) for name in "ab"}
    tree = pipeline(ParallelStep(name="p", branches=body))
    result = await start(tree, store, 2)
    assert result.status is RunStatus.FAILED
    assert result.error is not None
    assert result.error.type == type(error).__name__
    assert (await store.run(RUN)).status is RunStatus.FAILED
    again = await resume(tree, store, retry_failed=True)
    assert again.output == {"a": 2, "b": 2}


def _steps(target: CallableRef) -> dict[str, BaseStep]:
    nothing = CallableRef("x:nothing", lambda data: data)
    body = pipeline(call("a", nothing))
    return {
        "validator": call("s", nothing, validators=[target]),
        "input": call("s", nothing, processors=Processors(input=[target])),
        "output": call("s", nothing, processors=Processors(output=[target])),
        "save": call("s", nothing, save={"total": Save(target)}),
        "when": call("s", nothing, when=target),
        "merge": ParallelStep(name="s", branches={"a": body}, merge=target),
        "over": MapStep(name="s", over=target, body=body),
        "until": LoopStep(name="s", body=body, until=target),
        "router": DynamicParallelRouterStep(name="s", router=target, branches={"a": body}),
        "propose": TreeSearchStep(name="s", propose=target, evaluate=nothing),
        "fallback": call("s", CallableRef("x:down", _down), fallback=call("spare", target)),
    }


def _down(_: Any) -> Any:
    raise ValueError("down")


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(0), OwnError()], ids=name_of)
@pytest.mark.parametrize("where", list(_steps(CallableRef("x:y"))))
async def test_an_exit_of_any_callable_of_a_step_fails_the_step(where: str, error: BaseException) -> None:
    async def raises(data: Any = None, **_: Any) -> Any:
        raise error

    schema = {"type": "object", "properties": {"total": {"type": "integer", "default": 0}}}
    tree = pipeline(_steps(CallableRef("x:raises", raises))[where], context_schema=schema)
    result = await start(tree, MemoryStateStore(), 1)
    assert result.status is RunStatus.FAILED
    assert result.error is not None
    assert type(error).__name__ in result.error.message


async def test_an_iterator_that_is_cancelled_from_inside_fails_the_map() -> None:
    async def items(data: Any) -> AsyncIterator[int]:
        yield 1
        raise asyncio.CancelledError

    world = World()
    tree = pipeline(
        MapStep(name="m", over=CallableRef("x:items", items), body=pipeline(call("a", world.add("a"))))
    )
    result = await start(tree, MemoryStateStore())
    assert (result.status, world.calls) == (RunStatus.FAILED, ["a"])


async def test_a_step_that_cancels_its_own_task_has_failed() -> None:
    async def cancels(data: Any) -> Any:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if data == "waits":
            await asyncio.sleep(60)
        return data

    def tree() -> Any:
        return pipeline(call("a", CallableRef("x:cancels", cancels)), call("b", World().add("b")))

    assert (await start(tree(), MemoryStateStore(), "waits")).status is RunStatus.FAILED
    assert (await start(tree(), MemoryStateStore(), "returns")).output == "returns"


async def test_a_time_limit_of_a_library_is_not_a_wish_to_stop() -> None:
    async def limited(data: Any) -> Any:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)
        except TimeoutError:
            return "late"

    result = await start(pipeline(call("a", CallableRef("x:limited", limited))), MemoryStateStore())
    assert result.output == "late"


async def test_a_hook_that_exits_is_logged_and_the_run_continues(caplog: pytest.LogCaptureFixture) -> None:
    async def exits(event: Any) -> None:
        raise SystemExit(0) if "Started" in type(event).__name__ else asyncio.CancelledError

    async with Flujo[Any, Any, Any](pipeline(), store=MemoryStateStore(), hooks=[exits]) as runner:
        assert (await runner.run_result_async(1)).success
    assert "the run continues" in caplog.text


# Code that does not stop -----------------------------------------------------------------------------------


class Stubborn:
    """Callables that swallow their cancellation."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.late: list[str] = []

    async def returns(self, data: Any) -> Any:
        """Return a value instead."""
        self.began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            assert task is not None
            task.uncancel()
        return data

    async def raises(self, data: Any) -> Any:
        """Raise something else instead."""
        self.began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ValueError("interrupted") from None

    async def loops(self, data: Any) -> Any:
        """Wait again and again."""
        self.began.set()
        while True:
            try:
                await asyncio.sleep(60)
            except GeneratorExit:  # at the end of the process this loop would never end
                raise
            except BaseException:  # noqa: BLE001 - on purpose
                pass

    async def cleans_up(self, data: Any) -> Any:
        """Wait in `finally`."""
        self.began.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(60)
            self.late.append("cleaned up")

    async def waits_for_another(self, data: Any) -> Any:
        """Wait for a task that does not end at its cancellation."""
        self.began.set()

        async def slow() -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(1)
            self.late.append("slow")

        await asyncio.gather(slow())


ENDLESS = [Stubborn.loops, Stubborn.cleans_up, Stubborn.waits_for_another]
SWALLOWS = [Stubborn.returns, Stubborn.raises, *ENDLESS]
How = "Callable[[Stubborn, Any], Any]"


def _tree(stubborn: Stubborn, how: Callable[[Stubborn, Any], Any], world: World, **config: Any) -> Any:
    first = call("first", CallableRef("x:first", how.__get__(stubborn)), config=StepConfig(**config))
    return pipeline(first, call("after", world.add("after")))


@pytest.mark.guarantee("G11")
@pytest.mark.parametrize("how", SWALLOWS)
async def test_a_time_limit_ends_code_that_swallows_it(
    how: Callable[[Stubborn, Any], Any], store: StateStore
) -> None:
    world = World()
    result = await start(_tree(Stubborn(), how, world, timeout_s=0.05), store, 1)
    assert result.status is RunStatus.FAILED
    assert result.error is not None
    assert (result.error.type, world.calls) == ("StepTimeout", [])
    [entry] = await store.entries(RUN)
    assert canonical.decode(entry.detail or b"{}").get("abandoned", False) is (how in ENDLESS)


@pytest.mark.guarantee("G10", "G11")
async def test_code_that_only_yields_gets_its_cancellation(store: StateStore) -> None:
    async def spins(data: Any) -> Any:
        while True:  # noqa: ASYNC110 - it waits for nothing
            await asyncio.sleep(0)

    tree = pipeline(call("a", CallableRef("x:spins", spins), config=StepConfig(timeout_s=0.05)))
    result = await start(tree, store)
    assert result.error is not None
    assert result.error.type == "StepTimeout"
    [entry] = await store.entries(RUN)
    assert "abandoned" not in canonical.decode(entry.detail or b"{}")


@pytest.mark.guarantee("G10", "G11")
@pytest.mark.parametrize("how", SWALLOWS)
async def test_after_a_time_limit_nothing_begins_inside_what_it_limits(
    how: Callable[[Stubborn, Any], Any],
) -> None:
    world, store = World(), MemoryStateStore()
    loop = LoopStep(
        name="loop",
        body=pipeline(ParallelStep(name="p", branches={"a": _tree(Stubborn(), how, world)})),
        until=Expr("false"),
        max_iterations=3,
        config=StepConfig(timeout_s=0.05),
    )
    result = await start(pipeline(loop, call("next", world.add("next"))), store, 1)
    assert (result.status, world.calls) == (RunStatus.FAILED, [])
    assert result.error is not None
    assert (result.error.type, result.error.path) == ("StepTimeout", "loop")


async def _stopped(runner: Flujo[Any, Any, Any], stubborn: Stubborn, stop: str) -> PipelineResult[Any, Any]:
    running = asyncio.create_task(runner.run_result_async(1, run_id="run"))
    await stubborn.began.wait()
    if stop == "aclose":
        await runner.aclose()
    elif stop == "request":
        await runner._store.cancel(RUN, foreign_actor())  # type: ignore[union-attr]  # given below
    else:
        running.cancel()
    async with asyncio.timeout(30):
        return await running


def foreign_actor() -> Any:
    from flujo.domain.acts import Actor, Via

    return Actor("ada", Via.CLI)


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("how", SWALLOWS)
@pytest.mark.parametrize("stop", ["aclose", "request", "cancel"])
async def test_a_wish_to_stop_is_kept_whatever_code_swallows(
    stop: str,
    how: Callable[[Stubborn, Any], Any],
    inside: bool,
    store: StateStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    stubborn, world = Stubborn(), World()
    tree = _tree(stubborn, how, world)
    if inside:
        tree = pipeline(ParallelStep(name="p", branches={"a": tree}), call("last", world.add("last")))
    runner = Flujo[Any, Any, Any](tree, store=store, recovery=False)
    wanted = RunStatus.CANCELLED if stop == "request" else RunStatus.RUNNING  # for recovery
    if stop == "request":
        assert (await _stopped(runner, stubborn, stop)).status is wanted
    else:
        with pytest.raises(RunnerClosed if stop == "aclose" else asyncio.CancelledError):
            await _stopped(runner, stubborn, stop)
    record = await store.run(RUN)
    assert (record.status, record.owner) == (wanted, None)
    assert world.calls == []
    assert ("is abandoned" in caplog.text) is (how in ENDLESS)
    assert stubborn.late == []
    await runner.aclose()


async def test_a_result_that_arrives_with_the_wish_to_stop_is_kept() -> None:
    stubborn, world, store = Stubborn(), World(), MemoryStateStore()
    tree = _tree(stubborn, Stubborn.returns, world)
    with pytest.raises(asyncio.CancelledError):
        await _stopped(Flujo[Any, Any, Any](tree, store=store, recovery=False), stubborn, "cancel")
    assert [entry.path for entry in await store.entries(RUN)] == ["first"]
    assert (await resume(tree, store)).output == 1


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN])
def test_only_an_interrupt_that_python_may_have_raised_is_ctrl_c(
    handler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.signal(signal.SIGINT, handler)
    try:
        found = foreign_code.is_ctrl_c(KeyboardInterrupt())
    finally:
        signal.signal(signal.SIGINT, before)
    assert found is (handler is signal.default_int_handler)
    assert not foreign_code.is_ctrl_c(SystemExit())


async def test_an_abort_still_cancels_the_run() -> None:
    async def aborts(data: Any) -> Any:
        raise PipelineAbortSignal("enough")

    result = await start(pipeline(Step(name="a", call=CallableRef("x:aborts", aborts))), MemoryStateStore())
    assert result.status is RunStatus.CANCELLED


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
