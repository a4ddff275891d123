"""Acts in the database: those on no run are added here, and all are read over all runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from flujo.state import codec
from flujo.state.sql import queries
from flujo.state.sql.encryption import ACTS, decrypted, encrypted
from flujo.state.sql.functions import database_now
from flujo.state.sql.tables import acts

if TYPE_CHECKING:
    from flujo.domain.acts import Act, ActQuery


def add(connection: sa.Connection, act: Act) -> None:
    """Record an act on no run, with its values in its row."""
    row = encrypted(connection, ACTS, codec.act_row(act, None))
    connection.execute(acts.insert().values(at=database_now(), **row))


def matching(connection: sa.Connection, query: ActQuery) -> list[Act]:
    """Return the acts that match, the newest first."""
    columns = acts.c
    chosen = sa.select(*columns).order_by(columns.id.desc()).limit(query.limit)
    for column, wanted in (
        (columns.run_id, query.run_id),
        (columns.object, query.object),
        (columns.by, query.by),
    ):
        if wanted is not None:
            chosen = chosen.where(column == wanted)
    if query.verbs:
        chosen = chosen.where(columns.verb.in_([str(verb) for verb in query.verbs]))
    if query.since is not None:
        chosen = chosen.where(columns.at >= query.since)
    if query.until is not None:
        chosen = chosen.where(columns.at < query.until)
    rows = decrypted(connection, ACTS, connection.execute(chosen).mappings())
    large = queries.aside(connection, rows, codec.ACT_VALUES)
    return [codec.act(row, large) for row in rows]
