"""The feeds of runs in SQL. Nothing here waits for a lock that a write of a run holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from flujo.domain.feed import KEPT_S, MAX_LINES, WATCH_S, first_number, stored_line
from flujo.domain.run import ENDS_OF_TASKS
from flujo.state.sql.encryption import FEED, all_encrypted, decrypted
from flujo.state.sql.functions import among, database_now, fetch, ids_parameter, lease_now
from flujo.state.sql.tables import feed, runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.feed import FeedLine

_PATIENCE_MS = 2000
"""How long Postgres may work at one of these statements: a feed that comes late is of no use."""

_hurried = sa.select(
    sa.func.set_config("statement_timeout", str(_PATIENCE_MS), True),
    sa.func.set_config("synchronous_commit", "off", True),
)
"""For the transaction alone: what is lost with the server's memory may be lost."""


_last = sa.select(sa.func.max(feed.c.number)).where(feed.c.run_id == runs.c.run_id).scalar_subquery()
_last_numbers = sa.select(runs.c.run_id, _last.label("number")).where(among(runs.c.run_id))
"""One look into the key of the table for each run, however long its feed is."""


def _hurry(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(_hurried)


def watch(connection: sa.Connection, run_ids: Sequence[str]) -> None:
    """Note that runs are watched, unless they have ended or that was noted lately.

    A row is changed once in half of `WATCH_S`, however many follow its run. Of several rows those that are
    locked are left to the next call: waiting for them with locks on others could end in a deadlock.
    """
    _hurry(connection)
    now = database_now()
    chosen = sa.select(runs.c.run_id).where(
        runs.c.run_id.in_(run_ids),
        runs.c.status.not_in([str(status) for status in ENDS_OF_TASKS]),
        sa.or_(runs.c.watched_until.is_(None), runs.c.watched_until < now + WATCH_S / 2),
    )
    locking = chosen.with_for_update(key_share=True, skip_locked=len(run_ids) > 1)
    if found := connection.scalars(locking).all():
        noted = runs.update().where(runs.c.run_id.in_(found))
        connection.execute(noted.values(watched_until=now + WATCH_S))


def add(connection: sa.Connection, run_id: str, fence: int, lines: Sequence[FeedLine]) -> None:
    """Add lines with the next numbers, and delete those that are too many.

    The fence is compared without a lock. Of two owners at the moment of a claim, the unique key of the table
    refuses the second one that takes a number.
    """
    _hurry(connection)
    last = sa.select(sa.func.max(feed.c.number)).where(feed.c.run_id == run_id).scalar_subquery()
    held = sa.select(database_now(), last).where(runs.c.run_id == run_id, runs.c.fence == fence)
    found = connection.execute(held).first()
    if found is None:
        return
    first = first_number(found[1] or 0, found[0])
    rows = [
        {
            "run_id": run_id,
            "number": number,
            "at": line.at,
            "kind": str(line.kind),
            "path": line.path,
            "data": line.data,
        }
        for number, line in enumerate(lines, first)
    ]
    connection.execute(feed.insert(), all_encrypted(connection, FEED, rows))
    mine = feed.c.run_id == run_id
    oldest = sa.select(feed.c.number).where(mine).order_by(feed.c.number.desc()).limit(1).offset(MAX_LINES)
    connection.execute(feed.delete().where(mine, feed.c.number <= oldest.scalar_subquery()))


def last_numbers(connection: sa.Connection, run_ids: Sequence[str]) -> dict[str, int]:
    """Return the number of the last line of each run that has a feed."""
    rows = fetch(connection, _last_numbers, ids_parameter(connection, run_ids))
    return {row["run_id"]: row["number"] for row in rows if row["number"] is not None}


def lines_after(connection: sa.Connection, run_id: str, number: int) -> list[FeedLine]:
    """Return the feed of a run behind a number, in order."""
    chosen = sa.select(*feed.c).where(feed.c.run_id == run_id, feed.c.number > number).order_by(feed.c.number)
    names = ("number", "at", "kind", "path", "data")
    rows = decrypted(connection, FEED, connection.execute(chosen).mappings())
    lines = (stored_line(*(row[name] for name in names)) for row in rows)
    return [line for line in lines if line is not None]


def delete_old(connection: sa.Connection) -> None:
    """Delete the feeds of runs whose owners have left them long ago."""
    left = sa.or_(runs.c.owner.is_(None), runs.c.lease_until <= lease_now(runs.c.owner))
    old = sa.exists().where(runs.c.run_id == feed.c.run_id, left, runs.c.updated_at < database_now() - KEPT_S)
    connection.execute(feed.delete().where(old))
