"""Kills a migration at every statement and repeats it: a script, because only a single-threaded process may fork.

    python crash_migration.py URI FOLDER [--every N]

prints the report as JSON. Each SQLite migration gets its own file; a Postgres database is emptied after each.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from flujo.state.sql import migrations
from flujo.state.sql.database import Database
from flujo.state.sql.tables import HEAD, SCHEMA, metadata
from flujo.testing.crash_points import enumerate_crashes, in_a_fork

if TYPE_CHECKING:
    from collections.abc import Iterator


class Migrating:
    """One migration per point at which it is killed."""

    def __init__(self, uri: str, folder: Path) -> None:
        self._uri = uri
        self._folder = folder

    def _uri_of(self, run: int) -> str:
        if self._uri.startswith("postgres"):
            return self._uri
        return f"sqlite:///{self._folder / f'migration-{run}.db'}"

    async def migrate(self, run: int) -> None:
        """Migrate the database."""
        migrations.migrate(self._uri_of(run))

    async def again(self, run: int) -> dict[str, Any]:
        """Return the state that the killed migration left and the state after another one; empty the database."""
        from alembic.autogenerate import compare_metadata

        uri = self._uri_of(run)
        left = migrations.status(uri).current
        database = Database(uri)
        with database.connect() as connection:
            names = sa.inspect(connection).get_table_names(SCHEMA if database.is_postgres else None)
        migrations.migrate(uri)
        with migrations.exclusively(database) as connection:
            differs = compare_metadata(migrations.compared(connection), metadata)
        if database.is_postgres:
            with database.writing() as connection:
                connection.execute(sa.text(f"DROP SCHEMA {SCHEMA} CASCADE"))
        database.dispose()
        return {"left": left, "tables": sorted(names), "differs": [str(each) for each in differs]}


def check(_: int, seen: dict[str, Any]) -> Iterator[str]:
    """Yield violations: a partial migration, or missing tables after repeating it."""
    if seen["left"] not in (None, HEAD):
        yield f"an intermediate version remains: {seen['left']}"
    if seen["left"] is None and seen["tables"]:
        yield f"tables remain without a version: {seen['tables']}"
    if seen["differs"]:
        yield f"the tables differ: {seen['differs']}"


def main() -> None:
    """Kill at every point and print the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("uri")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--every", type=int, default=1)
    given = parser.parse_args()
    migrating = Migrating(given.uri, given.folder)
    in_a_fork(migrating.again, 0)  # loads the modules that each process needs
    report = enumerate_crashes(migrating.migrate, migrating.again, check, every=given.every)
    print(json.dumps(report.to_json()))  # noqa: T201 - the script's output


if __name__ == "__main__":
    main()
