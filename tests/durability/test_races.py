"""Processes race to answer the same questions and resume the same runs: each has exactly one winner."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from durability.racers import race
from durability.racing_program import QUESTION, pipeline, run_id
from flujo.domain import canonical
from flujo.domain.run import RunStatus
from flujo.state.store import SqlStateStore
from support import start

if TYPE_CHECKING:
    from durability.conftest import Evidence

PROGRAM = Path(__file__).with_name("racing_program.py")
IS_LONG = "FLUJO_KILLS" in os.environ
RACERS, RUNS = (8, 300) if IS_LONG else (4, 15)


@pytest.mark.guarantee("G4")
@pytest.mark.timeout(1800)
async def test_each_run_has_one_winner_among_processes_that_answer_and_resume_it(
    store_uri: str, evidence: Evidence
) -> None:
    store = await SqlStateStore.open(store_uri)
    for number in range(RUNS):
        assert (await start(pipeline(), store, run_id=run_id(number))).status is RunStatus.PAUSED
    found = race(PROGRAM, RACERS, store_uri, str(RUNS))
    evidence.add(faults=(RACERS - 1) * RUNS)
    won = {number: name for name, what in found.items() for number in what["answered"]}
    assert sorted(n for what in found.values() for n in what["answered"]) == list(range(RUNS))
    assert sorted(n for what in found.values() for n in what["ended"]) == list(range(RUNS))
    for number in range(RUNS):
        record, [pause] = await store.run(run_id(number)), await store.pauses(run_id(number))
        said = canonical.encode(won[number])
        assert (record.status, record.output) == (RunStatus.COMPLETED, said)
        assert (pause.pause_id, pause.answer) == (QUESTION, said)
    await store.aclose()
