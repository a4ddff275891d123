"""Encrypts values again with the first key, in bounded transactions, while other processes work.

A transaction locks the rows that it changes, so a row is changed by one process at a time; rows that another
transaction has locked are skipped, and taken by the next pass. The rows show how far it is: each value
begins with the id of its key, so an interrupted rotation continues with what is left.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from flujo.domain import canonical
from flujo.domain.acts import Act, Verb
from flujo.domain.key_counts import KeyCounts, Rotated
from flujo.exceptions import CorruptState
from flujo.governance.key_ring import MARK, PLAIN, PLAIN_TEXT, TEXT_MARK, Key, KeyRing
from flujo.state import codec
from flujo.state.sql.encryption import ACTS, BLOBS, ENCRYPTED, RUNS, Encrypted, decrypted, encrypted, keys_of
from flujo.state.sql.functions import database_now
from flujo.state.sql.retry import without_timeout
from flujo.state.sql.tables import acts, runs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flujo.domain.acts import Actor

BLOBS_AT_ONCE = 10
"""Contents can have megabytes, so a transaction takes few of them."""


def check_newest(connection: sa.Connection) -> None:
    """Look whether the newest run can be decrypted, so that a process with wrong keys writes nothing.

    Raises:
        KeyMissing | WrongKey: it cannot.
    """
    chosen = sa.select(runs.c.run_id, runs.c.input).order_by(runs.c.created_at.desc()).limit(1)
    try:
        decrypted(connection, RUNS, connection.execute(chosen).mappings())
    except CorruptState:
        return  # the damage concerns that run alone


@without_timeout
def count(connection: sa.Connection) -> KeyCounts:
    """Count the values of all tables by the key that has encrypted them."""
    keys = keys_of(connection)
    by_key = {key.id: _count(connection, partial(_has_key, key)) for key in keys.keys}
    plain = _count(connection, lambda of, name: ~_is_encrypted(of, name))
    unknown = _count(connection, _is_encrypted) - sum(by_key.values())
    return KeyCounts(by_key, plain, unknown, None if keys.writer is None else keys.writer.id)


def _count(connection: sa.Connection, condition: Callable[[Encrypted, str], sa.ColumnElement[bool]]) -> int:
    total = 0
    for of in ENCRYPTED.values():
        counts = [sa.func.count(sa.case((_is_there(of, name, condition), 1))) for name in of.values]
        total += sum(connection.execute(sa.select(*counts)).one())
    return total


def _is_there(
    of: Encrypted, name: str, condition: Callable[[Encrypted, str], sa.ColumnElement[bool]]
) -> sa.ColumnElement[bool]:
    return sa.and_(of.table.c[name].is_not(None), condition(of, name))


def _has_key(key: Key, of: Encrypted, name: str) -> sa.ColumnElement[bool]:
    return _begins(of, name, TEXT_MARK + key.header.decode(), MARK + key.header)


def _begins(of: Encrypted, name: str, text: str, data: bytes) -> sa.ColumnElement[bool]:
    column = of.table.c[name]
    begin: str | bytes = text if name in of.texts else data
    return sa.func.substr(column, 1, len(begin)) == sa.literal(begin, column.type)


def _is_encrypted(of: Encrypted, name: str) -> sa.ColumnElement[bool]:
    marked = _begins(of, name, TEXT_MARK, MARK)
    return sa.and_(marked, ~_begins(of, name, PLAIN_TEXT, MARK + b":"))


def _is_old(keys: KeyRing, of: Encrypted, name: str) -> sa.ColumnElement[bool]:
    """Return whether a value is not as it would be written now."""
    if keys.writer is None:
        return _is_encrypted(of, name)
    return ~_begins(of, name, keys.text_prefix, keys.prefix)


@without_timeout
def old_rows(
    connection: sa.Connection, of: Encrypted, after: tuple[Any, ...] | None, limit: int
) -> list[tuple[Any, ...]]:
    """Return the primary keys of up to `limit` rows with old values, behind a key, in order.

    A read of its own: it may look at a whole table, and a write would keep other writers of SQLite waiting.
    """
    is_old = partial(_is_old, keys_of(connection))
    key = list(of.table.primary_key.columns)
    chosen = sa.select(*key).where(sa.or_(*(_is_there(of, name, is_old) for name in of.values)))
    if after is not None:
        chosen = chosen.where(sa.tuple_(*key) > sa.tuple_(*map(sa.literal, after)))
    limit = min(limit, BLOBS_AT_ONCE) if of is BLOBS else limit
    return [tuple(row) for row in connection.execute(chosen.order_by(*key).limit(limit))]


def rotate(connection: sa.Connection, of: Encrypted, rows: Sequence[tuple[Any, ...]]) -> Rotated:
    """Encrypt the old values of rows again, in one transaction.

    Raises:
        KeyMissing | WrongKey: a value cannot be decrypted; the transaction changes nothing.
    """
    rotated = Rotated()
    names = dict.fromkeys((*of.bound_to, *of.values))
    for row in rows:
        key = [column == value for column, value in zip(of.table.primary_key.columns, row, strict=True)]
        chosen = sa.select(*(of.table.c[name] for name in names)).where(*key)
        locking = chosen.with_for_update(key_share=True, skip_locked=True)
        there = connection.execute(locking).mappings().one_or_none()
        if there is not None:
            rotated += _rotate_row(connection, of, there, sa.and_(*key))
    return rotated


def _rotate_row(
    connection: sa.Connection, of: Encrypted, row: sa.RowMapping, key: sa.ColumnElement[bool]
) -> Rotated:
    """Encrypt the old values of a locked row; a damaged one stays as it is."""
    keys = keys_of(connection)
    bound = {name: row[name] for name in of.bound_to}
    values: dict[str, Any] = {}
    damaged = []
    for name in of.values:
        stored = row[name]
        if stored is None or not keys.is_old(stored if isinstance(stored, str) else bytes(stored)):
            continue
        try:
            [plain] = decrypted(connection, of, [{**bound, name: stored}])
        except CorruptState as error:
            damaged.append(error.message)
        else:
            values[name] = encrypted(connection, of, {**bound, name: plain[name]})[name]
    if values:
        connection.execute(of.table.update().where(key).values(values))
    return Rotated(1 if values else 0, len(values), tuple(damaged))


def record(connection: sa.Connection, done: Rotated, actor: Actor) -> None:
    """Record who has rotated, if anything was written."""
    keys = keys_of(connection)
    if not done.values:
        return
    after = canonical.encode({"rows": done.rows, "values": done.values})
    to = PLAIN if keys.writer is None else keys.writer.id
    act = Act(verb=Verb.ROTATE_KEYS, actor=actor, object=to, after=after)
    row = encrypted(connection, ACTS, codec.act_row(act, None))
    connection.execute(acts.insert().values(at=database_now(), **row))
