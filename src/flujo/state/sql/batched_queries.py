"""What is asked of many runs at once: a statement for all of them costs hardly more than one for each."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from flujo.domain.journal import ROOT
from flujo.domain.run import Progress
from flujo.domain.usage import NOTHING
from flujo.state import codec
from flujo.state.sql import queries
from flujo.state.sql.functions import among, fetch_all, ids_parameter
from flujo.state.sql.statements import QUESTIONS
from flujo.state.sql.tables import journal, runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flujo.domain.run import Pause, RunRecord

_runs = sa.select(*queries.RUN_COLUMNS, queries.EARLIEST_DEADLINE).where(among(runs.c.run_id))
_newest = (
    sa.select(journal.c.run_id, sa.func.max(journal.c.seq).label("last_seq"))
    .where(among(journal.c.run_id))
    .group_by(journal.c.run_id)
)
_usages = sa.select(journal.c.run_id, journal.c.usage).where(
    among(journal.c.run_id), journal.c.usage.is_not(None)
)
_first_level = (
    sa.select(*journal.c)
    .where(
        among(journal.c.run_id),
        journal.c.parent == sa.literal_column(f"'{ROOT}'"),
        journal.c.path != sa.literal_column(f"'{ROOT}'"),
    )
    .order_by(journal.c.run_id, journal.c.seq)
)


def records(connection: sa.Connection, ids: Sequence[str]) -> Mapping[str, RunRecord]:
    """Return the runs that are there."""
    [rows] = fetch_all(connection, [_runs], ids_parameter(connection, ids))
    return {record.run_id: record for record in queries.decoded(connection, rows)}


def questions(connection: sa.Connection, ids: Sequence[str]) -> Mapping[str, list[Pause]]:
    """Return the questions of runs, in the order in which they were asked."""
    [rows] = fetch_all(connection, [QUESTIONS], ids_parameter(connection, ids))
    asked = _by_run(rows)
    return {run_id: [codec.pause(row) for row in asked[run_id]] for run_id in ids}


def progress(connection: sa.Connection, ids: Sequence[str]) -> Mapping[str, Progress]:
    """Return how far runs are, and what a walk reads first."""
    statements = [_newest, _usages, _first_level, QUESTIONS]
    newest, used, level, asked = map(
        _by_run, fetch_all(connection, statements, ids_parameter(connection, ids))
    )
    rows = [row for each in level.values() for row in each]
    aside = queries.aside(connection, rows, codec.ENTRY_VALUES)
    return {
        run_id: Progress(
            last_seq=max((row["last_seq"] for row in newest[run_id]), default=0),
            usage=sum((codec.spent(row) for row in used[run_id]), NOTHING),
            first=tuple(codec.entry(row, aside) for row in level[run_id]),
            pauses=tuple(codec.pause(row) for row in asked[run_id]),
        )
        for run_id in ids
    }


def _by_run(rows: Iterable[dict[str, Any]]) -> defaultdict[str, list[dict[str, Any]]]:
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["run_id"]].append(row)
    return found
