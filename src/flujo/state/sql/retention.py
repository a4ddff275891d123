"""What is old is taken away in bounded batches: runs that have ended, contents that nobody names any more.

A run goes with its journal, questions, calls, holds and evaluations, which the database deletes with it. A
content may be shared by several runs, so it goes only when no row names it: all rows are looked at first, and
under a lock once more those of runs that were touched since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from flujo.domain import canonical
from flujo.domain.run import PURGEABLE, RunStatus
from flujo.state import codec
from flujo.state.sql import queries
from flujo.state.sql.functions import database_now
from flujo.state.sql.retry import without_timeout
from flujo.state.sql.tables import blobs, cache, intents, journal, runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def _old(statuses: Sequence[RunStatus], older_than_s: float) -> sa.ColumnElement[bool]:
    return sa.and_(
        runs.c.status.in_([str(status) for status in statuses]),
        runs.c.updated_at < database_now() - older_than_s,
        sa.or_(runs.c.owner.is_(None), runs.c.lease_until <= database_now()),
    )


@without_timeout
def count_runs(connection: sa.Connection, statuses: Sequence[RunStatus], older_than_s: float) -> int:
    """Return how many runs there are to purge."""
    counted = sa.select(sa.func.count()).select_from(runs).where(_old(statuses, older_than_s))
    return int(connection.scalar(counted) or 0)


@without_timeout
def delete_runs(
    connection: sa.Connection, statuses: Sequence[RunStatus], older_than_s: float, limit: int
) -> int:
    """Delete up to `limit` runs, the oldest first, with all that belongs to them; return how many."""
    chosen = sa.select(runs.c.run_id).where(_old(statuses, older_than_s)).order_by(runs.c.updated_at)
    # A run that somebody is claiming just now is left alone, and two purges take different ones.
    ids = connection.scalars(chosen.limit(limit).with_for_update(skip_locked=True)).all()
    if ids:
        connection.execute(runs.delete().where(runs.c.run_id.in_(ids)))
    return len(ids)


@without_timeout
def delete_stale_answers(connection: sa.Connection, limit: int) -> int:
    """Delete up to `limit` cached answers that are not good any more; return how many."""
    stale = sa.select(cache.c.key).where(cache.c.expires_at <= database_now()).limit(limit)
    keys = connection.scalars(stale.with_for_update(skip_locked=True)).all()
    if keys:
        connection.execute(cache.delete().where(cache.c.key.in_(keys)))
    return len(keys)


# Contents ------------------------------------------------------------------------------------------------

_SOURCES: tuple[tuple[sa.Table, tuple[str, ...]], ...] = (
    (runs, codec.RUN_VALUES),
    (journal, codec.ENTRY_VALUES),
    (intents, codec.INTENT_VALUES),
)


@without_timeout
def unnamed_blobs(connection: sa.Connection) -> tuple[float, list[str]]:
    """Return the contents that no row names, and a moment before all of them were looked at."""
    now = float(connection.scalar(sa.select(database_now())) or 0)
    there = set(connection.scalars(sa.select(blobs.c.digest)))
    return now, sorted(there - _named(connection)) if there else []


@without_timeout
def delete_blobs(connection: sa.Connection, digests: Sequence[str], since: float) -> int:
    """Delete those of the contents that nobody has named since then; return how many."""
    if connection.dialect.name == "postgresql":
        # Whoever writes a name has kept the content first, in the same transaction: it is waited for here.
        connection.execute(sa.text("LOCK TABLE flujo.blobs IN SHARE ROW EXCLUSIVE MODE"))
    doomed = sorted(set(digests) - _named(connection, since=since))
    if doomed:
        connection.execute(blobs.delete().where(blobs.c.digest.in_(doomed)))
    return len(doomed)


def _named(connection: sa.Connection, *, since: float | None = None) -> set[str]:
    """Return the contents that rows name; with `since` those of runs that may have been written to since."""
    live = [str(status) for status in RunStatus if status not in PURGEABLE]
    recent = sa.true() if since is None else sa.or_(runs.c.updated_at >= since, runs.c.status.in_(live))
    named: set[str] = set()
    for table, columns in _SOURCES:
        chosen = sa.select(*(table.c[name] for name in columns)).where(
            sa.or_(*(_is_reference(table.c[name]) for name in columns)), recent
        )
        if table is not runs:
            chosen = chosen.join(runs, runs.c.run_id == table.c.run_id)
        named |= codec.references(connection.execute(chosen).mappings(), columns)
    closures = set(connection.scalars(sa.select(runs.c.closure).distinct().where(recent)))
    return named | closures | _files(connection, closures)


def _is_reference(column: sa.Column[Any]) -> sa.ColumnElement[bool]:
    return sa.func.substr(column, 1, 1) == sa.literal(codec.REFERENCE, sa.LargeBinary())


def _files(connection: sa.Connection, closures: Iterable[str]) -> set[str]:
    """Return the contents of the files that closures pin: those named inside the closures' own contents."""
    named: set[str] = set()
    for closure in closures:
        there = connection.scalar(sa.select(sa.func.count()).where(blobs.c.digest == closure))
        if there:
            manifest = canonical.decode(queries.contents(connection, [closure])[closure])
            named.update(manifest.get("files", {}).values())
    return named
