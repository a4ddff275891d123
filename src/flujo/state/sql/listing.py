"""Lists and counts runs: the conditions, the order and the pages of a query, as SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from flujo.domain import canonical, chains
from flujo.domain.queues import RunKind
from flujo.domain.run import WAITS, PauseKind, RunCondition, RunGroup, RunOrder, RunStatus, kinds_of
from flujo.state import metadata_conditions, rules
from flujo.state.metadata_conditions import DIFFERENT, EQUAL
from flujo.state.sql import metadata_indexes, queries
from flujo.state.sql.database import INDEXED_METADATA
from flujo.state.sql.tables import pauses, runs

if TYPE_CHECKING:
    from collections.abc import Collection

    from flujo.domain.run import RunCursor, RunQuery, RunRecord
    from flujo.state.metadata_conditions import Condition

_GROUPS = {
    RunGroup.STATUS: runs.c.status,
    RunGroup.BLUEPRINT: runs.c.pipeline,
    RunGroup.USER: runs.c.user_id,
}
_open_pauses = (
    sa.exists()
    .where(pauses.c.run_id == runs.c.run_id, pauses.c.answered_at.is_(None), ~pauses.c.void)
    .correlate(runs)  # also inside a statement that reads questions itself
)
_open_doubts = _open_pauses.where(pauses.c.kind == str(PauseKind.DOUBT))
_open_questions = _open_pauses.where(pauses.c.kind.not_in([str(kind) for kind in WAITS]))


def matching(connection: sa.Connection, query: RunQuery) -> list[RunRecord]:
    """Return the runs that match, in the order of the query."""
    rules.check_query(query)
    time = _time(query.order)
    # The run id comes last, so that runs of one moment have an order as well.
    order = (time if query.order is RunOrder.OLDEST else time.desc(), runs.c.run_id)
    chosen = sa.select(*queries.RUN_COLUMNS, queries.EARLIEST_DEADLINE).where(
        *conditions(connection, query), queries.is_whole(runs)
    )
    return queries.run_records(connection, chosen.order_by(*order).limit(query.limit))


def counted(connection: sa.Connection, query: RunQuery, by: RunGroup) -> dict[str | None, int]:
    """Return how many runs match, in each group; the limit of the query does not count."""
    rules.check_query(query)
    column = _GROUPS[by]
    chosen = sa.select(column, sa.func.count()).where(*conditions(connection, query), queries.is_whole(runs))
    chosen = chosen.group_by(column)
    return {name: int(count) for name, count in connection.execute(chosen)}


def conditions(connection: sa.Connection, query: RunQuery) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of a query on runs; its limit is none of them."""
    time, found = _time(query.order), []
    if query.statuses:
        found.append(_has_one_of(connection, query.statuses))
    if query.pause is not None:
        found.append(_open_pauses.where(pauses.c.pause_id == query.pause))
    if (kinds := kinds_of(query)) != tuple(RunKind):
        found.append(runs.c.kind.in_([str(kind) for kind in kinds]))
    equal = {
        runs.c.parent_run: query.parent,
        runs.c.pipeline: query.pipeline,
        runs.c.user_id: query.user_id,
        runs.c.queue: query.queue,
    }
    found += [column == value for column, value in equal.items() if value is not None]
    any_of = {runs.c.pipeline: query.reach.blueprints, runs.c.queue: query.reach.queues}
    found += [column.in_(values) for column, values in any_of.items() if values]
    if query.chain is not None:
        found.append(_is_of_chain(query.chain))
    if query.since is not None:
        found.append(time >= query.since)
    if query.until is not None:
        found.append(time < query.until)
    if query.after is not None:
        found += _behind(query.after, time)
    on_postgres = connection.dialect.name == "postgresql"
    wanted = metadata_conditions.conditions(query.metadata)
    wanted += metadata_conditions.conditions(query.reach.metadata)
    if on_postgres:
        return found + [_matches_on_postgres(each) for each in wanted]
    indexed = connection.get_execution_options().get(INDEXED_METADATA, ())
    return found + [_matches_on_sqlite(each, indexed) for each in wanted]


def _is_of_chain(first: str) -> sa.ColumnElement[bool]:
    return sa.or_(runs.c.run_id == first, queries.begins(first + chains.MARK))


def _has_one_of(
    connection: sa.Connection, statuses: tuple[RunStatus | RunCondition, ...]
) -> sa.ColumnElement[bool]:
    stored = [str(each) for each in statuses if isinstance(each, RunStatus)]
    found: list[sa.ColumnElement[bool]] = [runs.c.status.in_(stored)] if stored else []
    if RunCondition.ORPHANED in statuses:
        found.append(sa.and_(runs.c.status == str(RunStatus.RUNNING), queries.unattended(connection)))
    if RunCondition.ANSWERED in statuses:
        found.append(sa.and_(runs.c.status == str(RunStatus.PAUSED), ~_open_questions))
    if RunCondition.IN_DOUBT in statuses:
        found.append(sa.and_(runs.c.status == str(RunStatus.PAUSED), _open_doubts))
    return sa.or_(*found)


def _time(order: RunOrder) -> sa.Column[float]:
    return runs.c.updated_at if order is RunOrder.UPDATED else runs.c.created_at


def _behind(cursor: RunCursor, time: sa.Column[float]) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of the runs after a place; the first of them lets an index find it."""
    if cursor.order is RunOrder.OLDEST:
        return [time >= cursor.at, sa.or_(time > cursor.at, runs.c.run_id > cursor.run_id)]
    return [time <= cursor.at, sa.or_(time < cursor.at, runs.c.run_id > cursor.run_id)]


# Metadata: keys and values are bound, and never become part of a statement ----------------------------------


def _matches_on_postgres(condition: Condition) -> sa.ColumnElement[bool]:
    if condition.operator in (EQUAL, DIFFERENT):
        # `@>` alone uses the index.
        same = sa.or_(*(_contains(_nested(condition.path, value)) for value in condition.values))
        if condition.operator == EQUAL:
            return same
        return sa.and_(_found_on_postgres("#>", condition).is_not(None), ~same)
    [bound] = condition.values
    found = _found_on_postgres("#>", condition)
    kind = sa.func.jsonb_typeof(found)
    if isinstance(bound, str):
        text = _found_on_postgres("#>>", condition).collate("C")
        return sa.and_(kind == "string", text.op(condition.operator, is_comparison=True)(bound))
    number = sa.func.to_jsonb(sa.cast(sa.cast(repr(bound), sa.Text), sa.Numeric))
    return sa.and_(kind == "number", found.op(condition.operator, is_comparison=True)(number))


def _contains(data: Any) -> sa.ColumnElement[bool]:
    text = sa.cast(sa.bindparam(None, canonical.encode(data).decode(), sa.Text()), sa.Text)
    return runs.c.metadata.op("@>", is_comparison=True)(sa.cast(text, runs.c.metadata.type))


def _nested(path: tuple[str, ...], value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value


def _found_on_postgres(operator: str, condition: Condition) -> Any:
    """Return the value under the keys of a condition: as JSON (`#>`), or as text (`#>>`)."""
    path = sa.cast(sa.bindparam(None, list(condition.path), ARRAY(sa.Text())), ARRAY(sa.Text()))
    kind = runs.c.metadata.type if operator == "#>" else sa.Text()
    return runs.c.metadata.op(operator, return_type=kind)(path)


def _matches_on_sqlite(condition: Condition, indexed: Collection[str]) -> sa.ColumnElement[bool]:
    path = "$" + "".join(f'."{key}"' for key in condition.path)
    column = sa.type_coerce(runs.c.metadata, sa.Text())
    kind, found = sa.func.json_type(column, path), metadata_indexes.value_at(condition.path, indexed)
    if found is None:
        found = sa.func.json_extract(column, path)
    if condition.operator in (EQUAL, DIFFERENT):
        same = sa.or_(*(_equals_on_sqlite(kind, found, value) for value in condition.values))
        return same if condition.operator == EQUAL else sa.and_(kind.is_not(None), ~same)
    [bound] = condition.values
    kinds = ["text"] if isinstance(bound, str) else ["integer", "real"]
    return sa.and_(kind.in_(kinds), found.op(condition.operator, is_comparison=True)(bound))


def _equals_on_sqlite(
    kind: sa.ColumnElement[Any], found: sa.ColumnElement[Any], value: Any
) -> sa.ColumnElement[bool]:
    match value:
        case None:
            return kind == "null"
        case bool():
            return kind == ("true" if value else "false")
        case str():
            return sa.and_(kind == "text", found == value)
        case _:
            return sa.and_(kind.in_(["integer", "real"]), found == value)
