"""Hostile conditions: values of the caller are bound, and never become part of a statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from flujo.domain.paths import StepPath
from flujo.domain.run import RunCursor, RunOrder, RunQuery
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import new_run

if TYPE_CHECKING:
    from collections.abc import Sequence

MARK = "zqx7"


async def test_no_statement_contains_the_values_of_a_caller(store_uri: str) -> None:
    store = SqlStateStore(store_uri)
    await store.accept(new_run(metadata={MARK: f"{MARK}' OR 1=1 --"}, user_id=f'{MARK}"'), {})
    statements: list[str] = []

    def hear(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    sa.event.listen(store.database.engine, "before_cursor_execute", hear)
    wanted: Sequence[RunQuery] = [
        RunQuery(metadata={MARK: f"{MARK}' OR 1=1 --"}),
        RunQuery(user_id=f'{MARK}"'),
        RunQuery(metadata={MARK: None}),
        RunQuery(pipeline=f"{MARK}; DROP TABLE runs"),
        RunQuery(metadata={MARK: [f"{MARK}' OR 1=1 --", None]}),
        RunQuery(metadata={MARK: {">": f"{MARK}'", "!=": f"{MARK}"}}),
        RunQuery(metadata={MARK: {MARK: {"<": 1}}}),
        RunQuery(pause=StepPath(f"{MARK}' OR 1=1 --")),
        RunQuery(after=RunCursor(RunOrder.NEWEST, 0.0, f"{MARK}' OR 1=1 --")),
    ]
    assert [len(await store.runs(query)) for query in wanted] == [1, 1, 0, 0, 1, 1, 0, 0, 0]
    assert len(statements) >= len(wanted)
    assert not [statement for statement in statements if MARK in statement]
    await store.aclose()
