"""The outbox in SQL: which messages are due, who delivers each, and how a delivery went.

`available_at` of a pending message is when it is sent next, or the end of the lease of the process that sends
it now. A message is taken by an UPDATE under a lock of its row (Postgres) or of the file (SQLite). The result
is written only where `tries` is still that of the take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from flujo.domain.outbox import MessageState
from flujo.state import codec
from flujo.state.sql.encryption import OUTBOX, decrypted, encrypted
from flujo.state.sql.functions import database_now
from flujo.state.sql.tables import outbox

if TYPE_CHECKING:
    from collections.abc import Collection

    from flujo.domain.journal import RunId
    from flujo.domain.outbox import Message, Tried

_pending = sa.and_(outbox.c.delivered_at.is_(None), outbox.c.given_up_at.is_(None))
_IN_STATE = {
    MessageState.PENDING: _pending,
    MessageState.DELIVERED: outbox.c.delivered_at.is_not(None),
    MessageState.GIVEN_UP: outbox.c.given_up_at.is_not(None),
}
_oldest_due = (outbox.c.available_at, outbox.c.id)


def messages(
    connection: sa.Connection,
    states: Collection[MessageState],
    target: str | None,
    run_id: RunId | None,
    ids: Collection[int] | None,
    limit: int,
) -> list[Message]:
    """Return the messages that match, the newest first."""
    chosen = sa.select(*outbox.c).order_by(outbox.c.id.desc()).limit(limit)
    if states:
        chosen = chosen.where(sa.or_(*(_IN_STATE[state] for state in states)))
    if target is not None:
        chosen = chosen.where(outbox.c.target == target)
    if run_id is not None:
        chosen = chosen.where(outbox.c.run_id == run_id)
    if ids is not None:
        chosen = chosen.where(outbox.c.id.in_(list(ids)))
    return _messages(connection, chosen)


def _messages(connection: sa.Connection, chosen: sa.Select[Any]) -> list[Message]:
    rows = decrypted(connection, OUTBOX, connection.execute(chosen).mappings())
    return [codec.message(row) for row in rows]


def is_due(connection: sa.Connection, targets: Collection[str]) -> bool:
    """Return whether there is a message to take: a read, so that an idle process writes nothing."""
    due = sa.select(outbox.c.id).where(_due(targets)).limit(1)
    return connection.execute(due).first() is not None


def take(
    connection: sa.Connection, targets: Collection[str], owner: str, lease_s: float, limit: int
) -> list[Message]:
    """Take due messages for `owner`, the oldest first; rows that another process takes now are skipped."""
    due = sa.select(outbox.c.id).where(_due(targets)).order_by(*_oldest_due).limit(limit)
    ids = connection.scalars(due.with_for_update(skip_locked=True)).all()
    taken = outbox.update().where(outbox.c.id.in_(ids))
    until = database_now() + lease_s
    connection.execute(taken.values(available_at=until, tries=outbox.c.tries + 1, owner=owner))
    return _messages(connection, sa.select(*outbox.c).where(outbox.c.id.in_(ids)).order_by(outbox.c.id))


def settle(connection: sa.Connection, message: Message, tried: Tried) -> bool:
    """Record the result of a try, unless the message was taken or settled since then."""
    mine = sa.and_(outbox.c.id == message.id, outbox.c.tries == message.tries, _pending)
    values: dict[str, Any] = {"error": _stored_error(connection, message, tried.error)}
    match tried.state:
        case MessageState.DELIVERED:
            values["delivered_at"] = database_now()
        case MessageState.GIVEN_UP:
            values["given_up_at"] = database_now()
        case MessageState.PENDING:
            values["available_at"] = database_now() + tried.retry_s
    return connection.execute(outbox.update().where(mine).values(values)).rowcount == 1


def _stored_error(connection: sa.Connection, message: Message, error: str | None) -> str | None:
    row = {"run_id": message.run_id, "target": message.target, "event": message.event, "error": error}
    stored: str | None = encrypted(connection, OUTBOX, row)["error"]
    return stored


def redeliver(connection: sa.Connection, ids: Collection[int]) -> int:
    """Make messages due at once, as new ones are."""
    new = {"delivered_at": None, "given_up_at": None, "tries": 0, "available_at": database_now()}
    return connection.execute(outbox.update().where(outbox.c.id.in_(list(ids))).values(new)).rowcount


def _due(targets: Collection[str]) -> sa.ColumnElement[bool]:
    return sa.and_(_pending, outbox.c.available_at <= database_now(), outbox.c.target.in_(list(targets)))
