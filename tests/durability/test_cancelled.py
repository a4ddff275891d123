"""Runs whose task is cancelled at any await: nothing is held, nothing is lost, and anybody goes on at once."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections import Counter
from itertools import count
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from flujo.state.store import SqlStateStore
from support import PROGRAMS, World, start

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from durability.conftest import Evidence
    from support import Program

EVERY = int(os.environ.get("FLUJO_CRASH_EVERY", "0")) or 7
"""Cancel at each n-th await; `make soak` takes every one."""


class Watched:
    """A coroutine whose caller is told each time it is about to wait."""

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


async def cancelled(work: Coroutine[Any, Any, Any], at: int) -> bool:
    """Cancel `work` at its n-th await; return whether it came that far."""
    waits = count(1)
    struck = False

    def wait() -> None:
        nonlocal struck
        if next(waits) == at:
            struck = task.cancel()

    async def run() -> None:
        await Watched(work, wait)

    task = asyncio.create_task(run())
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()
    return struck


async def go_through(program: Program, store: SqlStateStore, at: int) -> tuple[bool, list[str]]:
    """Cancel a run, go on with it in another runner; return whether it was, and what was wrong."""
    world, run_id = World(), f"cancelled-{at}"
    before = asyncio.all_tasks()
    struck = await cancelled(start(program.build(world), store, 1, run_id=run_id), at)
    left = asyncio.all_tasks() - before
    if left:
        # What closes the runner may still be under way; unlike a leak it ends by itself.
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
    return struck, [f"await {at}: {what}: {a}, not {b}" for what, (a, b) in checks.items() if a != b]


def locks(store: SqlStateStore) -> list[str]:
    """Return what would make another writer wait."""
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
async def test_a_run_that_is_cancelled_at_any_await_holds_nothing_and_goes_on(
    store_uri: str, name: str, evidence: Evidence
) -> None:
    store, cancels = SqlStateStore(store_uri), 0
    for at in count(min(2, EVERY), EVERY):
        struck, violations = await go_through(PROGRAMS[name], store, at)
        if not struck:
            break
        cancels += 1
        violations += locks(store)
        evidence.add(faults=1, violations=violations)
        assert violations == []
    await store.aclose()
    assert cancels * EVERY > len(PROGRAMS[name].calls) // 2, "a run waits for most of what it records"
