"""Marks the runs of a database that was restored from a backup: their calls since then are unknown.

The mark is an act of the run. The first call of each enforced step without a call after the mark is in doubt
(`engine.idempotent_calls`). Marking counts as a claim: processes from before the restore are fenced off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from flujo.domain.acts import Act, Verb
from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.governance.key_ring import NO_KEYS, KeyRing
from flujo.state import codec
from flujo.state.sql import migrations
from flujo.state.sql.database import Database
from flujo.state.sql.encryption import ACTS, encrypted
from flujo.state.sql.functions import database_now
from flujo.state.sql.tables import SCHEMA, acts, runs

if TYPE_CHECKING:
    from flujo.domain.acts import Actor


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A run that may have made calls that the backup does not show."""

    run_id: RunId
    pipeline: str
    status: RunStatus
    was_marked: bool
    """Whether it was marked before, and not executed since."""


_ENDED = [str(status) for status in RunStatus if status.is_settled]
_marked_at = (
    sa.select(sa.func.max(acts.c.at))
    .where(acts.c.run_id == runs.c.run_id, acts.c.verb == str(Verb.AFTER_RESTORE))
    .scalar_subquery()
)
_unfinished = (
    sa.select(runs.c.run_id, runs.c.pipeline, runs.c.status, runs.c.updated_at, _marked_at.label("marked_at"))
    .where(runs.c.status.not_in(_ENDED))
    .order_by(runs.c.run_id)
)


def mark_unfinished(
    uri: str, actor: Actor, schema: str = SCHEMA, *, keys: KeyRing = NO_KEYS, dry_run: bool
) -> list[Unfinished]:
    """Mark every run that has not ended, in one transaction; return all of them, as they were before.

    Raises:
        StateError: the database does not answer.
    """
    database = Database(uri, schema=schema, keys=keys)
    try:
        migrations.ensure_current(database)
        with database.writing() as connection:
            found = connection.execute(_unfinished.with_for_update(of=runs)).all()
            listed = [
                Unfinished(
                    RunId(row.run_id),
                    row.pipeline,
                    RunStatus(row.status),
                    row.marked_at is not None and row.updated_at <= row.marked_at,
                )
                for row in found
            ]
            if not dry_run:
                for run in listed:
                    if not run.was_marked:
                        _mark(connection, run.run_id, actor)
            return listed
    finally:
        database.dispose()


def _mark(connection: sa.Connection, run_id: RunId, actor: Actor) -> None:
    now = connection.scalar(sa.select(database_now()))
    fenced = {"fence": runs.c.fence + 1, "claims": runs.c.claims + 1, "owner": None, "lease_until": None}
    connection.execute(runs.update().where(runs.c.run_id == run_id).values(updated_at=now, **fenced))
    act = Act(verb=Verb.AFTER_RESTORE, actor=actor, run_id=run_id)
    connection.execute(acts.insert().values(at=now, **encrypted(connection, ACTS, codec.act_row(act, None))))
