"""`step`: asks one agent, or calls one callable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.outcomes import Failure, Success
from flujo.domain.paths import child
from flujo.domain.steps import FALLBACK
from flujo.engine.attempts import perform
from flujo.engine.composite_attempts import finish
from flujo.exceptions import CallInDoubt, UsageLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.steps import Step
    from flujo.engine.frame import Frame, RunBody


NOT_TAKEN_OVER = frozenset({CallInDoubt.code, UsageLimitExceeded.code})
"""Codes of errors after which no fallback runs: the step may have succeeded, or the budget is used up."""


def run(step: Step, frame: Frame, path: StepPath, run_body: RunBody) -> Awaitable[StepOutcome]:
    """Return the outcome of the step, or of its fallback if the step fails."""
    if step.fallback is None:
        return perform(step, frame, path)
    return _or_its_fallback(step, frame, path, run_body)


async def _or_its_fallback(step: Step, frame: Frame, path: StepPath, run_body: RunBody) -> StepOutcome:
    """Run the step, then its fallback, which is a body of the step and is recorded like any other."""
    await frame.run.journal.load_level(path)
    if frame.run.journal.result(child(path, FALLBACK), step.kind) is None:
        outcome = await perform(step, frame, path)
        if not isinstance(outcome, Failure) or outcome.error.code in NOT_TAKEN_OVER:
            return outcome
    before = frame.scope.tree
    outcome = await run_body(step.bodies()[FALLBACK], frame.inside(path, previous=frame.previous))
    if not isinstance(outcome, Success):
        return outcome
    return await finish(step, frame, path, Success(outcome.output, facts={"fell_back": True}), before)
