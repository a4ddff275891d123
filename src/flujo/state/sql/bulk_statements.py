"""Changes of many rows: a statement for each of them on SQLite, and on Postgres one for all.

On SQLite a statement costs nothing but its rows. On Postgres planning, sending and starting it cost more than
a row does, so the rows come as a table that is made of an array for each of its columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from flujo.state.sql.functions import Array, driver_text, ids_parameter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Rows = Sequence[dict[str, Any]]

Change = Callable[[sa.Connection, Rows], None]
"""Changes what the rows say; what a row has beside the parameters does not matter."""

_ELEMENTS = {
    sa.BigInteger: "bigint",
    sa.Boolean: "boolean",
    sa.Double: "float8",
    sa.Integer: "integer",
    sa.LargeBinary: "bytea",
}


def element(column_type: sa.types.TypeEngine[Any]) -> str:
    """Return what Postgres calls the type; everything else is sent as text."""
    return _ELEMENTS.get(type(column_type), "text")


def driver(connection: sa.Connection) -> Any:
    """Return a cursor of the driver's own."""
    return connection.connection.cursor()


class BoundColumns:
    """The values that a change is given, by name: for each row on SQLite, columns of a table on Postgres."""

    def __init__(self, types: Mapping[str, sa.types.TypeEngine[Any]], *, postgres: bool) -> None:
        self.is_postgres = postgres
        self._elements = {name: element(kind) for name, kind in types.items()}
        self._columns: Any
        if postgres:
            arrays = [sa.cast(sa.bindparam(name), postgresql.ARRAY(kind)) for name, kind in types.items()]
            table = sa.func.unnest(*arrays).table_valued(*(sa.column(*each) for each in types.items()))
            self._columns = table.render_derived(name="given").c
        else:
            self._columns = {name: sa.bindparam(name, type_=kind) for name, kind in types.items()}

    def __getitem__(self, name: str) -> sa.ColumnElement[Any]:
        column: sa.ColumnElement[Any] = self._columns[name]
        return column

    def insert(self, into: Any, values: Mapping[str, sa.ColumnElement[Any]]) -> Any:
        """Return an INSERT of these values, made of what is given; `into` is a dialect's `insert(table)`."""
        if self.is_postgres:
            return into.from_select(list(values), sa.select(*values.values()))
        return into.values(**values)

    def change(self, statement: sa.Executable, *key: str) -> Change:
        """Return what executes a statement for rows; those with one `key` one after another."""
        text = driver_text(statement, postgres=self.is_postgres)
        if not self.is_postgres:
            return for_each(text)

        def change(connection: sa.Connection, rows: Rows) -> None:
            for lot in _apart(rows, key):
                arrays = {
                    name: Array(element, [row[name] for row in lot])
                    for name, element in self._elements.items()
                }
                driver(connection).execute(text, arrays)

        return change


def for_each(text: str) -> Change:
    """Return what executes a statement of the driver's for each row."""

    def change(connection: sa.Connection, rows: Rows) -> None:
        driver(connection).executemany(text, rows)

    return change


def for_all(text: str, *shared: str) -> Change:
    """Return what executes a statement that says `among` for all rows; they agree about what is `shared`."""

    def change(connection: sa.Connection, rows: Rows) -> None:
        ids = ids_parameter(connection, [row["of_run"] for row in rows])
        driver(connection).execute(text, ids | {name: rows[0][name] for name in shared})

    return change


def _apart(rows: Rows, key: Sequence[str]) -> Iterator[Rows]:
    """Yield the rows in their order, in lots in which no key is twice: a statement sees a row only once."""
    lot: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        named = tuple(row[name] for name in key)
        if named in lot:
            yield list(lot.values())
            lot = {}
        lot[named] = row
    if lot:
        yield list(lot.values())
