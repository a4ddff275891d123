"""Runs cancelled at any await hold no resources, lose no step, and can be resumed at once."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

import anyio
import psycopg
import pytest

from flujo.state.store import SqlStateStore
from support import PROGRAMS, World, start

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from durability.conftest import Evidence
    from flujo.domain.ports import StateStore
    from support import Program

EVERY = int(os.environ.get("FLUJO_CRASH_EVERY", "0")) or 17
"""Cancel at each n-th await; `make soak` takes every one."""

Way = Literal["a task", "a cancel scope"]


class Watched:
    """A coroutine that calls back each time it is about to wait."""

    def __init__(self, work: Coroutine[Any, Any, Any], waits: Callable[[], None]) -> None:
        self._work, self._waits = work, waits

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._work.__await__()
        try:
            awaited = next(steps)
            while True:
                self._waits()
                try:
                    sent = yield awaited
                except BaseException as error:  # noqa: BLE001 - cancellation itself is passed on
                    awaited = steps.throw(error)
                else:
                    awaited = steps.send(sent)
        except StopIteration as end:
            return end.value


async def cancelled(work: Coroutine[Any, Any, Any], at: int, way: Way) -> bool:
    """Cancel `work` at the n-th await of its task and of the tasks that this one creates.

    Returns whether it got that far.
    """
    waits = count(1)
    scope = anyio.CancelScope()
    struck = False

    def wait() -> None:
        nonlocal struck
        if next(waits) != at:
            return
        struck = True
        if way == "a task":
            task.cancel()
        else:
            scope.cancel()

    async def run() -> None:
        if way == "a task":
            await Watched(work, wait)
        else:
            with scope:
                await Watched(work, wait)

    async def watched(part: Coroutine[Any, Any, Any]) -> Any:
        return await Watched(part, wait)

    def create(loop: asyncio.AbstractEventLoop, part: Coroutine[Any, Any, Any], **more: Any) -> Any:
        counted = watched(part) if asyncio.current_task() is task else part
        return asyncio.Task(counted, loop=loop, **more)

    task = asyncio.create_task(run())
    loop = asyncio.get_running_loop()
    loop.set_task_factory(create)  # type: ignore[arg-type]  # a coroutine is all that a task gets here
    try:
        await asyncio.wait([task])
    finally:
        loop.set_task_factory(None)
    if not task.cancelled():
        task.result()
    return struck


async def cancel_and_resume(program: Program, store: StateStore, at: int, way: Way) -> tuple[bool, list[str]]:
    """Cancel a run and resume it in another runner; return whether it was cancelled, and the violations."""
    world, run_id = World(), f"cancelled-{at}"
    before = asyncio.all_tasks()
    struck = await cancelled(start(program.build(world), store, 1, run_id=run_id), at, way)
    left = asyncio.all_tasks() - before
    if left:
        # A scope cancels again until its block is left, so the last write may still be in progress; unlike a
        # leak, it ends without help.
        _, left = await asyncio.wait(left, timeout=60)
    asked = Counter(world.calls)
    result = await start(program.build(world), store, 1, run_id=run_id)
    again = Counter(world.calls) - Counter(program.calls)
    checks = {
        "tasks left": ([str(task.get_coro()) for task in left], []),
        "the output": (result.output, program.output),
        "calls that are missing": (Counter(program.calls) - Counter(world.calls), Counter()),
        "calls again beyond those in flight": (max(0, again.total() - program.in_flight), 0),
        "calls again that had not begun": (again - asked, Counter()),
    }
    return struck, [f"{way}, await {at}: {what}: {a}, not {b}" for what, (a, b) in checks.items() if a != b]


def locks(store: StateStore) -> list[str]:
    """Return the locks that would block another writer."""
    if not isinstance(store, SqlStateStore):
        return []
    url = store.database.url
    if url.get_backend_name() == "sqlite":
        connection = sqlite3.connect(str(url.database), timeout=0, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            return [str(error)]
        finally:
            connection.close()
        return []
    uri = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(uri, autocommit=True) as postgres:
        found = postgres.execute(
            "SELECT state FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND state <> 'idle'"
        ).fetchall()
    return [str(state) for (state,) in found]


@pytest.mark.guarantee("G10")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["everything", "together"])
@pytest.mark.parametrize("way", ["a task", "a cancel scope"])
async def test_a_run_cancelled_at_any_await_holds_no_resources_and_can_be_resumed(
    store: StateStore, name: str, way: Way, evidence: Evidence
) -> None:
    cancels = 0
    for at in count(min(2, EVERY), EVERY):
        struck, violations = await cancel_and_resume(PROGRAMS[name], store, at, way)
        if not struck:
            break
        cancels += 1
        violations += locks(store)
        evidence.add(faults=1, violations=violations)
        assert violations == []
    assert cancels, "the run did wait"
