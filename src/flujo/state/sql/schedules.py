"""Schedules in the database: read, and changed together with the run that a change accepts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from flujo.domain.journal import RunId
from flujo.domain.run import RunStatus
from flujo.domain.schedule_records import NOT_ENDED, Changed, ScheduleOutcome, ScheduleRecord, Schedules
from flujo.state import codec, schedule_rules
from flujo.state.sql.encryption import ACTS, SCHEDULES, decrypted, encrypted
from flujo.state.sql.functions import database_now, schema_of
from flujo.state.sql.tables import acts, runs, schedules

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.schedule_records import ScheduleChange

    Accept = Callable[[sa.Connection, ScheduleChange], bool]

_all = sa.select(*schedules.c, database_now().label("now")).order_by(schedules.c.name)


def all_schedules(connection: sa.Connection) -> Schedules:
    """Return every schedule, and the database's time."""
    rows = decrypted(connection, SCHEDULES, connection.execute(_all).mappings())
    now = rows[0]["now"] if rows else connection.scalar(sa.select(database_now()))
    return Schedules(now=float(now or 0.0), records=tuple(codec.schedule(row) for row in rows))


def change(connection: sa.Connection, wanted: ScheduleChange, accept: Accept) -> Changed:
    """Make one change inside the connection's transaction.

    The row of the schedule is locked first, so of two workers that fire it the second one sees what the first
    has made of it. On SQLite the transaction has the whole file.

    Args:
        connection: in a write transaction.
        wanted: the change.
        accept: accepts its run inside this transaction; returns whether its id was free.
    """
    locked = sa.select(*schedules.c).where(schedules.c.name == wanted.name).with_for_update()
    rows = decrypted(connection, SCHEDULES, connection.execute(locked).mappings())
    there = codec.schedule(rows[0]) if rows else None
    is_blocked = wanted.run is not None and wanted.overlap != "allow"
    found = schedule_rules.judged(wanted, there, _blocker(connection, wanted) if is_blocked else None)
    if found.outcome in (ScheduleOutcome.LOST, ScheduleOutcome.BLOCKED):
        return found
    after = schedule_rules.written(wanted, found.outcome)
    if not _write(connection, wanted, after):
        return Changed(ScheduleOutcome.LOST)
    accepts = wanted.run is not None and found.outcome is ScheduleOutcome.DONE
    if accepts and not accept(connection, wanted):
        found = Changed(ScheduleOutcome.EXISTED)
    if wanted.act is not None and found.outcome is not ScheduleOutcome.EXISTED:
        row = encrypted(connection, ACTS, codec.act_row(wanted.act, None))
        connection.execute(acts.insert().values(at=database_now(), **row))
    return found


def _blocker(connection: sa.Connection, wanted: ScheduleChange) -> RunId | None:
    # A range of the key: the ids of a schedule's runs begin with its name and a hyphen.
    begin = f"{wanted.name}-"
    within = sa.and_(runs.c.run_id >= begin, runs.c.run_id < f"{wanted.name}.")
    open_ones = sa.select(runs.c.run_id, runs.c.status).where(
        within, runs.c.status.in_([str(status) for status in NOT_ENDED])
    )
    found = ((RunId(row.run_id), RunStatus(row.status)) for row in connection.execute(open_ones))
    return schedule_rules.blocker(wanted, found)


def _write(connection: sa.Connection, wanted: ScheduleChange, after: ScheduleRecord | None) -> bool:
    """Write the row; return whether it could be, because two processes may insert one at once."""
    own = schedules.c.name == wanted.name
    if after is None:
        return connection.execute(schedules.delete().where(own)).rowcount == 1
    row = encrypted(connection, SCHEDULES, codec.schedule_row(after))
    values: dict[str, Any] = {**row, "updated_at": database_now()}
    if wanted.before is not None:
        return connection.execute(schedules.update().where(own).values(values)).rowcount == 1
    insert = sqlite.insert if schema_of(connection) is None else postgresql.insert
    adding = insert(schedules).values(values).on_conflict_do_nothing().returning(schedules.c.name)
    return connection.scalar(adding) is not None
