"""Reports every statement and commit of this process, before and after it.

A crash harness calls this in a process of its own, before it opens a store.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import event

from flujo.state.sql import postgres_connection

if TYPE_CHECKING:
    from collections.abc import Callable

    Listen = Callable[[str], None]


def probe(listen: Listen) -> None:
    """Call `listen` around every statement and commit of each connection that is opened from now on.

    Args:
        listen: called with `before INSERT`, `after INSERT`, `before COMMIT` and so on, in the thread that
            executes it.
    """

    @event.listens_for(sa.Engine, "do_connect")
    def connect(dialect: sa.Dialect, _: Any, arguments: list[Any], options: dict[str, Any]) -> Any:
        if dialect.name == "sqlite":
            options["factory"] = _sqlite_connection(listen)
            return None
        return _postgres_connection(listen).connect(*arguments, **options)


def _reported(listen: Listen, what: str, work: Callable[[], Any]) -> Any:
    listen(f"before {what}")
    result = work()
    listen(f"after {what}")
    return result


def _verb(statement: object) -> str:
    return str(statement).lstrip("( \n").partition(" ")[0].upper()


def _sqlite_connection(listen: Listen) -> type[sqlite3.Connection]:
    class Cursor(sqlite3.Cursor):
        def execute(self, sql: str, *more: Any) -> Any:
            return _reported(listen, _verb(sql), lambda: super(Cursor, self).execute(sql, *more))

        def executemany(self, sql: str, rows: Any) -> Any:
            return _reported(listen, _verb(sql), lambda: super(Cursor, self).executemany(sql, rows))

    class Connection(sqlite3.Connection):
        def cursor(self, *_: Any, **__: Any) -> Any:
            return super().cursor(Cursor)

        def execute(self, sql: str, *more: Any) -> Any:
            return self.cursor().execute(sql, *more)

        def commit(self) -> None:
            _reported(listen, "COMMIT", super().commit)

    return Connection


def _postgres_connection(listen: Listen) -> type[postgres_connection.Connection]:
    class Cursor(psycopg.Cursor[Any]):
        def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
            return _reported(
                listen, _verb(query), lambda: super(Cursor, self).execute(query, *arguments, **options)
            )

        def executemany(self, query: Any, params_seq: Any, **options: Any) -> Any:
            return _reported(
                listen, _verb(query), lambda: super(Cursor, self).executemany(query, params_seq, **options)
            )

    class Connection(postgres_connection.Connection):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.cursor_factory = Cursor

        def commit(self) -> None:
            _reported(listen, "COMMIT", super().commit)

    return Connection
