"""Connections and forks: SQLite's are closed before one, Postgres' are left to the parent after it."""

from __future__ import annotations

import os
import sqlite3
import threading
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

from sqlalchemy import event

from flujo.domain.forks import NO_FORK

if TYPE_CHECKING:
    from collections.abc import Iterable

    import sqlalchemy as sa


class Forking(Protocol):
    """A database of a process that may fork."""

    def before_fork(self) -> None:
        """Get ready; the process forks when this returns."""
        ...

    def after_fork(self) -> None:
        """Continue in the parent."""
        ...


databases: WeakSet[Forking] = WeakSet()
"""The databases of this process."""

inherited: list[Any] = []
"""Objects of the parent process that a child keeps, so that they are never collected."""


def opened_by(engine: sa.Engine) -> set[Any]:
    """Return the set of the driver's connections that the engine has open, now and later."""
    opened: set[Any] = set()

    @event.listens_for(engine, "connect")
    def add(connection: Any, _: Any) -> None:
        opened.add(connection)

    @event.listens_for(engine, "close")
    def remove(connection: Any, _: Any) -> None:
        opened.discard(connection)

    return opened


def keep_apart(connections: Iterable[Any]) -> None:
    """Take the sockets of the parent process away from connections, without a word to the server."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for connection in connections:
        inherited.append(connection)
        if isinstance(connection, sqlite3.Connection) or connection.closed:
            continue
        os.dup2(nothing, connection.fileno())
    os.close(nothing)


_ready: dict[int, list[Forking]] = {}
"""The databases that each forking thread has made ready; others may be opened meanwhile."""


def _before() -> None:
    with NO_FORK:  # before the databases are: a thread that imports may use one
        ready = list(databases)
    for database in ready:
        database.before_fork()
    _ready[threading.get_ident()] = ready


def _after() -> None:
    for database in _ready.pop(threading.get_ident(), ()):
        database.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after)
