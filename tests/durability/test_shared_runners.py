"""One runner in several threads, event loops and forked processes: every call is right, and none hangs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from itertools import cycle, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.run import RunStatus
from flujo.domain.steps import CallableRef
from flujo.engine.answer_cache import AnswerCache
from flujo.exceptions import RunnerClosed
from flujo.services.runs.runner import Flujo
from flujo.state.memory_cache import MemoryCache
from flujo.state.memory_store import MemoryStateStore
from support import World, call, pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.domain.store import StateStore

Runner = Flujo[Any, Any, Any]

PROGRAM = Path(__file__).parent / "shared_program.py"
LIMIT_S = 90
WAYS = ("threads", "os.fork", "fork", "spawn", "forkserver")
SAMPLE = [
    *product(["sqlite", "postgres"], ["threads", "os.fork"]),
    *zip(cycle(["postgres", "sqlite"]), WAYS[2:], strict=False),
]
SHARED = [*product(["sqlite", "postgres"], WAYS)] if "FLUJO_KILLS" in os.environ else SAMPLE
"""The database, and the way in which the runner is shared."""


@pytest.mark.guarantee("G4", "G12", "G15", "G26")
@pytest.mark.parametrize(("store_uri", "how"), SHARED, indirect=["store_uri"])
def test_every_call_of_a_shared_runner_is_right(store_uri: str, tmp_path: Path, how: str) -> None:
    environment = {**os.environ, "FLUJO_STATE_URI": store_uri, "PYTHONWARNINGS": "error::ResourceWarning"}
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), how],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            _, errors = process.communicate(timeout=LIMIT_S)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)  # the children as well, which hold stderr open
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


def test_a_runner_works_after_an_event_loop_was_closed_in_the_middle_of_a_run() -> None:
    world, store = World(), MemoryStateStore()

    async def wait(data: Any) -> Any:
        if data == "wait":
            await asyncio.Event().wait()
        return data

    runner = Runner(
        pipeline(call("wait", CallableRef("x:wait", wait)), call("a", world.add("a"))), store=store
    )

    async def leave() -> None:
        asyncio.ensure_future(runner.run_result_async("wait", run_id="left"))  # noqa: RUF006 - left behind
        await asyncio.sleep(0.01)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave())
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0.01))
    loop.close()
    assert asyncio.run(runner.run_result_async("x")).output == "x"
    assert runner.run("y").output == "y"
    assert store.database.runs[next(iter(store.database.runs))].record.owner is None
    asyncio.run(runner.aclose())


@pytest.fixture
def elsewhere() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that runs in another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def test_closing_a_runner_releases_runs_of_other_event_loops(
    store: StateStore, elsewhere: asyncio.AbstractEventLoop
) -> None:
    waiting = threading.Event()

    async def wait(data: Any) -> None:
        waiting.set()
        await asyncio.Event().wait()

    runner = Runner(pipeline(call("wait", CallableRef("x:wait", wait))), store=store)
    running = asyncio.run_coroutine_threadsafe(runner.run_result_async(1, run_id="run"), elsewhere)
    assert await asyncio.to_thread(waiting.wait, 60)
    await asyncio.wait_for(asyncio.gather(runner.aclose(), runner.aclose()), 10)
    with pytest.raises(RunnerClosed):
        await asyncio.wrap_future(running)
    record = await store.find("run")
    assert (record.status, record.owner) == (RunStatus.RUNNING, None)
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(runner.aclose(), elsewhere))


async def test_two_event_loops_do_the_work_of_a_cached_step_once(
    elsewhere: asyncio.AbstractEventLoop,
) -> None:
    cache, order = AnswerCache(MemoryCache()), []

    async def other() -> None:
        async with cache.alone("key"):
            order.append("other")

    async with cache.alone("key"):
        waiting = asyncio.run_coroutine_threadsafe(other(), elsewhere)
        await asyncio.sleep(0.05)
        order.append("first")
    await asyncio.wrap_future(waiting)
    assert order == ["first", "other"]
