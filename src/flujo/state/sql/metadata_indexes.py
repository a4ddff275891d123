"""Indexes of SQLite on the keys of metadata that a project names; Postgres has one index of all keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from flujo.state.sql.database import Database

PREFIX = "runs_by_metadata_"


def value_at(path: Sequence[str], indexed: Collection[str]) -> sa.ColumnElement[object] | None:
    """Return the value under nested keys as its index has it; None when they have no index.

    SQLite uses an index on an expression only where a statement contains the same expression, so the path is
    a part of the statement. It is one that the project's settings name, and `METADATA_KEY` needs no quoting.
    """
    return sa.literal_column(_expression(path)) if ".".join(path) in indexed else None


def ensure(database: Database) -> None:
    """Create the indexes that a SQLite file lacks. A large file takes a second for 500,000 runs."""
    if not database.indexed_metadata:
        return
    with database.reading() as connection:
        there = {row.name for row in connection.execute(_NAMES)}
    missing = [key for key in database.indexed_metadata if PREFIX + key not in there]
    if not missing:
        return
    with database.writing() as connection:
        for key in missing:
            columns = f"{_expression(key.split('.'))}, created_at"
            connection.execute(sa.text(f'CREATE INDEX IF NOT EXISTS "{PREFIX}{key}" ON runs ({columns})'))


def _expression(path: Sequence[str]) -> str:
    keys = "".join(f'."{key}"' for key in path)
    return f"json_extract(metadata, '${keys}')"


_NAMES = sa.text("SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'runs'").columns(
    sa.column("name", sa.Text())
)
