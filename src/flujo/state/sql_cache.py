"""Cached answers in the state database's `cache` table: they outlive the process, and are shared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from flujo.domain import canonical
from flujo.exceptions import CorruptState
from flujo.state.sql.encryption import CACHE, decrypted, encrypted
from flujo.state.sql.functions import database_now
from flujo.state.sql.tables import cache

if TYPE_CHECKING:
    from flujo.state.sql.database import Database
    from flujo.state.writer.readers import Readers

SWEEP = 100
"""How many expired rows one write deletes."""

_key: sa.BindParameter[str] = sa.bindparam("of_key")
_good = sa.or_(cache.c.expires_at.is_(None), cache.c.expires_at > database_now())
_find = sa.select(cache.c.key, cache.c.value, cache.c.digest).where(cache.c.key == _key, _good)


class SqlCache:
    """A `CacheBackend` in the database of a store, by the database's own clock: see `SqlStateStore.cache`.

    Args:
        database: the store's.
        readers: the threads that read and write answers, apart from the journal's commits.
    """

    def __init__(self, database: Database, readers: Readers) -> None:
        self._database = database
        self._readers = readers
        self._put = _put(postgres=database.is_postgres)
        self._sweep = _sweep(postgres=database.is_postgres)

    async def get(self, key: str) -> bytes | None:
        """Return a value that has not expired and whose digest is right.

        Raises:
            StateError: the database does not answer.
        """
        row = await self._readers.answer(_found, key)
        if row is None or _digest(key, row[0]) != row[1]:
            return None
        return row[0]

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        """Keep a value, and delete some expired ones.

        Raises:
            StateError: the database does not answer; nothing was written.
        """
        row = {"key": key, "value": value, "digest": _digest(key, value), "ttl_s": ttl_s}
        await self._readers.alone(self._database.writing, self._written, row)

    def _written(self, connection: sa.Connection, row: dict[str, Any]) -> None:
        connection.execute(self._put, encrypted(connection, CACHE, row))
        connection.execute(self._sweep)


def _digest(key: str, value: bytes) -> bytes:
    # The key is part of it, so that an answer in the row of another question is a miss.
    return canonical.digest(f"{key}|".encode() + value).encode()


def _found(connection: sa.Connection, key: str) -> tuple[bytes, bytes] | None:
    try:
        rows = decrypted(connection, CACHE, connection.execute(_find, {"of_key": key}).mappings())
    except CorruptState:  # a damaged answer is computed again
        return None
    return (bytes(rows[0]["value"]), bytes(rows[0]["digest"])) if rows else None


def _put(*, postgres: bool) -> sa.Executable:
    insert = postgresql.insert if postgres else sqlite.insert
    ttl: sa.BindParameter[float] = sa.bindparam("ttl_s", type_=sa.Double())
    put = insert(cache).values(created_at=database_now(), expires_at=database_now() + ttl)
    news = ("value", "digest", "created_at", "expires_at")
    return put.on_conflict_do_update(index_elements=["key"], set_={name: put.excluded[name] for name in news})


def _sweep(*, postgres: bool) -> sa.Executable:
    stale = sa.select(cache.c.key).where(cache.c.expires_at <= database_now()).limit(SWEEP)
    if postgres:  # two sweeps at once take different rows instead of waiting for each other
        stale = stale.with_for_update(skip_locked=True)
    return cache.delete().where(cache.c.key.in_(stale))
