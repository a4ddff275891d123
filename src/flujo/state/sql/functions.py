"""SQL that both databases understand, as text for the driver, and rows by their names."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from flujo.domain import canonical
from flujo.state.sql.encryption import decrypted, selected
from flujo.state.sql.tables import translation

if TYPE_CHECKING:
    from collections.abc import Sequence


LEASE_CLOCK = "flujo_lease_clock"
"""The name in SQLite of `owner_tokens.lease_clock`."""


EPOCH_DAY, DAY_S = 2440587.5, 86400.0
"""The Julian day of the epoch, and the seconds of a day: SQLite has its time in days."""


def julian_day(at: float) -> float:
    """Return the first Julian day that is not before a time, which is in seconds since the epoch.

    Days of today have steps of 40 microseconds.
    """
    day = at / DAY_S + EPOCH_DAY
    while (day - EPOCH_DAY) * DAY_S < at:
        day = math.nextafter(day, math.inf)
    return day


class database_now(FunctionElement[float]):  # noqa: N801 - it reads as a function in a statement
    """Seconds since the epoch, by the database's clock, at the moment of the statement."""

    type = sa.Double()
    inherit_cache = True


@compiles(database_now, "sqlite")
def _now_on_sqlite(*_: Any, **__: Any) -> str:
    # `unixepoch('subsec')` is null before SQLite 3.42.
    return f"((julianday('now') - {EPOCH_DAY}) * {DAY_S})"


@compiles(database_now, "postgresql")
def _now_on_postgres(*_: Any, **__: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS DOUBLE PRECISION)"


class lease_now(FunctionElement[float]):  # noqa: N801 - as above
    """The time by which the lease of an owner, the argument, is measured.

    On Postgres it is the database's clock. A SQLite file is shared by processes of one host, and its clock is
    that of the host, which can be set: so leases are measured by the clock of the host's boot
    (`owner_tokens.lease_clock`), and only those of owners of another boot by the time of day.
    """

    type = sa.Double()
    inherit_cache = True


@compiles(lease_now, "sqlite")
def _lease_now_on_sqlite(element: lease_now, compiler: Any, **more: Any) -> str:
    owner = compiler.process(element.clauses, **more)
    return f"coalesce({LEASE_CLOCK}({owner}), {_now_on_sqlite()})"


@compiles(lease_now, "postgresql")
def _lease_now_on_postgres(*_: Any, **__: Any) -> str:
    return _now_on_postgres()


class among(sa.ColumnElement[bool]):  # noqa: N801 - as above
    """Whether a column has one of the values of the parameter that `ids_parameter` makes."""

    inherit_cache = False

    def __init__(self, column: sa.Column[str]) -> None:
        self.column = column


@compiles(among, "sqlite")
def _among_on_sqlite(element: among, compiler: Any, **more: Any) -> str:
    ids = compiler.process(sa.bindparam("ids", type_=sa.Text()), **more)
    return f"{compiler.process(element.column, **more)} IN (SELECT value FROM json_each({ids}))"  # noqa: S608 - no text of others


@compiles(among, "postgresql")
def _among_on_postgres(element: among, compiler: Any, **more: Any) -> str:
    ids = compiler.process(sa.bindparam("ids", type_=postgresql.ARRAY(sa.Text())), **more)
    return f"{compiler.process(element.column, **more)} = ANY({ids})"


@dataclass(frozen=True, slots=True)
class Array:
    """One parameter that is an array on Postgres; `postgres_arrays` writes it."""

    element: str
    """The type of the elements, by its name there."""
    values: Sequence[Any]


def ids_parameter(connection: sa.Connection, ids: Sequence[str]) -> dict[str, Any]:
    """Return the parameter for statements that say `among`."""
    on_postgres = connection.dialect.name == "postgresql"
    return {"ids": Array("text", ids) if on_postgres else canonical.encode(ids).decode()}


@cache
def driver_text(statement: Any, schema: str | None) -> str:
    """Return a statement as the driver takes it, with named parameters; for those that are built once.

    Args:
        statement: of SQLAlchemy.
        schema: the Postgres schema of the tables; None for SQLite.
    """
    if schema is None:
        return str(statement.compile(dialect=sqlite.dialect(paramstyle="named")))
    dialect = psycopg.PGDialect_psycopg()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
    translated: dict[str, Any] = {
        "schema_translate_map": translation(schema),
        "render_schema_translate": True,
    }
    return str(statement.compile(dialect=dialect, **translated))


def schema_of(connection: sa.Connection) -> str | None:
    """Return the Postgres schema of the tables; None on SQLite."""
    translated = connection.get_execution_options().get("schema_translate_map")
    return translated[None] if translated else None


@cache
def column_names(statement: Any) -> tuple[str, ...]:
    """Return the names of a SELECT's columns: reading them from Postgres' driver costs more than the rows."""
    return tuple(str(column.name) for column in statement.selected_columns)


def fetch(connection: sa.Connection, statement: Any, parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a statement that is built once, by the driver alone: a third of the cost.

    The driver's values are left as they are: on SQLite booleans are numbers and JSON is text.
    """
    return fetch_all(connection, [statement], parameters)[0]


def fetch_all(
    connection: sa.Connection, statements: Sequence[Any], parameters: dict[str, Any]
) -> list[list[dict[str, Any]]]:
    """Return the rows of several statements with the same parameters: on Postgres in one round trip."""
    schema = schema_of(connection)
    on_postgres = schema is not None
    driver: Any = connection.connection.dbapi_connection
    cursors = [driver.cursor(binary=True) if on_postgres else driver.cursor() for _ in statements]
    with driver.pipeline() if on_postgres and len(cursors) > 1 else nullcontext():
        for cursor, statement in zip(cursors, statements, strict=True):
            cursor.execute(driver_text(statement, schema), parameters)
    # All are read before one is decrypted: a cursor with rows left would keep SQLite's snapshot open.
    found = [named(cursor, column_names(each)) for cursor, each in zip(cursors, statements, strict=True)]
    return [_plain(connection, each, rows) for each, rows in zip(statements, found, strict=True)]


def _plain(connection: sa.Connection, statement: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    of = selected(statement)
    return rows if of is None else decrypted(connection, of, rows)


def named(cursor: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of a driver's cursor, with the names of their columns."""
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
