"""Runs and their background tasks in one transaction: the end of a task, and the cancellation of its parent.

The end of a task settles the waits of its parent, and what the parent's budget holds for it. A cancelled run
leaves wishes for its tasks. So a batch locks the rows of these relatives together with those of its own runs,
in the order of all ids: no two batches wait for each other. Both the end of a task and the opening of a wait
hold the parent's row, so that the later one sees the earlier one, and no wait is missed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from flujo.domain.journal import RunId
from flujo.domain.ledger import HoldState
from flujo.domain.queues import TASK_ID
from flujo.domain.run import ENDS_OF_TASKS, PauseKind, RunStatus, Write
from flujo.state import codec
from flujo.state.sql import queries
from flujo.state.sql.functions import among, fetch, ids_parameter
from flujo.state.sql.queries import OPEN_QUESTIONS
from flujo.state.sql.tables import budget_holds, pauses, runs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.state.sql.statements import Statements

_tasks: sa.BindParameter[str] = sa.bindparam("tasks", expanding=True)
_parents: sa.BindParameter[str] = sa.bindparam("parents", expanding=True)
_ends = [str(status) for status in ENDS_OF_TASKS]
_relatives = sa.select(runs.c.run_id, runs.c.parent_run, runs.c.parent_path, runs.c.status).where(
    runs.c.parent_run.is_not(None), sa.or_(runs.c.run_id.in_(_tasks), runs.c.parent_run.in_(_parents))
)
_lent = sa.select(*budget_holds.c).where(
    budget_holds.c.run_id.in_(_parents), budget_holds.c.state == sa.literal_column(f"'{HoldState.LENT}'")
)
# `coalesce` keeps databases from the index by status, which has every run that has ended.
_ended = sa.select(runs.c.run_id).where(
    among(runs.c.run_id),
    sa.func.coalesce(runs.c.status, sa.literal_column("''")).in_(
        [sa.literal_column(f"'{status}'") for status in _ends]
    ),
)
_waits = OPEN_QUESTIONS.where(pauses.c.kind == sa.literal_column(f"'{PauseKind.CHILDREN}'"))
"""The open waits alone: a map over workers has one for each batch, and each end of a batch looks here."""


@dataclass(slots=True)
class Family:
    """The relatives of the runs of a batch."""

    parents: Mapping[str, str] = field(default_factory=dict)
    """The parent of each task that ends."""
    tasks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The tasks that have not ended, of each run that is cancelled."""
    launches: Mapping[str, str] = field(default_factory=dict)
    """The path of the launch of each task that ends, in its parent."""

    @property
    def ids(self) -> set[str]:
        """All relatives."""
        return {*self.parents.values(), *(task for tasks in self.tasks.values() for task in tasks)}

    def waiting(self, request: Any) -> set[str]:
        """Return the runs whose waits may be settled by a request."""
        if not isinstance(request, Write):
            return set()
        opened = any(pause.awaits_tasks for pause in request.pauses)
        parent = self.parents.get(request.run_id) if _ends_task(request) else None
        return {each for each in (request.run_id if opened else None, parent) if each is not None}


def cancels(request: Any) -> bool:
    """Return whether a request ends its run as cancelled."""
    return (
        isinstance(request, Write) and request.move is not None and request.move.status is RunStatus.CANCELLED
    )


def settles(request: Any) -> bool:
    """Return whether a request is the last commit of a task: one that failed or is parked may be retried."""
    return _ends_task(request) and request.move.status.is_settled


def _ends_task(request: Any) -> bool:
    return (
        isinstance(request, Write)
        and request.move is not None
        and request.move.status in ENDS_OF_TASKS
        and request.run_id.startswith(TASK_ID)
    )


def of(connection: sa.Connection, requests: Sequence[Any]) -> Family:
    """Return the relatives that a batch concerns; without a query when it ends no task and cancels no run."""
    ending = [each.run_id for each in requests if _ends_task(each)]
    cancelled = [each.run_id for each in requests if cancels(each)]
    if not (ending or cancelled):
        return Family()
    found = connection.execute(_relatives, {"tasks": ending, "parents": cancelled}).all()
    tasks: dict[str, list[str]] = {}
    for row in found:
        if row.parent_run in cancelled and row.status not in _ends:
            tasks.setdefault(row.parent_run, []).append(row.run_id)
    ends = [row for row in found if row.run_id in ending]
    parents = {row.run_id: row.parent_run for row in ends}
    return Family(parents, tasks, {row.run_id: row.parent_path for row in ends})


def settle_budgets(
    connection: sa.Connection, known: Statements, family: Family, ended: Sequence[str]
) -> None:
    """Replace what was lent to tasks by what they have used; the batch has written all that they recorded.

    The parent's row is locked, so its launch is committed, and no other transaction settles the same hold.
    """
    if not ended:
        return
    places = {(family.parents[task], family.launches[task]): task for task in ended}
    rows = connection.execute(_lent, {"parents": sorted({run_id for run_id, _ in places})}).mappings().all()
    spent = []
    for row in rows:
        if (task := places.get((row["run_id"], row["path"]))) is not None:
            used = queries.ledger(connection, RunId(task)).most
            hold = replace(codec.hold(row), state=HoldState.SPENT, usage=used)
            spent.append(codec.hold_row(RunId(row["run_id"]), hold))
    if spent:
        known.keep_holds(connection, spent)


def wake(connection: sa.Connection, known: Statements, parents: Sequence[str], now: float) -> set[str]:
    """Settle the open waits of runs whose tasks have all ended; return the runs."""
    if not parents:
        return set()
    rows = fetch(connection, _waits, ids_parameter(connection, parents))
    waits = [(row["run_id"], codec.pause(row)) for row in rows]
    tasks = sorted({task for _, pause in waits for task in pause.tasks})
    if not waits:
        return set()
    ended = {row["run_id"] for row in fetch(connection, _ended, ids_parameter(connection, tasks))}
    settled = [
        (run_id, codec.settled(pause, None, now, None)) for run_id, pause in waits if pause.tasks <= ended
    ]
    if settled:
        known.settle_pauses(
            connection,
            [
                {
                    "of_run": run_id,
                    "of_pause": pause.pause_id,
                    "new_answer": None,
                    "new_answered_at": now,
                    "new_digest": codec.pause_digest(run_id, pause),
                    "new_by": None,
                }
                for run_id, pause in settled
            ],
        )
        known.note_answers(
            connection, [{"of_run": run_id} for run_id in sorted({each for each, _ in settled})]
        )
    return {run_id for run_id, _ in settled}
