"""Rewrites the files of a database, so that no page of them has deleted rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.exceptions import StateBackendUnavailable, StateError
from flujo.state.sql.retry import without_timeout
from flujo.state.sql.tables import metadata, prefix

if TYPE_CHECKING:
    import sqlalchemy as sa


def rewrite_file(connection: sa.Connection) -> None:
    """Write a SQLite file anew, without free pages and without the remains of earlier rows.

    `secure_delete` overwrites rows as they are deleted; rows that were changed or deleted before it was on
    have left their bytes in the file.
    """
    driver: Any = connection.connection.dbapi_connection
    driver.execute("PRAGMA secure_delete = ON")
    driver.execute("VACUUM")


def empty_log(connection: sa.Connection) -> None:
    """Write SQLite's log into the file, and make it empty.

    Raises:
        StateBackendUnavailable: a process still reads from the log.
    """
    driver: Any = connection.connection.dbapi_connection
    busy, _, _ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise StateBackendUnavailable(
            "the write-ahead log of the database cannot be emptied, because a process reads from it",
            hint="end the commands and workers that use the database, and repeat the command: "
            "the proof is written then",
        )


@without_timeout
def rewrite_tables(connection: sa.Connection, schema: str) -> None:
    """Write every table of a Postgres schema anew: `VACUUM FULL`, which locks each table meanwhile.

    Raises:
        StateError: the role of the connection may not do that.
    """
    for table in metadata.sorted_tables:
        name = f'{prefix(schema)}"{table.name}"'
        before = _file_of(connection, name)
        connection.exec_driver_sql(f"VACUUM (FULL, ANALYZE) {name}")
        if _file_of(connection, name) == before:  # the server only warns
            raise StateError(
                f"the table {name} was not rewritten: the role of this connection does not own it",
                hint="repeat the command with the role that runs `flujo migrate`: the proof is written then",
            )


def _file_of(connection: sa.Connection, name: str) -> Any:
    found = connection.exec_driver_sql("SELECT pg_relation_filenode(%s::regclass)", (name,))
    return found.scalar()
