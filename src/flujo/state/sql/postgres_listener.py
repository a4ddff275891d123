"""Hears from Postgres that a run has come into a queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from flujo.state.sql.statements import QUEUE_CHANNEL

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from flujo.state.sql.database import Database

_LOOK_S = 0.5
_RETRY_S = 5.0


def listen(database: Database, ring: Callable[[], None], closing: threading.Event) -> None:
    """Call `ring` for each notification until `closing`; connect again when the connection is lost."""
    while not closing.is_set():
        try:
            with _connected(database) as connection:
                connection.execute(f"LISTEN {QUEUE_CHANNEL}")
                ring()  # for runs that came before
                _hear(connection, database.schema, ring, closing)
        except (psycopg.Error, OSError):
            closing.wait(_RETRY_S)


def _connected(database: Database) -> psycopg.Connection[Any]:
    """Return a connection of its own: one of the pool would never be returned."""
    words, named = database.engine.dialect.create_connect_args(database.url)
    named.setdefault("connect_timeout", 10)
    return psycopg.connect(*words, **named, autocommit=True)


def _hear(
    connection: psycopg.Connection[Any],
    schema: str | None,
    ring: Callable[[], None],
    closing: threading.Event,
) -> None:
    while not closing.is_set():
        for heard in connection.notifies(timeout=_LOOK_S):
            if heard.payload == schema:
                ring()
            if closing.is_set():
                return
