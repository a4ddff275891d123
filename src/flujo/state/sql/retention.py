"""Deletes in bounded batches what is old: runs that have ended, and contents that no run names any more.

The database deletes a run's journal, questions, calls, holds, acts and references with it. Several runs may
share a content, so it is deleted only when `blob_refs` has no row for it: looked up first, and once more
under a lock of its row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from flujo.domain import canonical
from flujo.domain.acts import OF_LOGINS, Act, Verb
from flujo.state import codec
from flujo.state.sql.encryption import ACTS, encrypted
from flujo.state.sql.functions import database_now, lease_now
from flujo.state.sql.retry import without_timeout
from flujo.state.sql.tables import acts, blob_refs, blobs, cache, limits, outbox, runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.acts import Actor
    from flujo.domain.run import RunStatus


def _old(statuses: Sequence[RunStatus], older_than_s: float) -> sa.ColumnElement[bool]:
    """Return the condition that a run and its whole family are old: its parents and tasks, at any depth."""
    names = [str(status) for status in statuses]

    def is_old(run: Any) -> sa.ColumnElement[bool]:
        return sa.and_(
            run.c.status.in_(names),
            run.c.updated_at < database_now() - older_than_s,
            sa.or_(run.c.owner.is_(None), run.c.lease_until <= lease_now(run.c.owner)),
        )

    young, task, kin = runs.alias("young"), runs.alias("task"), runs.alias("kin")
    has_family = sa.or_(
        young.c.parent_run.is_not(None), sa.exists().where(task.c.parent_run == young.c.run_id)
    )
    seed = sa.select(young.c.run_id, young.c.parent_run).where(~is_old(young), has_family)
    kept = seed.cte("kept", recursive=True)
    related = sa.or_(kin.c.run_id == kept.c.parent_run, kin.c.parent_run == kept.c.run_id)
    kept = kept.union(sa.select(kin.c.run_id, kin.c.parent_run).join(kept, related))
    return sa.and_(is_old(runs), runs.c.run_id.not_in(sa.select(kept.c.run_id)))


@without_timeout
def count_runs(connection: sa.Connection, statuses: Sequence[RunStatus], older_than_s: float) -> int:
    """Return how many runs there are to purge."""
    counted = sa.select(sa.func.count()).select_from(runs).where(_old(statuses, older_than_s))
    return int(connection.scalar(counted) or 0)


@without_timeout
def delete_runs(
    connection: sa.Connection,
    statuses: Sequence[RunStatus],
    older_than_s: float,
    limit: int,
    actor: Actor | None = None,
) -> int:
    """Delete up to `limit` runs, the oldest first, with all that belongs to them; return how many.

    The ids of the deleted runs are recorded as an act of `actor`.
    """
    chosen = sa.select(runs.c.run_id).where(_old(statuses, older_than_s)).order_by(runs.c.updated_at)
    # Rows that another transaction has locked (a claim, another purge) are skipped.
    ids = connection.scalars(chosen.limit(limit).with_for_update(skip_locked=True)).all()
    if ids:
        connection.execute(runs.delete().where(runs.c.run_id.in_(ids)))
    if ids and actor is not None:
        purged = canonical.encode(sorted(ids))
        act = Act(verb=Verb.PURGE, actor=actor, object=", ".join(statuses), before=purged)
        # Kept in its row, whatever its size: no run is left that could name a content.
        connection.execute(
            acts.insert().values(at=database_now(), **encrypted(connection, ACTS, codec.act_row(act, None)))
        )
    return len(ids)


@without_timeout
def delete_stale_answers(connection: sa.Connection, limit: int) -> int:
    """Delete up to `limit` cached answers that are not good any more; return how many."""
    stale = sa.select(cache.c.key).where(cache.c.expires_at <= database_now()).limit(limit)
    keys = connection.scalars(stale.with_for_update(skip_locked=True)).all()
    if keys:
        connection.execute(cache.delete().where(cache.c.key.in_(keys)))
    return len(keys)


MESSAGES_S = 30 * 86_400.0
"""How long messages are kept after they were settled, while their run is kept."""

_settled_at = sa.func.coalesce(outbox.c.delivered_at, outbox.c.given_up_at)


@without_timeout
def delete_messages(connection: sa.Connection, limit: int) -> int:
    """Delete up to `limit` messages that were delivered or given up long ago; return how many."""
    old = sa.select(outbox.c.id).where(_settled_at < database_now() - MESSAGES_S).limit(limit)
    ids = connection.scalars(old.with_for_update(skip_locked=True)).all()
    if ids:
        connection.execute(outbox.delete().where(outbox.c.id.in_(ids)))
    return len(ids)


LOGINS_S = 365 * 86_400.0
"""How long it is kept who logged in, logged out or was refused."""


@without_timeout
def delete_logins(connection: sa.Connection, limit: int) -> int:
    """Delete up to `limit` acts of logins that are old; return how many."""
    is_old = sa.and_(
        acts.c.verb.in_([str(verb) for verb in OF_LOGINS]), acts.c.at < database_now() - LOGINS_S
    )
    ids = connection.scalars(
        sa.select(acts.c.id).where(is_old).limit(limit).with_for_update(skip_locked=True)
    )
    found = ids.all()
    if found:
        connection.execute(acts.delete().where(acts.c.id.in_(found)))
    return len(found)


def take_turn(connection: sa.Connection, duty: str, every_s: float) -> bool:
    """Note that a duty is done now, unless that was less than `every_s` ago; return whether it is noted.

    One statement on one row of `limits`: of several processes at most one changes the row.
    """
    on_postgres = connection.dialect.name == "postgresql"
    insert = (postgresql.insert if on_postgres else sqlite.insert)(limits)
    now = sa.cast(database_now(), sa.BigInteger)
    new = insert.values(name=duty, key="", window=0, used=now, held=0)
    noted = new.on_conflict_do_update(
        index_elements=["name", "key", "window"],
        set_={"used": new.excluded.used},
        where=limits.c.used <= new.excluded.used - int(every_s),
    )
    return connection.execute(noted.returning(limits.c.name)).first() is not None


# Contents ------------------------------------------------------------------------------------------------

_unnamed = ~sa.exists().where(blob_refs.c.digest == blobs.c.digest)


@without_timeout
def unnamed_blobs(connection: sa.Connection) -> list[str]:
    """Return the contents that no run names."""
    return list(connection.scalars(sa.select(blobs.c.digest).where(_unnamed).order_by(blobs.c.digest)))


@without_timeout
def delete_blobs(connection: sa.Connection, digests: Sequence[str]) -> int:
    """Delete those of the contents that no run names by now; return how many.

    On Postgres a transaction that names a content holds its row until the commit (`Statements.hold_blobs`).
    Such a row is skipped here, and the next purge looks at it again. A transaction that comes later waits for
    this one, finds no row, and inserts it again.
    """
    free = sa.select(blobs.c.digest).where(blobs.c.digest.in_(digests), _unnamed).order_by(blobs.c.digest)
    held = connection.scalars(free.with_for_update(skip_locked=True)).all()
    # A statement of its own: it sees every reference that was committed before the rows were locked.
    return connection.execute(blobs.delete().where(blobs.c.digest.in_(held), _unnamed)).rowcount
