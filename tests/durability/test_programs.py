"""Random programs on real workers that are killed, frozen and disconnected reach the result known beforehand."""

from __future__ import annotations

import asyncio
import os
import time
from random import Random
from typing import TYPE_CHECKING

import pytest

from durability.fleet import Fleet, Programs
from flujo.state.store import SqlStateStore

if TYPE_CHECKING:
    from pathlib import Path

    from durability.conftest import Evidence
    from durability.world import World

PROGRAMS = int(os.environ.get("FLUJO_PROGRAMS", "8"))
FIRST = int(os.environ.get("FLUJO_PROGRAM", "1"))
"""The first seed: a failure prints `FLUJO_PROGRAM=n`; with `FLUJO_PROGRAMS=1` it is tried alone."""
AT_ONCE = 20
WORKERS = 3
TROUBLE_S = 6.0 if PROGRAMS > AT_ONCE else 3.0
"""For how long workers are killed and frozen, for each batch of programs."""
PATIENCE_S = 180.0


class StuckError(AssertionError):
    """No run has progressed for a long time; the message holds all known facts."""


async def until_calm(
    fleet: Fleet, programs: Programs, *, workers: int, trouble_s: float, patience_s: float = PATIENCE_S
) -> None:
    """Inject faults for a while, answer open questions, and return when every run has ended.

    Raises:
        StuckError: no run has progressed for `patience_s`.
    """
    began = moved_at = time.monotonic()
    before = await programs.progress()
    while before[2] < len(fleet.seeds):
        if time.monotonic() - began < trouble_s:
            fleet.trouble()
        else:
            fleet.wake()
        fleet.start(workers)
        await programs.answer()
        await asyncio.sleep(0.15)
        now = await programs.progress()
        if now != before:
            before, moved_at = now, time.monotonic()
        elif time.monotonic() - moved_at > patience_s:
            raise StuckError(f"no run progresses:\n{await programs.diagnostics()}\n{fleet.diagnostics()}")
    fleet.wake()


@pytest.mark.guarantee("G1", "G2", "G4", "G5", "G13", "G17")
@pytest.mark.timeout(14400)
async def test_random_programs_reach_their_known_result_whatever_happens_to_their_workers(
    store_uri: str, tmp_path: Path, outside: World, evidence: Evidence
) -> None:
    store = await SqlStateStore.open(store_uri)
    for first in range(FIRST, FIRST + PROGRAMS, AT_ONCE):
        seeds = range(first, min(first + AT_ONCE, FIRST + PROGRAMS))
        programs = Programs(store, outside, seeds)
        await programs.submit(tmp_path)
        with Fleet(tmp_path, store_uri, seeds, Random(first)) as fleet:
            await until_calm(fleet, programs, workers=WORKERS, trouble_s=TROUBLE_S)
        violations = await programs.wrong()
        evidence.add(faults=fleet.faults.total(), seeds=len(seeds), violations=violations)
        assert violations == []
    await store.aclose()


async def test_a_stuck_run_is_reported_with_all_known_facts(
    store_uri: str, tmp_path: Path, outside: World
) -> None:
    store = await SqlStateStore.open(store_uri)
    programs = Programs(store, outside, [FIRST])
    await programs.submit(tmp_path)
    fleet = Fleet(tmp_path, store_uri, [FIRST], Random(0))
    with fleet, pytest.raises(StuckError, match=f"run-{FIRST}: accepted, fence 0"):
        await until_calm(fleet, programs, workers=0, trouble_s=0, patience_s=0.5)
    await store.aclose()
