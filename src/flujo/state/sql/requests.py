"""Limits of a provider in SQL: what all processes of a database have sent to it in the last minute.

`limits('provider:NAME', 'sent', MICROSECOND)` has a row for each request, with its tokens. A request is
counted under a lock of the row `limits('provider:NAME', '', 0)`, so that two processes never count at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from flujo.state.requests import MICROSECONDS, Sent, admitted
from flujo.state.sql.functions import database_now
from flujo.state.sql.tables import limits

if TYPE_CHECKING:
    from flujo.domain.providers import Admission, Allowed

_LOCK, _SENT = "", "sent"


def admit(
    connection: sa.Connection, provider: str, tokens: int, allowed: Allowed, span_s: float
) -> Admission:
    """Count a request as sent, or say how long it has to wait."""
    name = _row(provider)
    _lock(connection, name)
    now = int(float(connection.scalar(sa.select(database_now())) or 0.0) * MICROSECONDS)
    of_provider = sa.and_(limits.c.name == name, limits.c.key == _SENT)
    old = limits.c.window <= now - int(span_s * MICROSECONDS)
    connection.execute(limits.delete().where(of_provider, old))
    window = limits.c.window
    counted = sa.select(
        sa.func.count(),
        sa.func.coalesce(sa.func.sum(limits.c.used), 0),
        sa.func.coalesce(sa.func.min(window), 0),
        sa.func.coalesce(sa.func.max(window), 0),
    ).where(of_provider)
    found = Sent(*map(int, connection.execute(counted).one()))
    admission = admitted(found, tokens, allowed, span_s, now)
    if admission.ticket is not None:
        row = {"name": name, "key": _SENT, "window": admission.ticket, "used": tokens, "held": 0}
        connection.execute(limits.insert().values(row))
    return admission


def settle(connection: sa.Connection, provider: str, ticket: int, tokens: int | None) -> None:
    """Replace the tokens of a request; None removes it."""
    mine = (limits.c.name == _row(provider), limits.c.key == _SENT, limits.c.window == ticket)
    if tokens is None:
        connection.execute(limits.delete().where(*mine))
    else:
        connection.execute(limits.update().where(*mine).values(used=tokens))


def _lock(connection: sa.Connection, name: str) -> None:
    locking = sa.select(limits.c.name).where(
        limits.c.name == name, limits.c.key == _LOCK, limits.c.window == 0
    )
    if connection.scalar(locking.with_for_update()) is None:
        insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(limits)
        row = {"name": name, "key": _LOCK, "window": 0, "used": 0, "held": 0}
        connection.execute(insert.values(row).on_conflict_do_nothing())
        connection.execute(locking.with_for_update())


def _row(provider: str) -> str:
    return f"provider:{provider}"
