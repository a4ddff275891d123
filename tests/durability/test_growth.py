"""A process holds the same resources after a thousand runs as after a few."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import tracemalloc
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flujo.services.runs.runner import Flujo
from flujo.state.store import SqlStateStore
from support import World, call, pipeline

if TYPE_CHECKING:
    from durability.conftest import Evidence

RUNS = int(os.environ.get("FLUJO_RUNS", "400"))
FIRST = 200
"""Enough runs to fill the bounded caches."""
PER_RUN_BYTES = 500
"""The allowed growth per run: the table of a set or dictionary doubles occasionally."""
CACHED_BYTES = 150_000
"""What the bounded caches hold: they were filled before, but with other objects."""


def _entries() -> int:
    """Return how many entries the containers of this process have together."""
    gc.collect()
    tracked = gc.get_objects()
    everything = (*tracked, *gc.get_referents(*tracked))  # a dictionary of numbers is not tracked itself
    containers = {id(each): each for each in everything if type(each) in (dict, set, list, deque)}
    return sum(map(len, containers.values()))


def _held() -> tuple[int, int, int]:
    """Return how many files, threads and tasks this process has open."""
    return len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), len(asyncio.all_tasks())


async def _runs(runner: Flujo[Any, Any, Any], first: int, last: int) -> None:
    for number in range(first, last, 20):
        ids = [f"run-{n}" for n in range(number, number + 20)]
        await asyncio.gather(*(runner.run_result_async(number, run_id=run_id) for run_id in ids))


@pytest.mark.guarantee("G26")
async def test_memory_files_and_threads_do_not_grow_with_the_number_of_runs(
    store_uri: str, evidence: Evidence
) -> None:
    world = World()
    tree = pipeline(*(call(name, world.add(name, lambda n: n + 1)) for name in "abcde"))
    store = await SqlStateStore.open(store_uri)
    async with Flujo[Any, Any, Any](tree, store=store, recovery=False) as runner:
        await _runs(runner, 0, FIRST)
        world.calls.clear()
        before, entries = _held(), _entries()
        tracemalloc.start()
        try:
            await _runs(runner, FIRST, FIRST + RUNS)
            assert len(world.calls) == 5 * RUNS
            world.calls.clear()
            gc.collect()
            grown, _ = tracemalloc.get_traced_memory()
            largest = tracemalloc.take_snapshot().statistics("lineno")[:8]
        finally:
            tracemalloc.stop()
        for more in range(1, 4):  # a cache that fills up once is not a leak: then the next runs add nothing
            added = _entries() - entries
            if added < RUNS / 2:
                break
            entries += added
            await _runs(runner, FIRST + more * RUNS, FIRST + (more + 1) * RUNS)
            world.calls.clear()
        assert added < RUNS / 2, "some container has an entry for each run"
        assert all(now <= then for now, then in zip(_held(), before, strict=True)), (_held(), before)
        assert grown < CACHED_BYTES + PER_RUN_BYTES * RUNS, "\n".join(map(str, largest))
        evidence.add(seeds=RUNS)
    await store.aclose()
