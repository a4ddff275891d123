"""Indexes of SQLite on keys of metadata: a list uses them, and finds the same runs as without them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from flujo.domain.journal import RunId
from flujo.domain.run import RunQuery
from flujo.exceptions import SettingsError
from flujo.state.sql import metadata_indexes
from flujo.state.store import SqlStateStore
from flujo.testing.store_suite import new_run

if TYPE_CHECKING:
    from pathlib import Path

KEYS = ("customer", "order.total")
VALUES: list[Any] = ["ada", "bob", 3, 3.5, True, None, "3"]
WANTED: list[dict[str, Any]] = [
    {"customer": "ada"},
    {"customer": ["bob", 3]},
    {"customer": None},
    {"customer": True},
    {"customer": {"!=": "ada"}},
    {"customer": {">": 3}},
    {"order": {"total": 5}},
    {"order": {"total": {">=": 3}}, "customer": ["ada", "bob", 3.5]},
]


async def _fill(store: SqlStateStore) -> None:
    for number, value in enumerate(VALUES):
        metadata = {"customer": value, "order": {"total": number}}
        await store.accept(replace(new_run(metadata=metadata), run_id=RunId(f"r{number}")), {})


def _plan(store: SqlStateStore, statement: str, parameters: Any) -> str:
    with store.database.reading() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    return " ".join(str(row) for row in rows)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/state.db"


async def test_a_list_with_an_index_finds_the_same_runs(uri: str) -> None:
    plain = SqlStateStore(uri)
    await _fill(plain)
    without = [[each.run_id for each in await plain.runs(RunQuery(metadata=wanted))] for wanted in WANTED]
    await plain.aclose()
    indexed = SqlStateStore(uri, indexed_metadata=KEYS)
    await indexed.claim(RunId("r0"), statuses=[(await indexed.run(RunId("r0"))).status])
    having = [[each.run_id for each in await indexed.runs(RunQuery(metadata=wanted))] for wanted in WANTED]
    await indexed.aclose()
    assert having == without
    assert having[0] == ["r0"]
    assert all(having)


async def test_a_list_uses_the_index_of_a_file_that_existed_before(uri: str) -> None:
    plain = SqlStateStore(uri)
    await _fill(plain)
    await plain.aclose()
    store = SqlStateStore(uri, indexed_metadata=KEYS)
    await store.accept(replace(new_run(), run_id=RunId("new")), {})
    heard: list[tuple[str, Any]] = []
    sa.event.listen(
        store.database.engine,
        "before_cursor_execute",
        lambda _connection, _cursor, statement, parameters, *_: heard.append((statement, parameters)),
    )
    for wanted, key in ((WANTED[0], KEYS[0]), (WANTED[1], KEYS[0]), (WANTED[6], KEYS[1])):
        await store.runs(RunQuery(metadata=wanted))
        assert metadata_indexes.PREFIX + key in _plan(store, *heard[-1])
    await store.aclose()


@pytest.mark.parametrize("key", ["a b", "a'", '"', "", "a..b", "a.", "x" * 64])
def test_a_key_that_is_not_an_identifier_is_refused(key: str, tmp_path: Path) -> None:
    from flujo.services.project.project import find_project

    (tmp_path / "flujo.toml").write_text(f"[state]\nindexed_metadata = ['''{key}''']\n")
    with pytest.raises(SettingsError, match="indexed_metadata"):
        _ = find_project(tmp_path).settings
