"""The fallback of a step that asks an agent or calls a callable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.outcomes import Failure, Success
from flujo.domain.paths import child
from flujo.domain.pipeline import FALLBACK
from flujo.engine.composite_attempts import finish
from flujo.engine.limits import OUT_OF_BUDGET
from flujo.exceptions import CallInDoubt

if TYPE_CHECKING:
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.steps import BaseStep
    from flujo.engine.frame import Frame, RunBody, Work


NOT_TAKEN_OVER = OUT_OF_BUDGET | {CallInDoubt.code}
"""Codes of errors after which no fallback runs: the step may have succeeded, or the budget is used up."""


async def or_its_fallback(
    step: BaseStep, work: Work, run_body: RunBody, frame: Frame, path: StepPath
) -> StepOutcome:
    """Run the step, then its fallback, which is a body of the step and is recorded like any other."""
    await frame.run.journal.load_level(path)
    spare = step.bodies()[FALLBACK]
    if frame.run.journal.result(child(path, FALLBACK), spare.steps[0].kind) is None:
        outcome = await work(frame, path)
        if not isinstance(outcome, Failure) or outcome.error.code in NOT_TAKEN_OVER:
            return outcome
    before = frame.scope.tree
    outcome = await run_body(spare, frame.inside(path, previous=frame.previous))
    if not isinstance(outcome, Success):
        return outcome
    return await finish(step, frame, path, Success(outcome.output, facts={"fell_back": True}), before)
