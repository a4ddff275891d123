"""The open questions of all runs by urgency, and their claims."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from flujo.domain.questions import (
    NO_DEADLINE,
    RISKS,
    Escalation,
    OpenQuestion,
    QuestionClaim,
    QuestionOrder,
    Risk,
)
from flujo.domain.run import WAITS
from flujo.state import codec, rules
from flujo.state.sql import listing, queries
from flujo.state.sql.encryption import CLAIMS, PAUSES, decrypted, encrypted
from flujo.state.sql.functions import database_now
from flujo.state.sql.tables import pauses, question_claims, runs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.journal import RunId
    from flujo.domain.paths import StepPath
    from flujo.domain.questions import QuestionQuery

_claims = question_claims.c
_is_claimed = sa.func.coalesce(_claims.claimed_until, 0.0) > database_now()
# An escalation is of one question: when the step asks again, it counts no longer.
_is_escalated = sa.func.coalesce(_claims.escalated_at, -1.0) >= pauses.c.asked_at
_of_risk = {risk: [str(kind) for kind, of in RISKS.items() if of is risk] for risk in Risk}
_risk = sa.case(*((pauses.c.kind.in_(kinds), risk.rank) for risk, kinds in _of_risk.items()))
_rank = sa.case((_is_escalated, 0), else_=1)
_then = (
    sa.func.coalesce(pauses.c.deadline_at, NO_DEADLINE),
    pauses.c.asked_at,
    pauses.c.run_id,
    pauses.c.pause_id,
)
_orders: Mapping[QuestionOrder, tuple[sa.ColumnElement[Any], ...]] = {
    QuestionOrder.URGENCY: (_rank, *_then),
    QuestionOrder.RISK: (_rank, _risk, *_then),
}
_of_claims = [column for column in _claims if column.name not in ("run_id", "pause_id")]
_chosen = (
    sa.select(*pauses.c, *_of_claims, _is_claimed.label("is_claimed"), _is_escalated.label("is_escalated"))
    .join(runs, runs.c.run_id == pauses.c.run_id)
    .outerjoin(
        question_claims, sa.and_(_claims.run_id == pauses.c.run_id, _claims.pause_id == pauses.c.pause_id)
    )
    .where(
        pauses.c.answered_at.is_(None),
        ~pauses.c.void,
        pauses.c.kind.not_in([str(kind) for kind in WAITS]),
    )
)


def open_questions(connection: sa.Connection, query: QuestionQuery) -> list[OpenQuestion]:
    """Return the questions that match, in their order, in two reads."""
    chosen, order = _chosen.where(*listing.conditions(connection, query.runs)), _orders[query.order]
    if query.kinds:
        chosen = chosen.where(pauses.c.kind.in_([str(kind) for kind in query.kinds]))
    if query.claimed_by is not None:
        chosen = chosen.where(_is_claimed, _claims.claimed_by == query.claimed_by)
    if query.unclaimed:
        chosen = chosen.where(~_is_claimed)
    if query.after is not None:
        rank, risk, *then = query.after.key
        place = (rank, risk, *then) if query.order is QuestionOrder.RISK else (rank, *then)
        chosen = chosen.where(sa.tuple_(*order) > sa.tuple_(*map(sa.literal, place)))
    found = connection.execute(chosen.order_by(*order).limit(query.limit)).mappings()
    rows = decrypted(connection, PAUSES, decrypted(connection, CLAIMS, found))
    known = queries.records(connection, list(dict.fromkeys(row["run_id"] for row in rows)))
    return [_question(row, known) for row in rows if row["run_id"] in known]


def _question(row: Mapping[str, Any], known: Mapping[str, Any]) -> OpenQuestion:
    claim = escalation = None
    if row["is_claimed"]:
        claim = QuestionClaim(row["claimed_by"], row["claimed_at"], row["claimed_until"])
    if row["is_escalated"]:
        escalation = Escalation(row["escalated_by"], row["escalated_at"], row["reason"])
    return OpenQuestion(known[row["run_id"]], codec.pause(row), claim, escalation)


def claim(
    connection: sa.Connection, run_id: RunId, pause_id: StepPath, by: str, lives_s: float, *, take: bool
) -> QuestionClaim:
    """QuestionClaim a question; return the claim that counts then. The row of the question decides a race."""
    values = {
        "claimed_by": sa.literal(by),
        "claimed_at": database_now(),
        "claimed_until": database_now() + lives_s,
    }
    is_free = sa.or_(
        sa.literal(take),
        _claims.claimed_by.is_(None),
        _claims.claimed_by == by,
        _claims.claimed_until <= database_now(),
    )
    _upsert(connection, run_id, pause_id, values, where=is_free)
    chosen = sa.select(_claims.claimed_by, _claims.claimed_at, _claims.claimed_until)
    found = connection.execute(chosen.where(*_is(run_id, pause_id))).one_or_none()
    if found is None:
        raise rules.no_question(run_id, pause_id)
    return QuestionClaim(*found)


def release(connection: sa.Connection, run_id: RunId, pause_id: StepPath, by: str) -> bool:
    """End the claim of a person; return whether there was one."""
    ending = question_claims.update().where(*_is(run_id, pause_id), _claims.claimed_by == by)
    ended = ending.values(claimed_by=None, claimed_at=None, claimed_until=None)
    return connection.scalar(ended.returning(_claims.run_id)) is not None


def escalate(connection: sa.Connection, run_id: RunId, pause_id: StepPath, by: str, reason: str) -> None:
    """End the claim of a question, and note who has left it to others, and why."""
    row = encrypted(connection, CLAIMS, {"run_id": run_id, "pause_id": pause_id, "reason": reason})
    values = {
        "escalated_by": sa.literal(by),
        "escalated_at": database_now(),
        "reason": sa.literal(row["reason"]),
        "claimed_by": sa.null(),
        "claimed_at": sa.null(),
        "claimed_until": sa.null(),
    }
    if not _upsert(connection, run_id, pause_id, values):
        raise rules.no_question(run_id, pause_id)


def _upsert(
    connection: sa.Connection,
    run_id: RunId,
    pause_id: StepPath,
    values: Mapping[str, Any],
    *,
    where: sa.ColumnElement[bool] | None = None,
) -> bool:
    """Set values in the row of a question; return whether they are set."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    asked = sa.select(pauses.c.run_id, pauses.c.pause_id, *values.values())
    asked = asked.where(pauses.c.run_id == run_id, pauses.c.pause_id == pause_id)
    adding = dialect.insert(question_claims).from_select(["run_id", "pause_id", *values], asked)
    setting = adding.on_conflict_do_update(
        index_elements=["run_id", "pause_id"],
        set_={name: adding.excluded[name] for name in values},
        where=where,
    )
    return connection.scalar(setting.returning(_claims.run_id)) is not None


def _is(run_id: RunId, pause_id: StepPath) -> tuple[sa.ColumnElement[bool], ...]:
    return _claims.run_id == run_id, _claims.pause_id == pause_id
