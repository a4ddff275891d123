"""Databases of an older version: its schema and rows, on SQLite and on Postgres."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from flujo.state.sql import migrations
from flujo.state.sql.database import Database, parse

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent


def recorded(folder: str) -> list[Path]:
    """Return the recordings of every version, oldest first."""
    return sorted((HERE / folder).glob("*.sql"))


def restore(recording: Path, uri: str, place: Path) -> None:
    """Fill an empty database with the recording of a version, in the schema of that version.

    Args:
        recording: the SQL of a SQLite database.
        uri: the database to fill.
        place: a folder for an intermediate copy for Postgres.
    """
    postgres = uri.startswith("postgres")
    file = place / "recorded.db" if postgres else Path(str(parse(uri).database))
    file.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(recording.read_text("utf-8"))
        [(revision,)] = connection.execute("SELECT version_num FROM alembic_version")
    if postgres:
        change_schema(uri, command.upgrade, revision)
        _copy(f"sqlite:///{file}", uri)


def change_schema(uri: str, change: Callable[[Config, str], None], revision: str) -> None:
    """Upgrade or downgrade a database to a revision."""
    database = Database(uri)
    with migrations.exclusively(database) as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(migrations.scripts()))
        change(config, revision)
    database.dispose()


def _copy(source: str, target: str) -> None:
    """Copy the rows of every table, with the tables reflected from the databases."""
    old, new = Database(source), Database(target)
    with old.reading() as reading, new.writing() as writing:
        there, here = sa.MetaData(), sa.MetaData()
        there.reflect(reading)
        here.reflect(writing, schema="flujo")
        for table in here.sorted_tables:
            if table.name in ("alembic_version", "schema_info"):
                continue  # the migrations write them
            rows: list[dict[str, Any]] = [
                dict(row) for row in reading.execute(sa.select(there.tables[table.name])).mappings()
            ]
            if rows:
                writing.execute(table.insert(), rows)
    old.dispose()
    new.dispose()
