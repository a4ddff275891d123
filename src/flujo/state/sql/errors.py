"""Translates the errors of both drivers: what is wrong with the database, and what to do about it."""

from __future__ import annotations

import re
import sqlite3

from flujo.exceptions import CorruptState, StateBackendFull, StateBackendUnavailable, StateError

BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
"""SQLite's result codes for a file that another program is using."""

_WRITABLE = (
    "make the file and its folder writable: SQLite writes beside a file that it only reads; "
    "to look at one that must stay as it is, copy it into a folder of your own"
)
_UNUSABLE = {
    **dict.fromkeys(BUSY, "see that no other program holds the file locked"),
    sqlite3.SQLITE_IOERR: "see that the disk is well, and that the file is on this machine",
    **dict.fromkeys((sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM), _WRITABLE),
}
"""SQLite's result codes for a file that cannot be used now, and what to do."""

_DAMAGED = ("decode to UTF-8", "no such table", "no such column", "has no column named")
"""Words of SQLite's about a file that is not what Flujo wrote; their result code says nothing."""
_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def of_postgres(shown: str, error: BaseException | None, reason: str, *, lost: bool) -> StateError:
    """Return the error of Flujo for one of Postgres or of the way to it; `lost`: its connection is gone."""
    import psycopg

    state = getattr(error, "sqlstate", None) or ""
    if parameter := _refused_parameter(reason):
        return StateError(
            f"the database {shown} was not opened: {reason}",
            hint=f"correct or remove the parameter `{parameter}` in `state_uri` (FLUJO_STATE_URI)",
            sqlstate=state,
        )
    if state in ("53100", "53200"):
        return _full(shown, reason)
    if takes_no_more(error, reason):
        return StateBackendUnavailable(
            f"the database {shown} takes no more connections: {reason}",
            hint="allow this role more connections, or lower `postgres_pool_max` so that all processes fit: "
            "each has one that writes and up to `postgres_pool_max - 1` that read, so 2 are the least",
        )
    transient = state[:2] in ("08", "40", "53", "57") or state in ("25006", "25P03", "55P03")
    # What libpq itself says of a connection that ends in a pipeline has no SQLSTATE: a bare DatabaseError.
    is_of_libpq = isinstance(error, psycopg.OperationalError) or type(error) is psycopg.DatabaseError
    lost = lost or (not state and is_of_libpq)
    if transient or lost or state.startswith("28") or state == "3D000":
        return StateBackendUnavailable(
            f"the database {shown} does not answer: {reason}",
            hint="start it, or correct `state_uri` (FLUJO_STATE_URI); the run stays resumable",
            retryable=transient or lost,
        )
    return StateError(
        f"the database {shown} refused a statement: {reason}",
        hint="grant this role the right; docs/how-to/use-postgres.md lists what each role needs"
        if state == "42501"
        else None,
        sqlstate=state,
    )


_PARAMETER = re.compile(
    r'invalid connection option "([\w.]+)"|for connection option "([\w.]+)"|invalid ([\w.]+) value: "'
    r'|unrecognized configuration parameter "([\w.]+)"|invalid value for parameter "([\w.]+)"'
    r'|parameter "([\w.]+)" requires|bad value for ([\w.]+)|unsupported startup parameter[^:]*: "?([\w.]+)'
)
"""Words of libpq, Postgres and PgBouncer about a parameter of the URL."""


def _refused_parameter(reason: str) -> str:
    """Return the parameter of the URL that was refused, or nothing."""
    found = _PARAMETER.search(reason)
    return next(filter(None, found.groups())) if found else ""


def takes_no_more(error: BaseException | None, reason: str) -> bool:
    """Return whether Postgres has refused a connection because there are too many."""
    state = getattr(error, "sqlstate", None) or ""
    # A connection that was never made has no SQLSTATE, so the words have to do: Postgres's and PgBouncer's.
    words = (
        "too many connections",
        "too many clients",
        "connection slots are reserved",
        "no more connections",
    )
    return state == "53300" or (not state and any(each in reason for each in words))


def primary_code(error: BaseException | None) -> int:
    """Return the first of SQLite's two result codes, 0 when the error is another one."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def of_sqlite(shown: str, error: BaseException | None, reason: str) -> StateError:
    """Return the error of Flujo for one of SQLite."""
    code = primary_code(error)
    if code == sqlite3.SQLITE_FULL:
        return _full(shown, reason)
    if code == sqlite3.SQLITE_NOTADB:
        return StateError(
            f"{shown} is not a SQLite database",
            hint="move the file away, or set `state_uri` (FLUJO_STATE_URI) to another path",
        )
    if code in _BROKEN or any(words in reason for words in _DAMAGED):
        return damaged(shown, reason)
    if code in _UNUSABLE:
        return StateBackendUnavailable(
            f"the database {shown} cannot be used: {reason}", hint=_UNUSABLE[code], retryable=code in BUSY
        )
    return StateError(f"the database {shown} refused a statement: {reason}")


def damaged(shown: str, reason: str) -> CorruptState:
    """Return the error for a SQLite file that is not as it was written."""
    return CorruptState(
        f"the database {shown} is damaged: {reason}",
        hint="restore it from a backup; `sqlite3 FILE .recover` saves what can be read",
    )


def _full(shown: str, reason: str) -> StateBackendFull:
    return StateBackendFull(
        f"the database {shown} has no room left: {reason}",
        hint="make room, then repeat the command, or `flujo resume` a run: its recorded steps are intact",
    )
