"""The clock for users' tests: sleeps, deadlines and limits of days pass in milliseconds, on each store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from flujo import Flujo, Pipeline, Step
from flujo.domain.run import RunStatus
from flujo.domain.steps import HumanInTheLoopStep, SleepStep
from flujo.exceptions import SettingsError
from flujo.state.sql.functions import julian_day
from flujo.state.store import SqlStateStore
from flujo.testing import TestClock

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.domain.store import StateStore

DAY_S = 86_400.0
Opened = Callable[[TestClock], Any]


@pytest.fixture(params=["memory", "sqlite"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Opened:
    """Return a function that opens a store which goes by a clock."""

    @asynccontextmanager
    async def opening(clock: TestClock) -> AsyncIterator[StateStore]:
        in_memory = request.param == "memory"
        store: StateStore = clock.memory_store() if in_memory else clock.sqlite_store(tmp_path / "state.db")
        try:
            yield store
        finally:
            await store.aclose()

    return opening


def sleeps(days: float = 3, **more: Any) -> Pipeline:
    return Pipeline(
        (SleepStep("wait", for_s=days * DAY_S), Step("double", lambda data: data * 2)), "p", **more
    )


async def test_a_run_sleeps_until_the_clock_is_advanced(opened: Opened) -> None:
    clock = TestClock()
    async with opened(clock) as store, Flujo(sleeps(), clock=clock, store=store, recovery=False) as runner:
        assert (await runner.run_result_async(2, run_id="run")).status is RunStatus.WAITING
        await clock.advance(days=2, hours=23)
        assert (await runner.resume_async("run")).status is RunStatus.WAITING
        await clock.advance(hours=1)
        assert (await runner.resume_async("run")).output == 4


@pytest.mark.parametrize("hours", [1, 7, 13, 0.1, 23.999])
async def test_a_wait_is_over_exactly_at_its_end(opened: Opened, hours: float) -> None:
    clock = TestClock(datetime(2026, 11, 29, 14, 3, 7, 123456, tzinfo=UTC))
    tree = sleeps(hours / 24)
    async with opened(clock) as store, Flujo(tree, clock=clock, store=store, recovery=False) as runner:
        await runner.run_result_async(2, run_id="run")
        await clock.advance(timedelta(seconds=hours / 24 * DAY_S))
        assert (await runner.resume_async("run")).success


async def test_a_question_expires_and_an_answer_before_that_counts(opened: Opened) -> None:
    asks = HumanInTheLoopStep("ask", message="ok?", deadline_s=DAY_S, on_deadline={"answer": "no"})
    for name, hours, expected in (("late", 24, "no"), ("early", 23, "yes")):
        clock = TestClock()
        tree = Pipeline(asks, "p")
        async with opened(clock) as store, Flujo(tree, clock=clock, store=store, recovery=False) as runner:
            assert (await runner.run_result_async(1, run_id=name)).status is RunStatus.PAUSED
            await clock.advance(hours=hours)
            given = () if name == "late" else ("yes",)
            assert (await runner.resume_async(name, *given)).output == expected


async def test_the_deadline_of_a_run_passes(opened: Opened) -> None:
    clock = TestClock()
    tree = sleeps(deadline_s=2 * DAY_S)
    async with opened(clock) as store, Flujo(tree, clock=clock, store=store, recovery=False) as runner:
        await runner.run_result_async(2, run_id="run")
        await clock.advance(days=3)
        result = await runner.resume_async("run")
        assert (result.status, result.error.code if result.error else "") == ("failed", "FLJ531")


async def test_a_clock_that_advances_by_itself_runs_through_all_waits() -> None:
    clock = TestClock(auto_advance=True)
    tree = Pipeline((SleepStep("week", for_s=7 * DAY_S), *sleeps(3).steps), "p")
    async with Flujo(tree, clock=clock, persist_state=False) as runner:
        assert (await runner.run_result_async(2)).output == 4
    assert clock.time == datetime(2026, 1, 11, tzinfo=UTC)


async def test_leases_keep_real_time(opened: Opened) -> None:
    clock = TestClock()
    held = asyncio.Event()

    async def holds(data: int) -> int:
        await clock.advance(days=1000)
        held.set()
        return data

    tree = Pipeline(Step("hold", holds), "p")
    async with opened(clock) as store, Flujo(tree, clock=clock, store=store) as runner:
        assert (await runner.run_result_async(1)).output == 1
    assert held.is_set()


async def test_sleepers_wake_in_the_order_of_their_times() -> None:
    clock, woken = TestClock(), list[tuple[str, float]]()

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, round(clock.monotonic())))

    tasks = [asyncio.create_task(sleeper(*each)) for each in (("c", 90), ("a", 10), ("b", 60))]
    await asyncio.sleep(0)
    await clock.advance(seconds=30)
    assert woken == [("a", 10)]
    await clock.advance(hours=1)
    await asyncio.gather(*tasks)
    assert woken == [("a", 10), ("b", 60), ("c", 90)]


async def test_a_clock_refuses_what_it_cannot_do(tmp_path: Path, postgres_uri: str) -> None:
    with pytest.raises(SettingsError, match="time zone"):
        TestClock(datetime(2026, 1, 1))  # noqa: DTZ001 - the mistake
    with pytest.raises(SettingsError, match="does not go back"):
        await TestClock().advance(days=-1)
    with pytest.raises(SettingsError, match="Postgres"):
        SqlStateStore(postgres_uri, now=TestClock().now)


@pytest.mark.parametrize("at", [0.0, 1_795_962_931.574994, 1_767_225_600.1, 4e9])
def test_a_time_becomes_the_first_day_that_is_not_before_it(at: float) -> None:
    reached = (julian_day(at) - 2440587.5) * 86400.0
    assert 0 <= reached - at < 5e-5
    assert julian_day(reached) == julian_day(at)
