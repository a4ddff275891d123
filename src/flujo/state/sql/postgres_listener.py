"""Hears from Postgres that a run has come into a queue, or that a wait is settled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from flujo.domain.journal import RunId
from flujo.state.sql.statements import QUEUE_CHANNEL, SETTLED_CHANNEL

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from flujo.state.sql.database import Database

_LOOK_S = 0.5
_RETRY_S = 5.0


def listen(
    database: Database,
    ring: Callable[[], None],
    tell: Callable[[str, RunId], None],
    closing: threading.Event,
) -> None:
    """Pass each notification on until `closing`; connect again when the connection is lost.

    When the server refuses connections, this one is left to those who need it, for good.

    Args:
        database: whose schema the notifications are about.
        ring: called when a run has come into a queue.
        tell: called with the owner that has settled a wait, and its run.
        closing: ends this.
    """
    while not (closing.is_set() or database.is_crowded):
        try:
            with _connected(database) as connection:
                connection.execute(f"LISTEN {QUEUE_CHANNEL}")
                connection.execute(f"LISTEN {SETTLED_CHANNEL}")
                ring()  # for runs that came before
                _hear(connection, database, ring, tell, closing)
        except (psycopg.Error, OSError):
            closing.wait(_RETRY_S)


def _connected(database: Database) -> psycopg.Connection[Any]:
    """Return a connection of its own: one of the pool would never be returned."""
    words, named = database.engine.dialect.create_connect_args(database.url)
    named.setdefault("connect_timeout", 10)
    return psycopg.connect(*words, **named, autocommit=True)


def _hear(
    connection: psycopg.Connection[Any],
    database: Database,
    ring: Callable[[], None],
    tell: Callable[[str, RunId], None],
    closing: threading.Event,
) -> None:
    schema = database.schema
    while not (closing.is_set() or database.is_crowded):
        for heard in connection.notifies(timeout=_LOOK_S):
            if heard.channel == QUEUE_CHANNEL and heard.payload == schema:
                ring()
            elif heard.channel == SETTLED_CHANNEL and heard.payload.startswith(f"{schema} "):
                owner, _, run_id = heard.payload.removeprefix(f"{schema} ").rpartition(" ")
                tell(owner, RunId(run_id))
            if closing.is_set():
                return
