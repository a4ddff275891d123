"""Scores that people give to outputs of runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.acts import Act, Actor, Verb
from flujo.domain.commands import command
from flujo.domain.evaluations import Evaluation
from flujo.domain.paths import ROOT, StepPath, shown
from flujo.domain.wording import repr_short
from flujo.exceptions import RatingRefused
from flujo.governance.sink import GATE
from flujo.services.given import text, text_or_none

if TYPE_CHECKING:
    from flujo.domain.ports import Random
    from flujo.domain.run import RunRecord
    from flujo.domain.store import StateStore

NAME = "rating"
"""The evaluator of a rating that names none."""


async def rate(
    store: StateStore,
    run: str,
    score: Any,
    *,
    path: str | None = None,
    name: str | None = None,
    reason: str | None = None,
    actor: Actor,
    random: Random,
) -> Evaluation:
    """Record the score that a person gives to an output, and the act; return it as recorded.

    Args:
        store: has the run.
        run: an id, a unique prefix of one, or `@last`.
        score: from 0, the worst, to 1.
        path: the step whose output is scored; None for the output of the run.
        name: the evaluator of the evaluation. Default: `rating`.
        reason: why.
        actor: who rates.
        random: makes the key.

    Raises:
        RunNotFound: no run, or more than one, matches.
        RatingRefused: the score is not from 0 to 1, or the run has recorded nothing at the path.
        SettingsError: another argument is not a text.
    """
    is_number = isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)
    if not (is_number and 0 <= score <= 1):
        raise RatingRefused(f"the score {repr_short(score)} is not a number from 0 to 1")
    record = await store.find(text(run, "run"))
    place = StepPath(text_or_none(path, "path") or ROOT)
    await _require_recorded(store, record, place)
    named, why = text_or_none(name, "name") or NAME, text_or_none(reason, "reason")
    evaluation = Evaluation(
        key=f"rating-{random.run_id()}",
        run_id=record.run_id,
        path=place,
        pipeline=record.pipeline,
        closure=record.closure,
        lock_digest=record.lock_digest,
        user_id=record.user_id,
        evaluator=named,
        score=float(score),
        reason=None if why is None else GATE.text(why),
        by=actor.by,
    )
    given = canonical.encode({"path": place, "score": evaluation.score, "reason": evaluation.reason})
    act = Act(verb=Verb.RATE, actor=actor, run_id=record.run_id, object=named, after=given)
    await store.add_evaluations([evaluation], acts=[act])
    return evaluation


async def _require_recorded(store: StateStore, record: RunRecord, path: StepPath) -> None:
    if path != ROOT and not await store.entries(record.run_id, paths=[path]):
        raise RatingRefused(
            f"run {record.run_id} has recorded nothing at `{shown(path)}`",
            hint=f"`{command('flujo', 'trace', record.run_id)}` lists the paths of its steps",
            run_id=record.run_id,
            path=path,
        )
