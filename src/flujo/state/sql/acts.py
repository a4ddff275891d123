"""Acts in the database: those that change nothing else are added here, and all are read over all runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from flujo.state import codec, rules
from flujo.state.sql import queries
from flujo.state.sql.encryption import ACTS, decrypted, encrypted
from flujo.state.sql.functions import database_now
from flujo.state.sql.tables import acts, runs

if TYPE_CHECKING:
    from flujo.domain.acts import Act, ActQuery


def add(connection: sa.Connection, act: Act) -> None:
    """Record an act that changes nothing else, with its values in its row.

    Raises:
        RunNotFound: there is no run that it is on.
    """
    if act.run_id is not None:
        # The lock holds back a purge of the run until the act is there.
        locking = sa.select(runs.c.run_id).where(runs.c.run_id == act.run_id)
        if connection.scalar(locking.with_for_update(read=True, key_share=True)) is None:
            raise rules.no_run(act.run_id)
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
