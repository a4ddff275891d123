"""Evaluations in the database: added with the acts that lead to them, and read by conditions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from flujo.state import codec, rules
from flujo.state.sql.encryption import EVALUATIONS, decrypted
from flujo.state.sql.tables import evaluations, runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.acts import Act
    from flujo.domain.evaluations import Evaluation, EvaluationQuery
    from flujo.state.sql.statements import Statements


def add(
    connection: sa.Connection, known: Statements, given: Sequence[Evaluation], acts: Sequence[Act]
) -> None:
    """Record evaluations and acts, in the connection's transaction.

    Acts are left out when every key is there already: then an earlier commit has written them.

    Raises:
        RunNotFound: there is no run that one of the acts is on.
    """
    named = {act.run_id for act in acts if act.run_id is not None}
    found = set(connection.scalars(sa.select(runs.c.run_id).where(runs.c.run_id.in_(sorted(named)))))
    if missing := sorted(named - found):
        raise rules.no_run(missing[0])
    keys = {each.key for each in given}
    recorded = set(
        connection.scalars(sa.select(evaluations.c.key).where(evaluations.c.key.in_(sorted(keys))))
    )
    if given:
        known.keep_evaluations(connection, [codec.evaluation_row(each) for each in given])
    if acts and keys - recorded:
        known.insert_acts(connection, [codec.act_row(act, None) for act in acts])


def matching(connection: sa.Connection, query: EvaluationQuery) -> list[Evaluation]:
    """Return the evaluations that match, the newest first."""
    columns = evaluations.c
    chosen = sa.select(*columns).order_by(columns.created_at.desc(), columns.id.desc()).limit(query.limit)
    for column, wanted in (
        (columns.run_id, query.run_id),
        (columns.path, query.path),
        (columns.pipeline, query.pipeline),
        (columns.evaluator, query.evaluator),
    ):
        if wanted is not None:
            chosen = chosen.where(column == wanted)
    if query.lock is not None:
        chosen = chosen.where(columns.lock_digest.startswith(query.lock, autoescape=True))
    if query.below is not None:
        chosen = chosen.where(columns.score < query.below)
    if query.since is not None:
        chosen = chosen.where(columns.created_at >= query.since)
    if query.until is not None:
        chosen = chosen.where(columns.created_at < query.until)
    rows = decrypted(connection, EVALUATIONS, connection.execute(chosen).mappings())
    return [codec.evaluation(row) for row in rows]
