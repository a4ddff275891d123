"""Finds runs that wait without a reason, for `flujo doctor` and the log of workers."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from flujo.domain.run import RunStatus
from flujo.state.sql import queries
from flujo.state.sql.database import Database
from flujo.state.sql.functions import database_now
from flujo.state.sql.tables import SCHEMA, pauses, runs

IDLE_S = 3600.0
"""After this time without a process, a run that could continue is reported."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """A run that waits without a reason."""

    run_id: str
    pipeline: str
    status: str
    idle_s: float
    """How long ago it last changed."""
    has_no_wait: bool
    """Whether it waits for nothing at all; otherwise no process has taken it."""

    @property
    def described(self) -> str:
        """What is wrong with the run."""
        named = f"run {self.run_id} of {self.pipeline}"
        if self.has_no_wait:
            return f"{named} waits for nothing"
        return f"{named} is {self.status}, and no process has taken it for {self.idle_s / 3600:,.0f} h"


_open_pause = sa.exists().where(
    pauses.c.run_id == runs.c.run_id, pauses.c.answered_at.is_(None), ~pauses.c.void
)
_waits_for_nothing = sa.and_(runs.c.status == str(RunStatus.WAITING), ~runs.c.answered, ~_open_pause)


def stuck(uri: str, schema: str = SCHEMA, *, idle_s: float = IDLE_S, most: int = 10) -> list[Stuck]:
    """Return runs that wait for nothing, and runs that no process has taken for `idle_s`, the oldest first.

    Raises:
        StateError: the database does not answer.
    """
    database = Database(uri, schema=schema)
    try:
        with database.reading() as connection:
            return _found(connection, idle_s, most)
    finally:
        database.dispose()


def _found(connection: sa.Connection, idle_s: float, most: int) -> list[Stuck]:
    since = database_now() - idle_s
    is_available = sa.func.coalesce(runs.c.available_at, runs.c.updated_at) < since
    is_idle = sa.and_(
        queries.can_go_on, queries.unattended(connection), runs.c.updated_at < since, is_available
    )
    names = (runs.c.run_id, runs.c.pipeline, runs.c.status)
    age = (database_now() - runs.c.updated_at).label("idle_s")
    chosen = sa.select(*names, age, _waits_for_nothing.label("has_no_wait")).where(
        sa.or_(_waits_for_nothing, is_idle)
    )
    rows = connection.execute(chosen.order_by(runs.c.updated_at, runs.c.run_id).limit(most))
    return [Stuck(row.run_id, row.pipeline, row.status, row.idle_s, bool(row.has_no_wait)) for row in rows]
