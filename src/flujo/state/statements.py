"""The statements of a batch, built once: SQLAlchemy compiles each a single time for each database."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from flujo.domain.run import RunStatus
from flujo.state.database import database_now
from flujo.state.tables import SCHEMA, blobs, journal, pauses, runs

_run: sa.BindParameter[str] = sa.bindparam("of_run")


def _lock(*, postgres: bool) -> sa.Select[Any]:
    left = (runs.c.lease_until - database_now()).label("lease_left_s")
    columns = [runs.c.run_id, runs.c.status, runs.c.fence, runs.c.owner, runs.c.seals, left]
    columns.append(database_now().label("now"))
    if postgres:
        columns.append(sa.cast(sa.func.pg_current_xact_id(), sa.Text).label("transaction_id"))
    locked = sa.select(*columns).where(runs.c.run_id.in_(sa.bindparam("ids", expanding=True)))
    # Strong enough against a claim, weak enough for the foreign keys of the entries.
    return locked.order_by(runs.c.run_id).with_for_update(key_share=True) if postgres else locked


def _moment(*, postgres: bool) -> sa.Select[Any]:
    columns: list[Any] = [database_now().label("now")]
    if postgres:
        columns.append(sa.cast(sa.func.pg_current_xact_id(), sa.Text).label("transaction_id"))
    return sa.select(*columns)


insert_runs = runs.insert().values(lease_until=database_now() + sa.bindparam("lease_s", type_=sa.Double()))
insert_entries = journal.insert()


def _insert_entries_at_once() -> sa.TextClause:
    """Return Postgres' statement for a whole batch of entries: twice as fast as one INSERT a row."""
    arrays = ", ".join(f"CAST(:{column.name} AS {_element(column)}[])" for column in journal.c)
    names = ", ".join(column.name for column in journal.c)
    return sa.text(f"INSERT INTO {SCHEMA}.journal ({names}) SELECT * FROM unnest({arrays})")  # noqa: S608 - names of ours


def _element(column: sa.Column[Any]) -> str:
    kinds = {sa.LargeBinary: "bytea", sa.Integer: "integer", sa.Double: "float8"}
    return kinds.get(type(column.type), "text")


insert_entries_on_postgres = _insert_entries_at_once()

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


class Statements:
    """The statements that are not the same on both databases."""

    def __init__(self, *, postgres: bool) -> None:
        insert = postgresql.insert if postgres else sqlite.insert
        self.lock = _lock(postgres=postgres)
        self.moment = _moment(postgres=postgres)
        self.keep_blobs = insert(blobs).values(created_at=database_now()).on_conflict_do_nothing()
        opened = insert(pauses).values(asked_at=database_now(), void=False)
        news = ("message", "answer_schema", "deadline_at", "asked_at", "position", "void", "digest")
        self.open_pauses = opened.on_conflict_do_update(
            index_elements=["run_id", "pause_id"],
            set_={name: opened.excluded[name] for name in news},
            where=pauses.c.void,
        )
