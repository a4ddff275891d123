"""Connections to Postgres that a tool gets: it executes statements on them, and Flujo commits.

    BEGIN; …                                      the guard, and the number of the transaction
    INSERT INTO bookings …                        what the tool executes
    SET CONSTRAINTS ALL IMMEDIATE                 `take_back`
    SELECT … FROM runs FOR NO KEY UPDATE; …       the fence, the entry and the intent; COMMIT

The guard is a temporary table with two equal rows and a deferred unique constraint: while both are there, the
database itself refuses every COMMIT, whatever the tool calls or executes.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, LiteralString, NoReturn

import psycopg

from flujo.exceptions import TransactionRefused

_GUARD: LiteralString = '"a transactional tool does not commit: Flujo does"'
_BEGIN: LiteralString = f"""
    CREATE TEMPORARY TABLE flujo_open (one int CONSTRAINT {_GUARD} UNIQUE DEFERRABLE INITIALLY DEFERRED)
    ON COMMIT DROP;
    INSERT INTO pg_temp.flujo_open VALUES (1), (1);"""  # noqa: S608 - constant names
_LIMIT = """
    SELECT set_config('statement_timeout', %s, true),
        set_config('idle_in_transaction_session_timeout', %s, true)"""
_NUMBER = "SELECT CAST(pg_current_xact_id() AS text)"
_CHECK = """
    DELETE FROM pg_temp.flujo_open;
    SET CONSTRAINTS ALL IMMEDIATE;
    SET LOCAL statement_timeout = 0"""
_CANCEL_S = 2.0
_IDLE, _ACTIVE = psycopg.pq.TransactionStatus.IDLE, psycopg.pq.TransactionStatus.ACTIVE


def _refuse(what: str) -> NoReturn:
    raise TransactionRefused(
        f"a transactional tool called `{what}()`, but Flujo ends its transaction, with the entry of the call",
        hint="remove it; an exception rolls the transaction back",
    )


class LentConnection(psycopg.Connection[Any]):
    """The connection of a sync tool."""

    is_lent = True
    _pool = None  # psycopg warns of a connection that is deleted while it is open, unless a pool has it

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """Return a cursor; see psycopg.

        Raises:
            TransactionRefused: the call has ended.
        """
        _require(self.is_lent)
        return super().cursor(*arguments, **options)

    def commit(self) -> NoReturn:
        """Raise `TransactionRefused`."""
        _refuse("commit")

    def rollback(self) -> NoReturn:
        """Raise `TransactionRefused`."""
        _refuse("rollback")

    def close(self) -> NoReturn:
        """Raise `TransactionRefused`."""
        _refuse("close")


class AsyncLentConnection(psycopg.AsyncConnection[Any]):
    """The connection of an async tool."""

    is_lent = True
    _pool = None

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """Return a cursor; see psycopg.

        Raises:
            TransactionRefused: the call has ended.
        """
        _require(self.is_lent)
        return super().cursor(*arguments, **options)

    async def commit(self) -> NoReturn:
        """Raise `TransactionRefused`."""
        _refuse("commit")

    async def rollback(self) -> NoReturn:
        """Raise `TransactionRefused`."""
        _refuse("rollback")

    async def close(self) -> NoReturn:
        """Raise `TransactionRefused`."""
        _refuse("close")


def _require(is_lent: bool) -> None:
    if not is_lent:
        raise TransactionRefused("the connection of a transactional tool was used after its call")


class Guarded:
    """A connection of its own, in a transaction that only `Guarded` can end. Its methods block.

    Args:
        driver: a connection to Postgres that is in a transaction and in no pool.
        timeout_s: after which the server cancels a statement.
    """

    def __init__(self, driver: psycopg.Connection[Any], timeout_s: float) -> None:
        self._driver = driver
        self._lent: LentConnection | AsyncLentConnection | None = None
        milliseconds = str(int(timeout_s * 1000) + 1)
        self._driver.execute(_BEGIN)
        self._driver.execute(_LIMIT, (milliseconds, milliseconds))
        self.number = self._number()
        """Postgres' number of the transaction."""

    def lend(self, *, is_async: bool) -> LentConnection | AsyncLentConnection:
        """Return the connection for a tool: an object of its own on the same session."""
        kind = AsyncLentConnection if is_async else LentConnection
        self._lent = kind(self._driver.pgconn)
        self._lent.prepare_threshold = None  # two objects would give their statements the same names
        return self._lent

    def take_back(self) -> None:
        """Take the connection away from the tool, and let the database judge what it wrote.

        Raises:
            TransactionRefused: the transaction is not the one that was begun.
            psycopg.Error: a constraint does not hold, or a statement has failed.
        """
        if self._lent is not None:
            self._lent.is_lent = False
        if self._driver.pgconn.transaction_status == _IDLE or self._number() != self.number:
            raise TransactionRefused(
                "a transactional tool has ended its transaction, which Flujo commits with its entry",
                hint="remove COMMIT and ROLLBACK; an exception rolls the transaction back",
            )
        self._driver.execute(_CHECK)

    def _number(self) -> str:
        [(number,)] = self._driver.execute(_NUMBER).fetchall()
        return str(number)

    def close(self) -> None:
        """Close the connection, which rolls back; a statement of the tool is cancelled first."""
        if self._lent is not None:
            self._lent.is_lent = False
        if self._driver.pgconn.transaction_status == _ACTIVE:
            with suppress(psycopg.Error):
                self._driver.cancel_safe(timeout=_CANCEL_S)
            if isinstance(self._lent, LentConnection):
                self._lent.lock.acquire(timeout=_CANCEL_S)  # until the thread of the tool has left it
        self._driver.close()
