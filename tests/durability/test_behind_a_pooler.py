"""Workers behind a real PgBouncer are killed, frozen and disconnected: other workers still take over their runs."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest

from durability.fleet import Fleet, Programs
from durability.test_programs import AT_ONCE, FIRST, PROGRAMS, WORKERS, until_calm
from flujo.domain.journal import RunId
from flujo.state.sql import migrations
from flujo.state.store import SqlStateStore

if TYPE_CHECKING:
    from pathlib import Path

    from durability.conftest import Evidence
    from durability.world import World

TROUBLE_S = 4.0
"""For how long workers are disturbed. Two server connections serve all of them, the test, and frozen workers."""


@pytest.mark.guarantee("G2", "G13", "G15")
@pytest.mark.timeout(14400)
async def test_a_run_of_a_killed_worker_behind_a_pooler_is_completed_by_another_worker(
    pooled_uri: str, tmp_path: Path, outside: World, evidence: Evidence
) -> None:
    migrations.migrate(pooled_uri)
    store, claims = await SqlStateStore.open(pooled_uri), 0
    for first in range(FIRST, FIRST + PROGRAMS, AT_ONCE):
        seeds = range(first, min(first + AT_ONCE, FIRST + PROGRAMS))
        programs = Programs(store, outside, seeds)
        await programs.submit(tmp_path)
        with Fleet(tmp_path, pooled_uri, seeds, Random(first)) as fleet:
            await until_calm(fleet, programs, workers=WORKERS, trouble_s=TROUBLE_S)
        violations = await programs.wrong()
        evidence.add(faults=fleet.faults.total(), seeds=len(seeds), violations=violations)
        assert violations == []
        claims += sum([(await store.run(RunId(f"run-{seed}"))).fence for seed in seeds])
    assert claims > PROGRAMS, "no run was taken over"
    await store.aclose()
