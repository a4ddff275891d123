"""Figures of runs and model calls, added up by the database.

A run is found by its start, and its model calls by the index of entries with usage, so that the cost is that
of the given time. The names of agents and models stand in values that may be encrypted: then the
model calls, and nothing else of a journal, are read and added up in this process.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSON

from flujo.domain.figures import Figure
from flujo.domain.journal import UNFINISHED
from flujo.domain.usage import NOTHING, Usage
from flujo.state import codec, rules
from flujo.state.sql import listing
from flujo.state.sql.encryption import JOURNAL, decrypted, keys_of
from flujo.state.sql.tables import journal, runs
from flujo.state.tally import COMPLETED, Tally, group_of, status_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flujo.domain.figures import FigureQuery

_PAGE = 1000
"""How many encrypted values are held at a time."""

_used = journal.alias("used")
_CALLS = (
    _used.c.run_id == runs.c.run_id,
    _used.c.usage.is_not(None),
    journal.c.run_id == _used.c.run_id,
    journal.c.seq == _used.c.seq,
)
"""The entries with usage of runs. The index `journal_by_usage` has all of `used`, so that no other entry of a
long run is read."""


def found(connection: sa.Connection, query: FigureQuery) -> list[Figure]:
    """Return the figures, by period and then by name."""
    rules.check_query(query.runs)
    if not query.by.counts_runs and keys_of(connection).shown_keys:
        return _added_up(connection, query)
    ranked = _ranked(_each(connection, query).subquery()).subquery()
    columns = (ranked.c.at, ranked.c.name, ranked.c.status)
    sums = [sa.func.sum(ranked.c[name]).label(name) for name in Usage.__slots__]
    counted = sa.select(*columns, sa.func.count().label("count"), *sums, *_percentiles(ranked))
    rows = connection.execute(counted.group_by(*columns).order_by(*columns)).mappings()
    return [
        _figure(at, name, list(group))
        for (at, name), group in groupby(rows, key=lambda row: (row["at"], row["name"]))
    ]


def _figure(at: float, name: str, rows: Sequence[sa.RowMapping]) -> Figure:
    """Return the figure of a group in a period; `rows` has one for each status."""
    by_status = {row["status"]: row for row in rows}
    completed = by_status.get(COMPLETED)
    used = (Usage(**{name: int(row[name]) for name in Usage.__slots__}) for row in rows)
    return Figure(
        at=float(at),
        name=name,
        statuses={status: int(row["count"]) for status, row in by_status.items()},
        usage=sum(used, NOTHING),
        p50_s=None if completed is None else completed["p50"],
        p95_s=None if completed is None else completed["p95"],
    )


def _ranked(each: sa.Subquery) -> sa.Select[Any]:
    """Return the rows with their ranks by duration in their group and status, and how many these are."""
    group = (each.c.at, each.c.name, each.c.status)
    nth = sa.func.row_number().over(partition_by=group, order_by=each.c.seconds)
    return sa.select(*each.c, nth.label("nth"), sa.func.count().over(partition_by=group).label("of"))


def _percentiles(ranked: sa.Subquery) -> Iterator[sa.ColumnElement[float]]:
    """Yield the durations at the ranks of `domain.figures.rank`; SQLite has no function for percentiles."""
    for percent in (50, 95):
        at_rank = sa.case((ranked.c.nth == (ranked.c.of * percent + 99) // 100, ranked.c.seconds))
        yield sa.func.max(at_rank).label(f"p{percent}")


def _each(connection: sa.Connection, query: FigureQuery) -> sa.Select[Any]:
    """Return the rows that are counted: a run or a model call each."""
    on_postgres = connection.dialect.name == "postgresql"
    at = _period(query, on_postgres=on_postgres).label("at")
    conditions = listing.conditions(connection, query.runs)
    if query.by.counts_runs:
        name: sa.ColumnElement[str] = runs.c.pipeline
        status: sa.ColumnElement[str] = runs.c.status
        usage = runs.c.usage
        seconds = _between(runs.c.created_at, runs.c.updated_at)
    else:
        name, usage = _named(query, on_postgres=on_postgres), _used.c.usage
        status = sa.case((journal.c.fingerprint == UNFINISHED, UNFINISHED), else_=journal.c.status)
        seconds = _between(journal.c.started_at, journal.c.ended_at)
        conditions += _CALLS
    counts = [_count(usage, field, on_postgres=on_postgres).label(field) for field in Usage.__slots__]
    columns = (at, name.label("name"), status.label("status"), seconds.label("seconds"))
    return sa.select(*columns, *counts).where(*conditions)


def _period(query: FigureQuery, *, on_postgres: bool) -> sa.ColumnElement[Any]:
    """Return the start of the period of a run, as `FigureQuery.period` does."""
    if query.every is None:
        return sa.literal(query.since, sa.Double)
    periods = runs.c.created_at / sa.literal(query.every.seconds, sa.Double)
    # Times are above zero. The function `floor` is missing in some builds of SQLite.
    whole = sa.func.floor(periods) if on_postgres else sa.cast(periods, sa.Integer)
    return whole * query.every.seconds


def _between(start: sa.Column[float], end: sa.Column[float]) -> sa.ColumnElement[float]:
    """Return the seconds between two times; 0 when a clock was set back meanwhile."""
    return sa.case((end > start, end - start), else_=0.0)


def _named(query: FigureQuery, *, on_postgres: bool) -> sa.ColumnElement[str]:
    """Return the agent or model of an entry, as `tally.group_of` does."""
    detail = journal.c.detail
    values = (_member(detail, key, on_postgres=on_postgres) for key in query.by.keys)
    is_object = sa.func.substr(detail, 1, 1) == sa.literal(b"{", sa.LargeBinary)
    return sa.func.coalesce(sa.case((is_object, sa.func.coalesce(*values, ""))), "")


def _count(usage: sa.Column[bytes], field: str, *, on_postgres: bool) -> sa.ColumnElement[int]:
    """Return a number of a column with a usage; 0 when it is not in it."""
    member = _member(usage, field, on_postgres=on_postgres)
    return sa.func.coalesce(sa.cast(member, sa.BigInteger) if on_postgres else member, 0)


def _member(column: sa.Column[bytes], key: str, *, on_postgres: bool) -> sa.ColumnElement[Any]:
    """Return a member of a column with a JSON object; on Postgres as text."""
    if on_postgres:
        return sa.cast(sa.func.convert_from(column, "UTF8"), JSON).op("->>")(key)
    return sa.func.json_extract(sa.cast(column, sa.Text), f"$.{key}")


def _added_up(connection: sa.Connection, query: FigureQuery) -> list[Figure]:
    """Return the figures of model calls whose values are encrypted."""
    keys = [journal.c[name] for name in JOURNAL.bound_to]
    columns = (journal.c.usage, journal.c.status, journal.c.fingerprint, journal.c.detail)
    times = (journal.c.started_at, journal.c.ended_at, runs.c.created_at)
    calls = sa.select(*keys, *columns, *times).where(*listing.conditions(connection, query.runs), *_CALLS)
    tally = Tally(query)
    for page in connection.execution_options(yield_per=_PAGE).execute(calls).mappings().partitions():
        for row in decrypted(connection, JOURNAL, page):
            tally.add(
                row["created_at"],
                group_of(query.by, row["detail"]),
                status_of(row["status"], row["fingerprint"]),
                row["ended_at"] - row["started_at"],
                codec.spent(row),
            )
    return tally.figures()
