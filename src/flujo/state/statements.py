"""The statements of a batch, built once: SQLAlchemy compiles each a single time for each database."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql import psycopg

from flujo.domain import canonical
from flujo.domain.run import RunStatus
from flujo.state.database import database_now
from flujo.state.tables import SCHEMA, blobs, journal, pauses, runs

if TYPE_CHECKING:
    from collections.abc import Sequence

_run: sa.BindParameter[str] = sa.bindparam("of_run")
_transaction_id = sa.cast(sa.func.pg_current_xact_id(), sa.Text).label("transaction_id")


def _lock(*, postgres: bool) -> str:
    left = runs.c.lease_until - database_now()
    columns = [runs.c.run_id, runs.c.status, runs.c.fence, runs.c.owner, runs.c.seals, left, database_now()]
    if postgres:
        wanted = runs.c.run_id == sa.any_(sa.bindparam("ids", type_=postgresql.ARRAY(sa.Text())))
        columns.append(_transaction_id)
    else:
        wanted = runs.c.run_id.in_(
            sa.select(sa.func.json_each(sa.bindparam("ids")).table_valued("value").c.value)
        )
    locked = sa.select(*columns).where(wanted).order_by(runs.c.run_id)
    if not postgres:
        return str(locked.compile(dialect=sqlite.dialect()))
    # Strong enough against a claim, weak enough for the foreign keys of the entries.
    locked = locked.with_for_update(key_share=True)
    dialect = psycopg.PGDialect_psycopg()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
    translated: dict[str, Any] = {"schema_translate_map": {None: SCHEMA}, "render_schema_translate": True}
    return str(locked.compile(dialect=dialect, **translated))


def _moment(*, postgres: bool) -> sa.Executable:
    columns: list[Any] = [database_now().label("now")]
    if postgres:
        columns.append(_transaction_id)
    return sa.select(*columns)


insert_runs = runs.insert().values(lease_until=database_now() + sa.bindparam("lease_s", type_=sa.Double()))


def _insert_entries() -> str:
    """Return SQLite's statement, executed once a row inside one call of the driver."""
    return str(journal.insert().compile(dialect=sqlite.dialect()))


def _insert_entries_at_once() -> str:
    """Return Postgres' statement for a whole batch of entries: twice as fast as one INSERT a row."""
    arrays = ", ".join(f"CAST(%s AS {_element(column)}[])" for column in journal.c)
    names = ", ".join(column.name for column in journal.c)
    return f"INSERT INTO {SCHEMA}.journal ({names}) SELECT * FROM unnest({arrays})"  # noqa: S608 - names of ours


def _element(column: sa.Column[Any]) -> str:
    kinds = {sa.LargeBinary: "bytea", sa.Integer: "integer", sa.Double: "float8"}
    return kinds.get(type(column.type), "text")


claim = (
    runs.update()
    .where(runs.c.run_id == _run)
    .values(
        status=str(RunStatus.RUNNING),
        fence=runs.c.fence + 1,
        claims=runs.c.claims + 1,
        owner=sa.bindparam("new_owner"),
        lease_until=database_now() + sa.bindparam("lease_s", type_=sa.Double()),
        output=None,
        error=None,
        seals=sa.bindparam("new_seals"),
        updated_at=database_now(),
    )
)


def _or_keep(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    return sa.func.coalesce(sa.bindparam(f"new_{column.name}", type_=column.type), column)


def _unless_released(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    return sa.case((sa.bindparam("release", type_=sa.Boolean()), sa.null()), else_=column)


move = (
    runs.update()
    .where(runs.c.run_id == _run)
    .values(
        status=sa.bindparam("new_status"),
        output=sa.bindparam("new_output"),
        error=sa.bindparam("new_error"),
        seals=sa.bindparam("new_seals"),
        context_now=_or_keep(runs.c.context_now),
        closure=_or_keep(runs.c.closure),
        usage=_or_keep(runs.c.usage),
        entries=_or_keep(runs.c.entries),
        owner=_unless_released(runs.c.owner),
        lease_until=_unless_released(runs.c.lease_until),
        updated_at=database_now(),
    )
)
void = (
    pauses.update()
    .where(
        pauses.c.run_id.in_(sa.bindparam("ids", expanding=True)), pauses.c.answer.is_(None), ~pauses.c.void
    )
    .values(void=True)
)
void_one = (
    pauses.update()
    .where(
        pauses.c.run_id == _run,
        pauses.c.pause_id == sa.bindparam("of_pause"),
        pauses.c.answer.is_(None),
    )
    .values(void=True)
)
answer = (
    pauses.update()
    .where(pauses.c.run_id == _run, pauses.c.pause_id == sa.bindparam("of_pause"))
    .values(
        answer=sa.bindparam("new_answer"),
        answered_at=sa.bindparam("new_answered_at"),
        digest=sa.bindparam("new_digest"),
    )
)
recorded = sa.select(
    journal.c.seq, journal.c.path, journal.c.kind, journal.c.attempt, journal.c.digest
).where(
    journal.c.run_id == _run,
    sa.or_(
        journal.c.seq.in_(sa.bindparam("seqs", expanding=True)),
        journal.c.path.in_(sa.bindparam("paths", expanding=True)),
    ),
)


_row = itemgetter(*(column.name for column in journal.c))


class Statements:
    """The statements that are not the same on both databases.

    The two that belong to every batch, `lock` and the entries, go to the driver as text with their
    parameters: that costs half of what a compiled statement costs.
    """

    def __init__(self, *, postgres: bool) -> None:
        insert = postgresql.insert if postgres else sqlite.insert
        self.is_postgres = postgres
        self._lock = _lock(postgres=postgres)
        self._insert_entries = _insert_entries_at_once() if postgres else _insert_entries()
        self.moment = _moment(postgres=postgres)
        self.keep_blobs = insert(blobs).values(created_at=database_now()).on_conflict_do_nothing()
        opened = insert(pauses).values(asked_at=database_now(), void=False)
        news = ("message", "answer_schema", "deadline_at", "asked_at", "position", "void", "digest")
        self.open_pauses = opened.on_conflict_do_update(
            index_elements=["run_id", "pause_id"],
            set_={name: opened.excluded[name] for name in news},
            where=pauses.c.void,
        )

    def lock(self, connection: sa.Connection, ids: list[str]) -> Sequence[tuple[Any, ...]]:
        """Lock the runs that are there.

        Returns:
            For each run: id, status, fence, owner, seals, seconds of lease left, now (and on Postgres the
            transaction's id).
        """
        wanted: Any = {"ids": ids} if self.is_postgres else (canonical.encode(ids).decode(),)
        return [tuple(row) for row in connection.exec_driver_sql(self._lock, wanted)]

    def insert_entries(self, connection: sa.Connection, rows: list[dict[str, Any]]) -> None:
        """Insert a batch of entries."""
        values: Any = [_row(row) for row in rows]
        if self.is_postgres:
            values = tuple(list(column) for column in zip(*values, strict=True))
        connection.exec_driver_sql(self._insert_entries, values)
