"""Which columns are encrypted at rest, and rows on their way to and from the database.

`codec` makes and reads plain rows; the key ring of the connection's database encrypts their values before the
driver gets them, and decrypts them afterwards. Digests of values are encrypted too: a digest of a short value
would confirm a guess of it. Ids, paths, states, times, usage, metadata, and the digests that name blobs and
cached answers stay readable, because the database finds rows by them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from flujo.governance.key_ring import NO_KEYS, KeyRing
from flujo.state.sql import tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

KEYS = "flujo_keys"
"""The execution option of a connection with the key ring of its database."""


@dataclass(frozen=True, slots=True)
class Encrypted:
    """The columns of a table that are encrypted, and what a value is bound to."""

    table: sa.Table
    bound_to: tuple[str, ...]
    """The columns of a row that its values belong to: known when it is inserted, and never changed."""
    values: tuple[str, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """Those of the values that are text to the database."""
        return tuple(name for name in self.values if not isinstance(self.table.c[name].type, sa.LargeBinary))

    def place(self, row: Mapping[str, Any], name: str, key: Sequence[str] = ()) -> str:
        """Return the place of a value; `key` has other names for the columns that it is bound to."""
        bound = "\x00".join(str(row[each] or "") for each in key or self.bound_to)
        return f"{self.table.name}.{name}\x00{bound}"


def _of(table: sa.Table, bound_to: str, values: str) -> Encrypted:
    return Encrypted(table, tuple(bound_to.split()), tuple(values.split()))


RUNS = _of(tables.runs, "run_id", "input context context_now output error seals")
JOURNAL = _of(tables.journal, "run_id path kind attempt", "input output patch error detail digest")
PAUSES = _of(tables.pauses, "run_id pause_id", "message answer_schema answer digest")
CLAIMS = _of(tables.question_claims, "run_id pause_id", "reason")
BLOBS = _of(tables.blobs, "digest", "data")
INTENTS = _of(tables.intents, "run_id key", "request result digest")
CACHE = _of(tables.cache, "key", "value digest")
# The ids of these two are made by the database, so their values are bound to what else names the row.
ACTS = _of(tables.acts, "run_id verb object", "before after digest")
OUTBOX = _of(tables.outbox, "run_id target event", "payload error digest")
EVENTS = _of(tables.events, "event_id", "payload digest")
SCHEDULES = _of(tables.schedules, "name", "definition digest")
FEED = _of(tables.feed, "run_id number", "data")
EVALUATIONS = _of(tables.evaluations, "key", "reason error")

ENCRYPTED = {
    each.table.name: each
    for each in (
        *(RUNS, JOURNAL, PAUSES, BLOBS, INTENTS, CACHE),
        *(ACTS, OUTBOX, EVENTS, SCHEDULES, FEED, EVALUATIONS, CLAIMS),
    )
}


def keys_of(connection: sa.Connection) -> KeyRing:
    """Return the key ring of the connection's database."""
    keys: KeyRing = connection.get_execution_options().get(KEYS, NO_KEYS)
    return keys


def encrypted(connection: sa.Connection, of: Encrypted, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row to insert, as it is stored."""
    return _encrypted(keys_of(connection), of, [row], of.bound_to, {name: name for name in of.values})[0]


def all_encrypted(
    connection: sa.Connection, of: Encrypted, rows: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return rows to insert, as they are stored."""
    return _encrypted(keys_of(connection), of, rows, of.bound_to, {name: name for name in of.values})


def encrypting(
    of: Encrypted, change: Callable[[sa.Connection, Any], None], *key: str
) -> Callable[[sa.Connection, Any], None]:
    """Return a change that encrypts the values of its rows first.

    With `key`, the rows say which row is changed by these names, and new values are named `new_…`.
    """
    names = {f"new_{name}" if key else name: name for name in of.values}

    def encrypted_change(connection: sa.Connection, rows: Any) -> None:
        keys = keys_of(connection)
        if keys.writer is not None or of.texts:
            rows = _encrypted(keys, of, rows, key or of.bound_to, names)
        change(connection, rows)

    return encrypted_change


def _encrypted(
    keys: KeyRing,
    of: Encrypted,
    rows: Iterable[Mapping[str, Any]],
    key: Sequence[str],
    names: Mapping[str, str],
) -> list[dict[str, Any]]:
    stored = [dict(row) for row in rows]
    if keys.writer is None and not of.texts:
        return stored
    for row in stored:
        for given, name in names.items():
            value = row.get(given)
            if isinstance(value, str):
                row[given] = keys.encrypt_text(value, of.place(row, name, key))
            elif value is not None:
                row[given] = keys.encrypt(value, of.place(row, name, key))
    return stored


def decrypted(
    connection: sa.Connection, of: Encrypted, rows: Iterable[Mapping[str, Any] | sa.RowMapping]
) -> list[dict[str, Any]]:
    """Return rows as they were before they were encrypted; plain values stay as they are.

    Raises:
        KeyMissing: a value has been encrypted with a key that the key ring does not have.
        WrongKey: the key ring has another key with the id.
        CorruptState: a value is damaged, or was moved from another place.
    """
    keys = keys_of(connection)
    found = [row if isinstance(row, dict) else dict(row) for row in rows]
    for row in found:
        for name in of.values:
            value = row.get(name)
            if value is None:
                continue
            if isinstance(value, str):
                if value[:1] == "\x1a":
                    row[name] = keys.decrypt_text(value, of.place(row, name))
            elif value[:1] == b"\x00":
                row[name] = keys.decrypt(bytes(value), of.place(row, name))
    return found


@cache
def selected(statement: Any) -> Encrypted | None:
    """Return the encrypted columns of the table that a statement reads; None when it reads none of them."""
    for column in statement.selected_columns:
        of = ENCRYPTED.get(column.table.name) if isinstance(column, sa.Column) else None
        if of is not None and column.name in of.values:
            return of
    return None
