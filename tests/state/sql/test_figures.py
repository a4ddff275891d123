"""The cost of figures: they read the runs of their time, and the model calls of these runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from flujo.domain.figures import Every, FigureGroup, FigureQuery
from flujo.state.store import SqlStateStore

if TYPE_CHECKING:
    import sqlalchemy as sa


@pytest.mark.parametrize(
    ("by", "indexes"),
    [
        (FigureGroup.BLUEPRINT, ["runs runs_by_age"]),
        (FigureGroup.MODEL, ["runs runs_by_age", "used journal_by_usage", "journal journal_by_seq"]),
    ],
)
async def test_figures_read_indexes_and_no_whole_table(
    sqlite_uri: str, by: FigureGroup, indexes: list[str]
) -> None:
    store = await SqlStateStore.open(sqlite_uri)
    asked: list[tuple[str, Any]] = []

    @event.listens_for(store.database.engine, "before_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        asked.append((statement, parameters))

    await store.figures(FigureQuery(since=1e9, until=1e9 + 60, by=by, every=Every.HOUR))

    def explained(connection: sa.Connection) -> list[str]:
        return [
            row.detail
            for statement, parameters in [each for each in asked if "GROUP BY" in each[0]]
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]

    plan = await store.read(explained)
    read = [line for line in plan if line.split()[1] in ("runs", "used", "journal")]
    assert [
        re.sub(r"SEARCH (\w+) USING (COVERING )?INDEX (\w+) .*", r"\1 \3", line) for line in read
    ] == indexes
    await store.aclose()
