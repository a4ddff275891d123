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
from flujo.state.sql.tables import HEAD, SCHEMA, journal, pauses, runs, schema_info

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.config import Config
    from alembic.migration import MigrationContext

_LOCKS = 2**63 - 25  # a prime, so that every byte of a name counts
_CREATE = 'CREATE SCHEMA IF NOT EXISTS "{}"'
_ENTER = 'SET LOCAL search_path TO "{}"'


@dataclass(frozen=True, slots=True)
class SchemaStatus:
    """The schema version of a database; None for one without our tables."""

    database: str
    """The URL without its password and with the schema if it is not the default one, or the file."""
    current: str | None
    needed: str = HEAD
    oldest_reader: str | None = None
    """The oldest version whose processes can work on it."""
    elsewhere: bool = False
    """Whether the default schema has Flujo's tables, while the schema that is set has none."""

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


def status(uri: str, schema: str = SCHEMA) -> SchemaStatus:
    """Return where the database stands; a SQLite file that is not there is not made.

    Raises:
        StateError: it cannot be reached or read.
    """
    database = Database(uri, schema=schema)
    try:
        if not database.is_postgres and not Path(str(database.url.database)).exists():
            return SchemaStatus(database.shown, None)
        return _status(database)
    finally:
        database.dispose()


def migrate(uri: str, schema: str = SCHEMA) -> tuple[SchemaStatus, SchemaStatus]:
    """Bring a database up to date; return where it stood before and where it stands now.

    Processes that do this at once wait for each other; the second finds nothing to do.

    Raises:
        SchemaTooNew: a newer Flujo has migrated it.
        StateError: it cannot be reached or written.
    """
    # A large table takes its time, and so does another migration.
    database = Database(uri, schema=schema, answer_s=None)
    try:
        before = _status(database)
        return before, before if before.is_current else upgrade(database)
    finally:
        database.dispose()


def script(uri: str, schema: str = SCHEMA) -> str:
    """Return what `migrate` would execute, as one transaction; empty when there is nothing to do.

    Raises:
        SchemaTooNew: a newer Flujo has migrated it.
        StateError: it cannot be reached or read.
    """
    found = status(uri, schema)
    if found.is_current:
        return ""
    _refuse_newer(found)
    postgres = parse(uri).get_backend_name() == "postgresql"
    written = io.StringIO()
    config = _config(output_buffer=written, dialect="postgresql" if postgres else "sqlite")
    from alembic import command

    command.upgrade(config, f"{found.current or 'base'}:{HEAD}", sql=True)
    first = [f"{each.format(schema)};" for each in (_CREATE, _ENTER)] if postgres else []
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
        if found.elsewhere:
            what += f" (its schema `{SCHEMA}` has some)"
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
        if database.schema is not None:
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _lock(database.schema)})
            # `CREATE SCHEMA` needs a right on the database also where the schema exists already.
            if not sa.inspect(connection).has_schema(database.schema):
                connection.execute(sa.text(_CREATE.format(database.schema)))
            connection.execute(sa.text(_ENTER.format(database.schema)))
            # The versions say bare names; the search path of this transaction says where they are.
            connection = connection.execution_options(schema_translate_map=None)
        yield connection


def _lock(schema: str) -> int:
    """Return the number of a schema's advisory lock: migrations of other schemas do not wait for it."""
    return int.from_bytes(schema.encode()) % _LOCKS


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
    prefix, is_default = database.table_prefix, database.schema in (None, SCHEMA)
    shown = database.shown if is_default else f"{database.shown} (postgres_schema {database.schema})"
    inspected = sa.inspect(connection)
    there = set(inspected.get_table_names(database.schema))
    if "alembic_version" not in there:
        elsewhere = not is_default and inspected.has_table(journal.name, SCHEMA)
        return SchemaStatus(shown, None, elsewhere=elsewhere)
    if schema_info.name in there:
        row = connection.execute(sa.text(f"SELECT revision, oldest_reader FROM {prefix}schema_info")).first()  # noqa: S608 - our own words
        if row is not None:
            revision, oldest = (_version(database, value) for value in row)
            return SchemaStatus(shown, revision, oldest_reader=oldest)
    if database.is_postgres and not {runs.name, journal.name, pauses.name} <= there:
        raise StateError(
            f"the schema `{database.schema}` of {database.shown} has an `alembic_version`, but no tables of "
            "Flujo: it belongs to another application",
            hint="set `[settings] postgres_schema` in flujo.toml to a schema for Flujo alone",
        )
    version = connection.scalar(sa.text(f"SELECT version_num FROM {prefix}alembic_version"))  # noqa: S608 - as above
    return SchemaStatus(shown, _version(database, version))


def _version(database: Database, stored: object) -> str | None:
    """Return a stored version, which SQLite may hold as bytes."""
    if stored is None or isinstance(stored, str):
        return stored
    raise errors.damaged(database.shown, f"its schema version is {stored!r}")
