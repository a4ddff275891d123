"""Events in the database: the locks that order senders and waits, and the reads and changes of rows.

A wait is opened and an event is sent under the lock of the event's name and key; on Postgres that is an
advisory lock of the transaction, on SQLite the lock of the file. It is taken before the rows of runs are
locked, and the locks of a transaction are taken in one order, so that two transactions never wait for each
other. An event to one run needs no such lock: its sender and the run's owner both lock the run's row.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from flujo.state import codec, events
from flujo.state.sql.encryption import EVENTS, decrypted, encrypting, selected
from flujo.state.sql.functions import database_now, schema_of
from flujo.state.sql.retry import without_timeout
from flujo.state.sql.statements import BoundColumns, Change, driver
from flujo.state.sql.tables import events as table
from flujo.state.sql.tables import pauses, runs

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from flujo.domain.journal import RunId
    from flujo.domain.run import Pause
    from flujo.domain.sent_events import SentEvent

MOST_WAITS = 100
"""How many waits are tried for an event to one of them, the longest waiting first."""
ALL_WAITS = 1_000_000_000

_LOCK = "SELECT pg_advisory_xact_lock(CAST(%s AS bigint))"

_is_free = table.c.taken_at.is_(None)
_of_id = sa.or_(
    table.c.event_id == sa.bindparam("event"),
    sa.and_(table.c.event_id > sa.bindparam("first"), table.c.event_id < sa.bindparam("last")),
)
_sent = sa.select(*table.c).where(_of_id).order_by(table.c.event_id)
_waits = (
    sa.select(*pauses.c)
    .where(
        pauses.c.event == sa.bindparam("name"),
        pauses.c.event_key == sa.bindparam("key"),
        pauses.c.answered_at.is_(None),
        ~pauses.c.void,
    )
    .order_by(pauses.c.asked_at, pauses.c.position, pauses.c.run_id)
    .limit(sa.bindparam("most"))
)
_for_wait = (
    sa.select(*table.c)
    .where(
        _is_free,
        table.c.name == sa.bindparam("name"),
        sa.or_(
            table.c.run_id == sa.bindparam("run"),
            sa.and_(table.c.run_id.is_(None), table.c.key == sa.bindparam("key")),
        ),
    )
    .order_by(table.c.at, table.c.event_id)
    .limit(sa.bindparam("most"))
)
_to_run = (
    sa.select(*table.c)
    .where(_is_free, table.c.run_id == sa.bindparam("run"))
    .order_by(table.c.at, table.c.event_id)
    .limit(sa.bindparam("most"))
)


def _rows(
    connection: sa.Connection, statement: sa.Select[Any], given: dict[str, Any]
) -> list[dict[str, Any]]:
    of = selected(statement)
    assert of is not None  # noqa: S101 - each of the statements reads whole rows of events or questions
    return decrypted(connection, of, connection.execute(statement, given).mappings())


def lock_of(name: str, key: str) -> int:
    """Return the number of the lock of a name and a key."""
    head = hashlib.sha256(f"flujo event {name!r} {key!r}".encode()).digest()
    return int.from_bytes(head[:8], "big", signed=True)


def lock(connection: sa.Connection, numbers: Collection[int]) -> None:
    """Take locks of names and keys until the end of the transaction; on SQLite it has the file already."""
    if schema_of(connection) is not None:
        for number in sorted(numbers):
            driver(connection).execute(_LOCK, (number,))


def sent(connection: sa.Connection, event_id: str) -> list[SentEvent]:
    """Return the event of an id, and its copies if it was sent to all waiting runs."""
    copies = f"{event_id}{events.COPY}"
    given = {"event": event_id, "first": copies, "last": copies + "\U0010ffff"}
    return [events.event(row) for row in _rows(connection, _sent, given)]


def waits(connection: sa.Connection, name: str, key: str, most: int = MOST_WAITS) -> list[events.Wait]:
    """Return the open waits for a name and a key, the longest waiting first."""
    given = {"name": name, "key": key, "most": most}
    return [(row["run_id"], codec.pause(row)) for row in _rows(connection, _waits, given)]


def free_for(connection: sa.Connection, run_id: RunId, pause: Pause, most: int) -> list[SentEvent]:
    """Return events that no run has taken and that a wait is for, the oldest first."""
    given = {"name": pause.event, "key": pause.event_key, "run": run_id, "most": most}
    return [events.event(row) for row in _rows(connection, _for_wait, given)]


def kept(connection: sa.Connection, run_id: RunId, waits: Sequence[Pause], most: int) -> list[SentEvent]:
    """Return the events that are kept for a run: those to it, and those for its waits."""
    found = {row["event_id"]: row for row in _rows(connection, _to_run, {"run": run_id, "most": most})}
    for wait in waits:
        given = {"name": wait.event, "key": wait.event_key, "run": run_id, "most": most}
        found |= {row["event_id"]: row for row in _rows(connection, _for_wait, given)}
    kept_ones = [events.event(row) for row in found.values()]
    return sorted(kept_ones, key=lambda each: (each.at, each.event_id))[:most]


@without_timeout
def delete_old(connection: sa.Connection, older_than_s: float, limit: int) -> int:
    """Delete up to `limit` events of that age that no stored run has taken; return how many.

    An event that a run has taken stays with the run, so that its repetition is recognised.
    """
    of_a_run = sa.exists().where(runs.c.run_id == table.c.taken_by)
    old = sa.and_(table.c.at < database_now() - older_than_s, ~of_a_run)
    chosen = sa.select(table.c.event_id).where(old).order_by(table.c.event_id).limit(limit)
    ids = connection.scalars(chosen.with_for_update(skip_locked=True)).all()
    if ids:
        connection.execute(table.delete().where(table.c.event_id.in_(ids)))
    return len(ids)


@cache
def insert_events(schema: str | None) -> Change:
    """Return what inserts events."""
    names = (*events.COLUMNS, *events.TAKEN_COLUMNS)
    given = BoundColumns({name: table.c[name].type for name in names}, schema)
    inserted = given.insert(sa.insert(table), {name: given[name] for name in names})
    return encrypting(EVENTS, given.change(inserted, "event_id"))


@cache
def take_events(schema: str | None) -> Change:
    """Return what notes which wait has taken an event."""
    types = {f"new_{name}": table.c[name].type for name in events.TAKEN_COLUMNS}
    given = BoundColumns({"of_event": table.c.event_id.type} | types, schema)
    taken = table.update().where(table.c.event_id == given["of_event"], _is_free)
    values: dict[str, Any] = {name: given[f"new_{name}"] for name in events.TAKEN_COLUMNS}
    return given.change(taken.values(values), "of_event")


@cache
def pass_events_on(schema: str | None) -> Change:
    """Return what gives events that no run has taken to another run."""
    types = {"new_run_id": table.c.run_id.type, "new_digest": table.c.digest.type}
    given = BoundColumns({"of_event": table.c.event_id.type} | types, schema)
    passed = table.update().where(table.c.event_id == given["of_event"], _is_free)
    values = passed.values(run_id=given["new_run_id"], digest=given["new_digest"])
    return encrypting(EVENTS, given.change(values, "of_event"), "of_event")
