"""Runs that an older version stopped inside a map resume with this version, and can be purged."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from flujo.domain.run import PURGEABLE, RunQuery, RunStatus
from flujo.services.admin.purge import purge
from flujo.services.runs.runner import Flujo
from flujo.state.sql import migrations, tables
from flujo.state.store import SqlStateStore
from histories.programs import MAPS_CALLS, MAPS_INPUT, MAPS_OUTPUT, maps
from histories.restoring import recorded, restore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture(params=recorded("maps"), ids=lambda path: path.stem)
async def store(
    request: pytest.FixtureRequest, empty_uri: str, tmp_path: Path
) -> AsyncIterator[SqlStateStore]:
    """A store on the recording of a version, migrated."""
    restore(request.param, empty_uri, tmp_path)
    migrations.migrate(empty_uri)
    opened = SqlStateStore(empty_uri)
    yield opened
    await opened.aclose()


@pytest.mark.guarantee("G23")
@pytest.mark.parametrize("range_length", [4, 1000])
async def test_a_run_that_was_stopped_in_a_map_resumes_and_is_purged(
    store: SqlStateStore, range_length: int
) -> None:
    records = await store.runs(RunQuery(limit=1000))
    assert {record.status for record in records} == {RunStatus.RUNNING, RunStatus.COMPLETED}
    for record in records:
        before, calls = await store.entries(record.run_id), list[str]()
        async with Flujo[Any, Any, Any](maps(calls), store=store, range_length=range_length) as runner:
            result = await runner.run_result_async(MAPS_INPUT, run_id=record.run_id)
        assert result.output == MAPS_OUTPUT, record.run_id
        assert not Counter(calls) - Counter(MAPS_CALLS), f"{record.run_id} executed more than a complete run"
        after = await store.entries(record.run_id)
        assert after[: len(before)] == before, "recorded entries stay unchanged"
    assert (await purge(store, PURGEABLE, 0.0)).runs == len(records)
    assert not await store.read(_rows_of, tables.journal)
    assert not await store.read(_rows_of, tables.blobs)


def _rows_of(connection: sa.Connection, table: sa.Table) -> int:
    return int(connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0)
