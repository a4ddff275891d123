"""What a COMMIT came to whose answer got lost; only on Postgres, which numbers its transactions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import exc

from flujo.exceptions import StateBackendUnavailable
from flujo.state.sql.database import begin_write

if TYPE_CHECKING:
    from collections.abc import Sequence

_OUTCOME = """
    SELECT pg_xact_status(CAST(:id AS xid8)), EXISTS (
        SELECT FROM {tables}runs WHERE run_id = ANY(:ids) AND xmin = CAST(CAST(:id AS xid8) AS xid)
        UNION ALL
        SELECT FROM {tables}journal WHERE run_id = ANY(:ids) AND xmin = CAST(CAST(:id AS xid8) AS xid)
    )"""
"""Reads the result of a transaction, and whether this store's runs show it."""

_NEVER_HEARD_OF = "22023"
"""What Postgres says of a transaction whose number it has not given out."""


def was_committed(
    connection: sa.Connection, tables: str, transaction_id: str | None, run_ids: Sequence[str]
) -> bool:
    """Return whether a transaction that wrote to some of these runs was committed.

    A server that was killed may give out a number again that was never on its disk. So a transaction is
    only ours if it left something in our runs; if not, it is made again, carefully.

    Args:
        connection: of a new session.
        tables: the prefix of the tables' names.
        transaction_id: its number.
        run_ids: the runs of its requests.

    Raises:
        StateBackendUnavailable: the server has not decided yet.
    """
    outcome = sa.text(_OUTCOME.format(tables=tables))
    try:
        with begin_write(connection):
            state, is_ours = connection.execute(outcome, {"id": transaction_id, "ids": run_ids}).one()
    except exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _NEVER_HEARD_OF:
            raise
        state, is_ours = "lost", False
    if state == "in progress":
        raise StateBackendUnavailable("the database has not decided about a commit yet")
    return bool(state == "committed" and is_ours)
