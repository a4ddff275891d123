"""Processes answer the same approvals at once: each has one winner, and its call is made once or not at all."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from durability.approving_program import pipeline, run_id
from durability.racers import race
from flujo import Flujo
from flujo.domain import canonical
from flujo.domain.run import RunStatus
from flujo.state.store import SqlStateStore

if TYPE_CHECKING:
    from durability.conftest import Evidence

PROGRAM = Path(__file__).with_name("approving_program.py")
RACERS, APPROVALS = (8, int(os.environ["FLUJO_APPROVALS"])) if "FLUJO_APPROVALS" in os.environ else (4, 16)


@pytest.mark.guarantee("G4")
@pytest.mark.timeout(1800)
async def test_each_approval_has_one_winner_and_its_effect_fires_once(
    store_uri: str, tmp_path: Path, evidence: Evidence
) -> None:
    ledger = tmp_path / "ledger"
    ledger.touch()
    store = await SqlStateStore.open(store_uri)
    async with Flujo(pipeline(str(ledger)), store=store) as runner:
        for number in range(APPROVALS):
            paused = await runner.run_result_async(run_id(number), run_id=run_id(number))
            assert paused.status is RunStatus.PAUSED
    found = race(PROGRAM, RACERS, store_uri, str(APPROVALS), str(ledger))
    evidence.add(faults=(RACERS - 1) * APPROVALS)
    won = {number: name for name, numbers in found.items() for number in numbers}
    assert sorted(number for numbers in found.values() for number in numbers) == list(range(APPROVALS))
    made = Counter(ledger.read_text("utf-8").split())
    assert made == {run_id(number): 1 for number, name in won.items() if int(name) % 2 == 0}
    for number in range(APPROVALS):
        record, [pause] = await store.run(run_id(number)), await store.pauses(run_id(number))
        answer = canonical.decode(pause.answer or b"null")
        assert (record.status, pause.by, answer["reason"]) == (
            RunStatus.COMPLETED,
            won[number],
            won[number],
        )
        assert len(await store.acts(run_id(number))) == 1
    await store.aclose()
