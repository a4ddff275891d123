from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from flujo.agents.thread_pool import ThreadPool
from flujo.domain.executor import CodeExit

request_id = contextvars.ContextVar("request_id", default="none")


async def test_work_runs_in_a_daemon_thread_with_the_context_variables_of_its_caller() -> None:
    request_id.set("r-1")

    def work() -> tuple[bool, str]:
        seen = request_id.get()
        request_id.set("changed")
        return threading.current_thread().daemon, seen

    assert await ThreadPool().submit(work) == (True, "r-1")
    assert request_id.get() == "r-1"


async def test_the_pool_never_runs_more_threads_than_its_size() -> None:
    pool = ThreadPool(size=3)
    running, most, lock = 0, 0, threading.Lock()
    barrier = threading.Barrier(3)

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        barrier.wait(timeout=60)
        with lock:
            running -= 1

    await asyncio.gather(*(pool.submit(work) for _ in range(12)))
    assert most == 3


async def test_a_hung_thread_is_abandoned_and_replaced() -> None:
    pool = ThreadPool(size=1)
    release, late = threading.Event(), []

    def hang() -> str:
        release.wait()
        late.append(True)
        return "too late"

    hung = asyncio.create_task(pool.submit(hang))
    await asyncio.sleep(0.01)
    hung.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hung
    assert await pool.submit(lambda: "next") == "next"
    assert not late
    release.set()
    assert await pool.submit(lambda: "and another") == "and another"


async def test_work_that_waits_for_a_thread_and_is_cancelled_never_runs() -> None:
    pool = ThreadPool(size=1)
    release, ran = threading.Event(), []
    first = asyncio.create_task(pool.submit(release.wait))
    waiting = asyncio.create_task(pool.submit(lambda: ran.append(True)))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait([waiting])
    release.set()
    await first
    assert await pool.submit(lambda: "next") == "next"
    assert ran == []


@pytest.mark.parametrize("error", [ValueError("no"), StopIteration("end"), SystemExit(3)])
async def test_an_exception_of_the_work_reaches_only_its_caller(error: BaseException) -> None:
    def work() -> None:
        raise error

    with pytest.raises((ValueError, CodeExit)) as caught:
        await ThreadPool().submit(work)
    assert error in (caught.value, caught.value.__cause__)


def test_a_thread_that_never_ends_does_not_block_the_end_of_the_loop() -> None:
    release = threading.Event()

    async def main() -> None:
        task = asyncio.create_task(ThreadPool().submit(release.wait))
        await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(main())  # returns although the thread still waits
    assert not release.is_set()
    release.set()
