"""Storage that users write: caches and state providers that exit or are cancelled fail an attempt, not a run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from flujo import ContextReference, Flujo, MemoryProvider, PipelineContext
from flujo.domain import canonical
from flujo.domain.run import RunStatus
from flujo.domain.steps import CachePolicy, CallableRef, Expr, ImportStep, MapStep, Step, StepConfig
from flujo.exceptions import ProviderFailed
from flujo.state.memory_cache import MemoryCache
from support import call, pipeline

if TYPE_CHECKING:
    from collections.abc import Callable


class OwnError(BaseException):
    """An error that no `except Exception` handles."""


async def awaits_a_cancelled_future() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


def raises(error: BaseException) -> Callable[[], Any]:
    async def fail() -> None:
        raise error

    return fail


FAULTS: dict[str, Callable[[], Any]] = {
    "a cancelled future": awaits_a_cancelled_future,
    "an exit": raises(SystemExit(0)),
    "a closed generator": raises(GeneratorExit()),
    "an error of its own": raises(OwnError()),
}


class BadCache(MemoryCache):
    """Fails at its first read and its first write."""

    def __init__(self, fails: Callable[[], Any]) -> None:
        super().__init__()
        self._fails, self._seen = fails, set[str]()

    async def _act(self, what: str) -> None:
        if what not in self._seen:
            self._seen.add(what)
            await self._fails()

    async def get(self, key: str) -> bytes | None:
        await self._act("get")
        return await super().get(key)

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        await self._act("put")
        await super().put(key, value, ttl_s=ttl_s)


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_cache_that_exits_counts_as_a_miss_and_loses_no_branch(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    step = call("a", CallableRef("x:same", same), cache=CachePolicy())
    tree = pipeline(MapStep(name="m", over=Expr("[1, 2, 3]"), body=pipeline(step), max_concurrency=1))
    async with Flujo[Any, Any, Any](tree, persist_state=False, cache=BadCache(FAULTS[fault])) as runner:
        first = await runner.run_result_async(None)
        again = await runner.run_result_async(None)
    assert (first.output, again.output) == ([1, 2, 3], [1, 2, 3])
    assert len([message for message in caplog.messages if "cache" in message]) == 2


def same(data: Any) -> Any:
    return data


DEFAULT = {"provider_id": "docs", "key": "given"}


class BadProvider(MemoryProvider):
    """Fails at its next reads."""

    def __init__(self, fails: Callable[[], Any], times: int) -> None:
        super().__init__()
        self._fails, self.times = fails, times

    async def get(self, key: str) -> bytes:
        if self.times > 0:
            self.times -= 1
            await self._fails()
        return await super().get(key)


class Doc(PipelineContext):
    raw: ContextReference[bytes] | None = None


async def reads(data: Any, context: Doc) -> int:
    assert context.raw is not None
    return len(await context.raw.get())


def reads_in_a_thread(data: Any, context: Doc) -> int:
    assert context.raw is not None
    return len(context.raw.get_sync())


def runner_of(step: Step[Any, Any], provider: MemoryProvider) -> Flujo[Any, Any, Any]:
    return Flujo(pipeline(step), persist_state=False, context_model=Doc, state_providers={"docs": provider})


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize("reader", [reads, reads_in_a_thread])
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_provider_that_exits_in_a_step_fails_the_attempt(fault: str, reader: Any) -> None:
    provider = BadProvider(FAULTS[fault], 0)
    target = CallableRef("x:reads", reader)
    async with runner_of(call("a", target, config=StepConfig(max_retries=1)), provider) as runner:
        await runner.run_result_async(None, initial_context_data={"raw": b"abc"}, run_id="first")
        provider.times = 1  # the first attempt of the next run reads it, and the second reads the value
        result = await runner.run_result_async(None, initial_context_data={"raw": b"abc"})
    assert (result.status, result.output) == (RunStatus.COMPLETED, 3)
    assert provider.times == 0


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_provider_that_exits_at_the_start_accepts_no_run(fault: str) -> None:
    provider = BadProvider(FAULTS[fault], 1)
    async with runner_of(call("a", CallableRef("x:reads", reads)), provider) as runner:
        with pytest.raises(ProviderFailed, match="state provider 'docs' could not"):
            await runner.run_result_async(None, initial_context_data={"raw": DEFAULT})


@pytest.mark.guarantee("G10")
async def test_a_provider_is_cancelled_with_the_run_that_waits_for_it() -> None:
    reading = asyncio.Event()

    class Hung(MemoryProvider):
        async def get(self, key: str) -> bytes:
            reading.set()
            await asyncio.sleep(60)
            raise AssertionError

    async with runner_of(call("a", CallableRef("x:reads", reads)), Hung()) as runner:
        task = asyncio.create_task(
            runner.run_result_async(None, initial_context_data={"raw": {"provider_id": "docs", "key": "k"}})
        )
        await reading.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class Inner(PipelineContext):
    raw: ContextReference[bytes] = ContextReference[bytes](**DEFAULT)


@pytest.mark.guarantee("G10")
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_provider_that_exits_at_an_import_fails_the_step_and_loses_no_branch(fault: str) -> None:
    provider = BadProvider(FAULTS[fault], 1)
    await provider.put("given", canonical.encode("x"))
    child = pipeline(call("a", CallableRef("x:same", same)), context_type=CallableRef("x:Inner", Inner))
    body = pipeline(ImportStep(name="i", blueprint="x", pipeline=child, context="own"))
    tree = pipeline(MapStep(name="m", over=Expr("[1, 2, 3]"), body=body, max_concurrency=1))
    async with Flujo[Any, Any, Any](tree, persist_state=False, state_providers={"docs": provider}) as runner:
        result = await runner.run_result_async(None)
    assert result.status is RunStatus.FAILED
    assert result.error is not None
    assert "state provider 'docs'" in result.error.message
