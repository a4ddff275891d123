"""Runs of every released version resume with this version of Flujo, on both databases."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from flujo.domain.run import RunQuery, RunStatus
from flujo.services.runs.runner import Flujo
from flujo.state.sql import migrations
from flujo.state.store import SqlStateStore
from histories.programs import ANSWER, CALLS, OUTPUT, history
from histories.restoring import recorded, restore

if TYPE_CHECKING:
    from pathlib import Path

    from flujo.domain.journal import RunId


@pytest.fixture(params=recorded("stopped"), ids=lambda path: path.stem)
def recorded_uri(request: pytest.FixtureRequest, empty_uri: str, tmp_path: Path) -> str:
    """A database with the recording of a version, migrated."""
    restore(request.param, empty_uri, tmp_path)
    migrations.migrate(empty_uri)
    return empty_uri


@pytest.mark.guarantee("G23")
async def test_runs_of_every_released_version_resume_to_the_same_result(recorded_uri: str) -> None:
    store = SqlStateStore(recorded_uri)
    records = await store.runs(RunQuery(limit=1000))
    found = {record.status for record in records}
    assert found == {RunStatus.RUNNING, RunStatus.PAUSED, RunStatus.INTERRUPTED, RunStatus.COMPLETED}
    for record in records:
        done = [entry for entry in await store.entries(record.run_id) if entry.output is not None]
        assert await _finished(store, record.run_id) == OUTPUT, record.run_id
        kept = await store.entries(record.run_id)
        assert [entry for entry in kept if entry in done] == done, "recorded entries stay unchanged"
    await store.aclose()


async def _finished(store: SqlStateStore, run_id: RunId) -> Any:
    """Resume and answer a run as needed, and return its output."""
    calls: list[str] = []
    async with Flujo[Any, Any, Any](history(calls), store=store) as runner:
        result = await runner.run_result_async(1, run_id=run_id)
        if result.status is RunStatus.PAUSED:
            asked = any(pause.is_open for pause in await store.pauses(run_id))
            result = await runner.resume_async(run_id, *([ANSWER] if asked else []))
    assert result.status is RunStatus.COMPLETED
    assert not Counter(calls) - Counter(CALLS), f"{run_id} executed more steps than a complete run"
    return result.output
