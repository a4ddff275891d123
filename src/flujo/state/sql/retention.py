"""Deletes in bounded batches what is old: runs that have ended, and contents that no run names any more.

The database deletes a run's journal, questions, calls, holds, acts and references with it. A run with too
many of these is marked first, which hides it, and deleted in parts, its row last. Several runs may share a
content, so it is deleted only when `blob_refs` has no row for it: looked up first, and once more under a
lock of its row.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from flujo.domain import canonical
from flujo.domain.acts import OF_LOGINS, Act, Verb
from flujo.domain.run import RunStatus
from flujo.state import codec
from flujo.state.sql.encryption import ACTS, encrypted
from flujo.state.sql.functions import database_now, lease_now
from flujo.state.sql.queries import PURGE, is_whole
from flujo.state.sql.retry import without_timeout
from flujo.state.sql.tables import acts, blob_refs, blobs, cache, limits, metadata, outbox, runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.acts import Actor


ENTRIES_OF_A_RUN = 50
"""How many entries a run of a batch has on average at most; runs with more make smaller batches."""

_OF_A_RUN = tuple(
    (table, next(column for column in table.primary_key if column.name != "run_id"))
    for table in reversed(metadata.sorted_tables)
    if any(key.column is runs.c.run_id for key in table.foreign_keys)
)
"""The tables whose rows go with their run, each with the column that orders the rows of one run."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a walk over the runs of a status has come to: the oldest starts come first."""

    created_at: float = 0.0
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class Deleted:
    """What one transaction of a purge came to."""

    runs: int
    """How many runs no reader finds any more."""
    are_in_parts: bool
    """Whether one of them is too large for a transaction, so that `delete_part` deletes its rows."""
    place: Place | None
    """Where the next transaction continues; None when all runs of the status were looked at."""


def _is_old(run: Any, names: Sequence[str], older_than_s: float) -> sa.ColumnElement[bool]:
    return sa.and_(
        run.c.status.in_(names),
        run.c.updated_at < database_now() - older_than_s,
        sa.or_(run.c.owner.is_(None), run.c.lease_until <= lease_now(run.c.owner)),
        is_whole(run),
    )


def _old(
    statuses: Sequence[RunStatus], older_than_s: float, among: Sequence[str] | None = None
) -> sa.ColumnElement[bool]:
    """Return the condition that a run and its whole family are old: its parents and tasks, at any depth.

    Of the runs `among`, if given; then only their families are read, however many other runs there are.
    """
    names = [str(status) for status in statuses]
    young, task = runs.alias("young"), runs.alias("task")
    has_family = sa.or_(
        young.c.parent_run.is_not(None), sa.exists().where(task.c.parent_run == young.c.run_id)
    )
    seed = sa.select(young.c.run_id, young.c.parent_run).where(
        ~_is_old(young, names, older_than_s), is_whole(young), has_family
    )
    if among is not None:
        own = sa.select(runs.c.run_id, runs.c.parent_run).where(runs.c.run_id.in_(among))
        seed = seed.where(young.c.run_id.in_(sa.select(_with_kin(own, "families").c.run_id)))
    is_old = _is_old(runs, names, older_than_s)
    if among is not None:
        is_old = sa.and_(runs.c.run_id.in_(among), is_old)
    return sa.and_(is_old, runs.c.run_id.not_in(sa.select(_with_kin(seed, "kept").c.run_id)))


def _with_kin(seed: sa.Select[Any, Any], name: str) -> sa.CTE:
    """Return some runs with all that are related to them."""
    kin, found = runs.alias(f"kin_of_{name}"), seed.cte(name, recursive=True)
    related = sa.or_(kin.c.run_id == found.c.parent_run, kin.c.parent_run == found.c.run_id)
    return found.union(sa.select(kin.c.run_id, kin.c.parent_run).join(found, related))


@without_timeout
def count_runs(connection: sa.Connection, statuses: Sequence[RunStatus], older_than_s: float) -> int:
    """Return how many runs there are to purge."""
    counted = sa.select(sa.func.count()).select_from(runs).where(_old(statuses, older_than_s))
    return int(connection.scalar(counted) or 0)


@without_timeout
def delete_runs(
    connection: sa.Connection,
    status: RunStatus,
    statuses: Sequence[RunStatus],
    older_than_s: float,
    limit: int,
    entries: int,
    place: Place,
    actor: Actor | None = None,
) -> Deleted:
    """Delete the next old runs of a status with all that belongs to them.

    A run with more than `entries` entries is only marked: no reader finds it from then on, and nothing can
    claim it. Its rows are deleted by `delete_part`, also by a later purge when this one is interrupted.

    Args:
        connection: in a write transaction.
        status: one of the statuses that are purged.
        statuses: all of them; the family of a run must be old in these.
        older_than_s: the least age.
        limit: the maximum number of runs.
        entries: the maximum number of their entries.
        place: what the transaction before has returned.
        actor: the author of the act that records the ids of the runs.
    """
    found, place_after = _next_runs(connection, status, older_than_s, limit, entries, place)
    chosen = sa.select(runs.c.run_id).where(_old(statuses, older_than_s, among=list(found)))
    # Rows that another transaction has locked (a claim, another purge) are skipped.
    ids = connection.scalars(chosen.with_for_update(skip_locked=True)).all() if found else []
    large = [run_id for run_id in ids if found[run_id] > entries]
    if small := [run_id for run_id in ids if found[run_id] <= entries]:
        connection.execute(runs.delete().where(runs.c.run_id.in_(small)))
    if large:
        mark(connection, large, None if actor is None else actor.by)
    if ids and actor is not None:
        purged = canonical.encode(sorted(ids))
        act = Act(verb=Verb.PURGE, actor=actor, object=", ".join(statuses), before=purged)
        # Kept in its row, whatever its size: no run is left that could name a content.
        connection.execute(
            acts.insert().values(at=database_now(), **encrypted(connection, ACTS, codec.act_row(act, None)))
        )
    return Deleted(len(ids), bool(large), place_after)


def _next_runs(
    connection: sa.Connection, status: RunStatus, older_than_s: float, limit: int, entries: int, place: Place
) -> tuple[dict[str, int], Place | None]:
    """Return runs that are old themselves, with the number of their entries, and the place after them."""
    # A run is not younger than its start. A number, so that the index by status ends at the young runs.
    before = float(connection.scalar(sa.select(database_now())) or 0.0) - older_than_s
    following = (
        sa.select(runs.c.run_id, runs.c.created_at, runs.c.entries)
        .where(
            _is_old(runs, [str(status)], older_than_s),
            runs.c.created_at < before,
            runs.c.created_at >= place.created_at,
            sa.or_(runs.c.created_at > place.created_at, runs.c.run_id > place.run_id),
        )
        .order_by(runs.c.created_at, runs.c.run_id)
        .limit(limit)
    )
    found: dict[str, int] = {}
    rows = connection.execute(following).all()
    for row in rows:
        if found and sum(found.values()) + row.entries > entries:
            return found, place
        found[row.run_id] = row.entries
        place = Place(row.created_at, row.run_id)
    return found, place if len(rows) == limit else None


ERASURE = "erasure "
"""What the name of who has marked a run begins with when a person is erased; a purge leaves that run."""


def mark(connection: sa.Connection, run_ids: Sequence[str], by: str | None) -> None:
    """Hide runs whose rows are deleted in parts from all readers; nothing continues such a run."""
    completed = str(RunStatus.COMPLETED)
    ended = sa.case((runs.c.status == completed, completed), else_=str(RunStatus.CANCELLED))
    gone = {"answered": False, "ends_by": None, "watched_until": None}
    marked = runs.update().where(runs.c.run_id.in_(run_ids))
    connection.execute(marked.values(status=ended, wish=PURGE, wish_by=by, wish_at=database_now(), **gone))


@without_timeout
def delete_part(connection: sa.Connection, limit: int) -> bool:
    """Delete up to `limit` rows of a table of a marked run, the run last; return whether there was one.

    Two processes never delete the same run: the second one skips its row.
    """
    is_marked = sa.and_(runs.c.wish.is_not(None), runs.c.wish == PURGE)  # the first has an index
    is_erased = sa.func.coalesce(runs.c.wish_by, "").startswith(ERASURE)
    chosen = sa.select(runs.c.run_id).where(is_marked, ~is_erased).limit(1)
    run_id = connection.scalar(chosen.with_for_update(skip_locked=True))
    if run_id is None:
        return False
    delete_rows(connection, run_id, limit)
    return True


def delete_rows(connection: sa.Connection, run_id: str, limit: int) -> Counter[str]:
    """Delete up to `limit` rows of each table of a run until one has more; return how many, by table.

    The row of the run is the last.
    """
    removed = Counter[str]()
    for table, column in _OF_A_RUN:
        is_own = table.c.run_id == run_id
        last = connection.scalar(sa.select(column).where(is_own).order_by(column).offset(limit - 1).limit(1))
        if last is not None:
            # The attempts at one path have one value, so these can be a few more.
            removed[table.name] = connection.execute(table.delete().where(is_own, column <= last)).rowcount
            return removed
        removed[table.name] = connection.execute(table.delete().where(is_own)).rowcount
    removed[runs.name] = connection.execute(runs.delete().where(runs.c.run_id == run_id)).rowcount
    return removed


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
