"""The schema's version: seeing it, and bringing a database up to what this Flujo needs.

A SQLite file is created and migrated automatically; a Postgres database may be in production, so it waits for
`flujo migrate`. Versions are numbered, so that a newer one can be distinguished from an unknown one.
"""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import sqlalchemy as sa

from flujo.exceptions import SchemaOutdated, SchemaTooNew, StateError
from flujo.state.sql import errors
from flujo.state.sql.database import Database, parse
from flujo.state.sql.tables import HEAD, SCHEMA, schema_info

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.config import Config
    from alembic.migration import MigrationContext

_LOCK = 0x666C756A6F  # "flujo": the number of our Postgres advisory lock
_CREATE = f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"
_ENTER = f"SET LOCAL search_path TO {SCHEMA}"


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """The schema version of a database; None for one without our tables."""

    database: str
    """The URL without its password, or the file."""
    current: str | None
    needed: str = HEAD
    oldest_reader: str | None = None
    """The oldest version whose processes can work on it."""

    @property
    def is_current(self) -> bool:
        """Whether this Flujo can work on it: as it is now, or with what a newer Flujo has only added."""
        return self.current == self.needed or (self._is_later and not self.is_newer)

    @property
    def is_newer(self) -> bool:
        """Whether a newer Flujo has migrated it in a way that this one cannot work with."""
        return self._is_later and (self.oldest_reader is None or self.oldest_reader > self.needed)

    @property
    def _is_later(self) -> bool:
        return self.current is not None and self.current > self.needed


def status(uri: str) -> SchemaStatus:
    """Return where the database stands; a SQLite file that is not there is not made.

    Raises:
        StateError: it cannot be reached or read.
    """
    database = Database(uri)
    try:
        if not database.is_postgres and not Path(str(database.url.database)).exists():
            return SchemaStatus(database.shown, None)
        return _status(database)
    finally:
        database.dispose()


def migrate(uri: str) -> tuple[SchemaStatus, SchemaStatus]:
    """Bring a database up to date; return where it stood before and where it stands now.

    Processes that do this at once wait for each other; the second finds nothing to do.

    Raises:
        SchemaTooNew: a newer Flujo has migrated it.
        StateError: it cannot be reached or written.
    """
    database = Database(uri, answer_s=None)  # a large table takes its time, and so does another migration
    try:
        before = _status(database)
        return before, before if before.is_current else upgrade(database)
    finally:
        database.dispose()


def script(uri: str) -> str:
    """Return what `migrate` would execute, as one transaction; empty when there is nothing to do.

    Raises:
        SchemaTooNew: a newer Flujo has migrated it.
        StateError: it cannot be reached or read.
    """
    found = status(uri)
    if found.is_current:
        return ""
    _refuse_newer(found)
    postgres = parse(uri).get_backend_name() == "postgresql"
    written = io.StringIO()
    config = _config(output_buffer=written, dialect="postgresql" if postgres else "sqlite")
    from alembic import command

    command.upgrade(config, f"{found.current or 'base'}:{HEAD}", sql=True)
    first = [f"{_CREATE};", f"{_ENTER};"] if postgres else []
    return "\n".join(["BEGIN;", *first, written.getvalue().strip(), "COMMIT;", ""])


def ensure_current(database: Database) -> None:
    """Return when the schema is what this Flujo needs; bring a SQLite file there.

    Raises:
        SchemaOutdated: a Postgres database that waits for `flujo migrate`.
        SchemaTooNew: a newer Flujo has migrated it.
    """
    found = _status(database)
    if found.is_current:
        return
    if database.is_postgres and not found.is_newer:
        what = f"has schema {found.current}" if found.current else "has no tables of Flujo yet"
        raise SchemaOutdated(
            f"the database {found.database} {what}; this Flujo needs {found.needed}", current=found.current
        )
    upgrade(database)


def upgrade(database: Database) -> SchemaStatus:
    """Run the missing versions in one transaction; all or none of them count."""
    with database.errors(), exclusively(database) as connection:
        found = _found(database, connection)
        _refuse_newer(found)
        if not found.is_current:
            _run_versions(connection)
    return _status(database)


@contextmanager
def exclusively(database: Database) -> Iterator[sa.Connection]:
    """Lend a connection whose transaction no other migration can overlap."""
    with database.writing() as connection:
        if database.is_postgres:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            # `CREATE SCHEMA` needs a right on the database also where the schema exists already.
            if not sa.inspect(connection).has_schema(SCHEMA):
                connection.execute(sa.text(_CREATE))
            connection.execute(sa.text(_ENTER))
            # The versions say bare names; the search path of this transaction says where they are.
            connection = connection.execution_options(schema_translate_map=None)
        yield connection


def scripts() -> Path:
    """Return the folder with `env.py` and the versions: in the package, or in a checkout beside `src`.

    Raises:
        StateError: neither is there.
    """
    package = Path(str(resources.files("flujo")))
    for folder in (package / "_alembic", package.parent.parent / "alembic"):
        if (folder / "env.py").is_file():
            return folder
    raise StateError("the migration scripts are missing from this installation", hint="install Flujo again")


def compared(connection: sa.Connection) -> MigrationContext:
    """Return Alembic's view of a database, for comparing it with the tables.

    Alembic does not ask `ddl_if` when it compares, so an index that only Postgres has is left out elsewhere.
    """
    from alembic.migration import MigrationContext

    def belongs(_: Any, name: str | None, kind: str, *__: Any) -> bool:
        return not (
            kind == "index" and name == "runs_by_metadata" and connection.dialect.name != "postgresql"
        )

    return MigrationContext.configure(connection, opts={"compare_type": True, "include_object": belongs})


def _run_versions(connection: sa.Connection) -> None:
    from alembic import command

    command.upgrade(_config(connection=connection), HEAD)


def _config(*, output_buffer: TextIO | None = None, **attributes: Any) -> Config:
    from alembic.config import Config

    config = Config(output_buffer=output_buffer, attributes=attributes)
    config.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    return config


def _refuse_newer(found: SchemaStatus) -> None:
    if found.is_newer:
        raise SchemaTooNew(
            f"the database {found.database} has schema {found.current}; this Flujo knows {found.needed}",
            current=found.current,
        )


def _status(database: Database) -> SchemaStatus:
    with database.reading() as connection:
        return _found(database, connection)


def _found(database: Database, connection: sa.Connection) -> SchemaStatus:
    there = set(sa.inspect(connection).get_table_names(SCHEMA if database.is_postgres else None))
    if "alembic_version" not in there:
        return SchemaStatus(database.shown, None)
    prefix = f"{SCHEMA}." if database.is_postgres else ""
    if schema_info.name in there:
        row = connection.execute(sa.text(f"SELECT revision, oldest_reader FROM {prefix}schema_info")).first()  # noqa: S608 - our own words
        if row is not None:
            revision, oldest = (_version(database, value) for value in row)
            return SchemaStatus(database.shown, revision, oldest_reader=oldest)
    version = connection.scalar(sa.text(f"SELECT version_num FROM {prefix}alembic_version"))  # noqa: S608 - as above
    return SchemaStatus(database.shown, _version(database, version))


def _version(database: Database, stored: object) -> str | None:
    """Return a stored version, which SQLite may hold as bytes."""
    if stored is None or isinstance(stored, str):
        return stored
    raise errors.damaged(database.shown, f"its schema version is {stored!r}")
