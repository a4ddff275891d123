"""The list of workers in SQL."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from flujo.domain.journal import RunId
from flujo.domain.queues import SILENT_S, WorkerRecord, WorkerState
from flujo.domain.run import RunStatus
from flujo.state import owner_tokens
from flujo.state.sql.functions import database_now
from flujo.state.sql.tables import runs, workers

if TYPE_CHECKING:
    from collections.abc import Sequence

_GONE_S = 24 * 3600.0
"""After how long the row of a worker that was killed is deleted."""


def report(connection: sa.Connection, worker: WorkerRecord) -> WorkerState:
    """Record a sign of life, and return the state in the worker's row."""
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert
    row: dict[str, Any] = {
        "owner": worker.owner,
        "host": worker.host,
        "pid": worker.pid,
        "version": worker.version,
        "queues": list(worker.queues),
        "concurrency": worker.concurrency,
        "state": str(worker.state),
        "started_at": database_now(),
        "seen_at": database_now(),
    }
    added = insert(workers).values(row)
    seen = added.on_conflict_do_update(
        index_elements=["owner"],
        set_={
            "seen_at": added.excluded.seen_at,
            "state": sa.case(
                (added.excluded.state == str(WorkerState.DRAINING), added.excluded.state),
                else_=workers.c.state,
            ),
        },
    ).returning(workers.c.state)
    state = WorkerState(connection.execute(seen).scalar_one())
    connection.execute(workers.delete().where(workers.c.seen_at < database_now() - _GONE_S))
    return state


def set_state(connection: sa.Connection, owner: str, state: WorkerState) -> bool:
    """Set the state of a worker; return whether there is one."""
    changed = workers.update().where(workers.c.owner == owner).values(state=str(state))
    return bool(connection.execute(changed).rowcount)


def forget(connection: sa.Connection, owner: str) -> None:
    """Remove a worker from the list."""
    connection.execute(workers.delete().where(workers.c.owner == owner))


def living(connection: sa.Connection) -> list[WorkerRecord]:
    """Return the living workers with the runs that they execute, by their start."""
    silent = (database_now() - workers.c.seen_at).label("silent_s")
    listed = (
        sa.select(*workers.c, silent)
        .where(workers.c.seen_at > database_now() - SILENT_S)
        .order_by(workers.c.started_at, workers.c.owner)
    )
    rows = [
        row
        for row in connection.execute(listed).mappings()
        if not owner_tokens.is_provably_dead(row["owner"])
    ]
    executed = _executed(connection, [row["owner"] for row in rows]) if rows else {}
    return [
        WorkerRecord(
            owner=row["owner"],
            host=row["host"],
            pid=row["pid"],
            version=row["version"],
            queues=tuple(row["queues"]),
            concurrency=row["concurrency"],
            state=WorkerState(row["state"]),
            started_at=row["started_at"],
            seen_at=row["seen_at"],
            silent_s=max(0.0, row["silent_s"]),
            runs=tuple(executed.get(row["owner"], ())),
        )
        for row in rows
    ]


def _executed(connection: sa.Connection, owners: Sequence[str]) -> dict[str, list[RunId]]:
    """Return the runs of each owner, by their acceptance."""
    held = (
        sa.select(runs.c.owner, runs.c.run_id)
        .where(runs.c.status == str(RunStatus.RUNNING), runs.c.owner.in_(owners))
        .order_by(runs.c.created_at, runs.c.run_id)
    )
    found: defaultdict[str, list[RunId]] = defaultdict(list)
    for owner, run_id in connection.execute(held):
        found[owner].append(RunId(run_id))
    return found
