"""A branch that waits frees every place around it, and the limits of concurrency hold all the same."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.retry import RetryPolicy
from flujo.domain.steps import CachePolicy, CallableRef, Expr, MapStep, ParallelStep, StepConfig
from flujo.services.runs.runner import Flujo
from flujo.state.memory_cache import MemoryCache
from flujo.state.memory_store import MemoryStateStore
from flujo.testing.simulation import SimulatedClock, SimulatedLoop, simulate
from support import call, pipeline

if TYPE_CHECKING:
    from flujo.domain.models import PipelineResult
    from flujo.domain.pipeline import Pipeline

WORK_S, WAIT_S = 1.0, 100.0
RETRYING = StepConfig(max_retries=3, retry=RetryPolicy(backoff="fixed", initial_s=WAIT_S, jitter=0))


class Leaves:
    """Leaf steps that fail a number of times, and what executes at each level at one time."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self._attempts: Counter[str] = Counter()
        self._failures: dict[str, int] = {}
        self._executing: set[tuple[str, ...]] = set()
        self.most: Counter[int] = Counter()

    async def work(self, *place: str) -> str:
        """Execute the leaf at a place such as `("2", "x", "b")`."""
        name = "".join(place)
        failures = self._failures.setdefault(name, self._loop.chance.randint(0, 2))
        self._attempts[name] += 1
        self._executing.add(place)
        self._count()
        await asyncio.sleep(WORK_S)
        self._executing.remove(place)
        if self._attempts[name] <= failures:
            raise ConnectionError(f"no {name}")
        return name

    def _count(self) -> None:
        for level in range(3):
            inside = Counter(above[:level] for above in {each[: level + 1] for each in self._executing})
            self.most[level] = max(self.most[level], *inside.values())

    @property
    def work_s(self) -> float:
        """How long all attempts took together."""
        return sum(self._attempts.values()) * WORK_S

    @property
    def longest_wait_s(self) -> float:
        """How long the leaf that failed most often waited."""
        return max(self._failures.values()) * WAIT_S


def run(tree: Pipeline, value: Any, loop: SimulatedLoop, cache: MemoryCache | None = None) -> Any:
    async def go() -> PipelineResult[Any, Any]:
        clock = SimulatedClock(loop)
        runner = Flujo[Any, Any, Any](tree, store=MemoryStateStore(), clock=clock, cache=cache)
        async with runner, asyncio.timeout(1e6):
            return await runner.run_result_async(value)

    result = simulate(0, go(), loop=loop)
    assert result.error is None
    return result.output


@pytest.mark.parametrize("limits", [(1, 1, 1), (2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 1, 2), (2, 2, 2)])
@pytest.mark.parametrize("seed", range(6))
def test_waits_overlap_and_no_limit_is_exceeded(seed: int, limits: tuple[int, int, int]) -> None:
    loop = SimulatedLoop(seed)
    leaves = Leaves(loop)

    def branch(name: str) -> Pipeline:
        async def work(data: str) -> str:
            return await leaves.work(data[0], name, data[1])

        leaf = call("leaf", CallableRef("x:work", work), config=RETRYING)
        inner = MapStep(name="inner", over=Expr("previous"), body=pipeline(leaf), max_concurrency=limits[2])
        return pipeline(inner)

    both = ParallelStep(
        name="both", branches={name: branch(name) for name in "xy"}, max_concurrency=limits[1]
    )
    outer = MapStep(name="outer", over=Expr("input"), body=pipeline(both), max_concurrency=limits[0])
    items = [[f"{number}{letter}" for letter in "abc"] for number in range(4)]
    output = run(pipeline(outer), items, loop)
    assert output == [
        {name: [f"{number}{name}{letter}" for letter in "abc"] for name in "xy"} for number in range(4)
    ]
    assert all(leaves.most[level] <= limits[level] for level in range(3)), leaves.most
    # One place at a time would add up all waits. Here the work of one overlaps the waits of the others.
    assert loop.time() <= leaves.work_s + leaves.longest_wait_s


def test_an_item_that_works_beside_a_waiting_branch_keeps_its_place() -> None:
    loop = SimulatedLoop(1)
    order: list[str] = []

    async def fails_once(data: str) -> str:
        order.append(f"{data} fails")
        if order.count(f"{data} fails") == 1:
            raise ConnectionError("once")
        return data

    async def works(data: str) -> str:
        order.append(f"{data} works")
        await asyncio.sleep(2 * WAIT_S)
        return data

    branches = {
        "fails": pipeline(call("fails", CallableRef("x:fails", fails_once), config=RETRYING)),
        "works": pipeline(call("works", CallableRef("x:works", works))),
    }
    body = pipeline(ParallelStep(name="both", branches=branches))
    run(pipeline(MapStep(name="m", over=Expr("input"), body=body, max_concurrency=1)), ["a", "b"], loop)
    assert [each[0] for each in order] == ["a"] * 3 + ["b"] * 3


@pytest.mark.parametrize("seed", range(4))
def test_items_with_one_cache_key_never_block_each_other(seed: int) -> None:
    loop = SimulatedLoop(seed)
    calls = 0

    async def fails_twice(data: str) -> str:
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise ConnectionError("twice")
        return data

    fails_twice.cache_key = "one"  # type: ignore[attr-defined]  # its count is not compared
    leaf = call("leaf", CallableRef("x:work", fails_twice), config=RETRYING, cache=CachePolicy())
    step = MapStep(name="m", over=Expr("input"), body=pipeline(leaf), max_concurrency=1)
    assert run(pipeline(step), ["a"] * 4, loop, MemoryCache()) == ["a"] * 4
    assert calls == 3
