"""Queues and schedules on a simulated clock, while workers die, freeze, lose their database and have wrong clocks."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest

from durability.simulated_queues import QueueSimulation
from flujo.domain.queues import QueueLimits
from flujo.domain.run import RunStatus
from flujo.domain.schedule_records import ScheduleChange, ScheduleOutcome
from flujo.domain.schedules import run_id_of
from flujo.state import schedule_rules
from flujo.state.memory_store import MemoryStateStore

if TYPE_CHECKING:
    from pathlib import Path

    from durability.conftest import Evidence

SEEDS = int(os.environ.get("FLUJO_SIM_SEEDS", "80"))
FIRST = int(os.environ.get("FLUJO_SIM_SEED", "0"))
"""The first seed: a failure prints `FLUJO_SIM_SEED=n FLUJO_SIM_SEEDS=1`, which repeats it alone."""


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="flujo")  # an unavailable database is part of the test


@pytest.mark.timeout(3600)
@pytest.mark.guarantee("G4", "G5", "G17")
def test_queued_and_scheduled_runs_complete_within_their_limits_whatever_crashes(
    tmp_path: Path, evidence: Evidence
) -> None:
    for seed in range(FIRST, FIRST + max(1, SEEDS // 4)):
        simulation = QueueSimulation(seed, tmp_path)
        found = simulation.run()
        violations = [f"FLUJO_SIM_SEED={seed} FLUJO_SIM_SEEDS=1: {wrong}" for wrong in found]
        evidence.add(faults=simulation.faults, seeds=1, violations=violations)
        assert not violations, violations


def _found(folder: Path, says: str, most: int = 300) -> bool:
    """Return whether a bug shows in one of so many seeds, with these words."""
    return any(says in wrong for seed in range(most) for wrong in QueueSimulation(seed, folder).run())


def test_a_queue_whose_concurrency_is_not_counted_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = QueueLimits.room
    monkeypatch.setattr(QueueLimits, "room", lambda self, _, started: room(self, 0, started))
    assert _found(tmp_path, "runs are executed at once")


def test_a_queue_whose_rate_is_not_counted_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = QueueLimits.room
    monkeypatch.setattr(QueueLimits, "room", lambda self, running, _: room(self, running, 0))
    assert _found(tmp_path, "runs were started within 60 s")


def test_a_queue_that_forgets_its_keys_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    next_of = MemoryStateStore._next_of

    def any_key(self: MemoryStateStore, name: str, limits: QueueLimits, order: Any) -> Any:
        return next_of(self, name, replace(limits, one_per_key=False), order)

    monkeypatch.setattr(MemoryStateStore, "_next_of", any_key)
    assert _found(tmp_path, "at once")


def test_a_run_that_is_left_to_its_dead_worker_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def for_ever(_: MemoryStateStore, stored: Any) -> bool:
        return stored.record.status is RunStatus.RUNNING and stored.record.owner is not None

    monkeypatch.setattr("durability.simulated_queues.PATIENCE_S", 1200.0)
    monkeypatch.setattr(MemoryStateStore, "_is_held", for_ever)
    assert _found(tmp_path, "stuck")


def test_a_schedule_that_moves_on_before_its_run_is_accepted_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_schedule = MemoryStateStore.change_schedule

    async def in_two_commits(self: MemoryStateStore, change: ScheduleChange) -> Any:
        moved = await change_schedule(self, replace(change, run=None))
        if change.run is not None and moved.outcome is ScheduleOutcome.DONE:
            await asyncio.sleep(20)  # during which the worker may die
            await self.accept(change.run, change.blobs, claim=False)
        return moved

    monkeypatch.setattr(MemoryStateStore, "change_schedule", in_two_commits)
    assert _found(tmp_path, "were never fired")


@pytest.mark.parametrize("is_compared", [True, False])
def test_a_time_that_two_workers_fire_is_caught(
    is_compared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id of a run and the comparison both keep a time from being fired twice; one of them is enough."""
    numbers, judged = count(), schedule_rules.judged

    def without_comparison(change: ScheduleChange, _: Any, blocker: Any) -> Any:
        return judged(change, change.before, blocker)

    monkeypatch.setattr(
        "flujo.services.runs.schedules.run_id_of", lambda *of: f"{run_id_of(*of)}-{next(numbers)}"
    )
    if not is_compared:
        monkeypatch.setattr(schedule_rules, "judged", without_comparison)
    assert _found(tmp_path, "was fired 2 times", most=6 if is_compared else 300) is not is_compared


def test_a_time_that_does_not_wait_for_the_run_before_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule_rules, "blocker", lambda *_: None)
    assert _found(tmp_path, "had ended")


def test_the_same_seed_gives_the_same_simulation(tmp_path: Path) -> None:
    def trace(seed: int) -> tuple[Any, ...]:
        simulation = QueueSimulation(seed, tmp_path)
        simulation.run()
        return simulation.loop.time(), simulation.effects, simulation.faults, simulation.starts

    for seed in range(3):
        assert trace(seed) == trace(seed)
