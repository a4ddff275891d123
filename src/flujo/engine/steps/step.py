"""`step`: asks one agent, or calls one callable."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flujo.domain.outcomes import Failure, Success
from flujo.domain.paths import child
from flujo.domain.steps import FALLBACK
from flujo.engine.attempts import perform
from flujo.engine.call_layers import LeafCall
from flujo.engine.composite_attempts import finish
from flujo.exceptions import CallInDoubt, UsageLimitExceeded

if TYPE_CHECKING:
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.ports import Binding
    from flujo.domain.steps import Step
    from flujo.engine.frame import Frame, RunBody, Work


NOT_TAKEN_OVER = frozenset({CallInDoubt.code, UsageLimitExceeded.code})
"""Codes of errors after which no fallback runs: the step may have succeeded, or the budget is used up."""


def work(step: Step, binding: Binding, run_body: RunBody) -> Work:
    """Return the execution of the step, and of its fallback if the step fails."""
    attempts = partial(perform, LeafCall(step, binding))
    return attempts if step.fallback is None else partial(_or_its_fallback, step, attempts, run_body)


async def _or_its_fallback(
    step: Step, attempts: Work, run_body: RunBody, frame: Frame, path: StepPath
) -> StepOutcome:
    """Run the step, then its fallback, which is a body of the step and is recorded like any other."""
    await frame.run.journal.load_level(path)
    if frame.run.journal.result(child(path, FALLBACK), step.kind) is None:
        outcome = await attempts(frame, path)
        if not isinstance(outcome, Failure) or outcome.error.code in NOT_TAKEN_OVER:
            return outcome
    before = frame.scope.tree
    outcome = await run_body(step.bodies()[FALLBACK], frame.inside(path, previous=frame.previous))
    if not isinstance(outcome, Success):
        return outcome
    return await finish(step, frame, path, Success(outcome.output, facts={"fell_back": True}), before)
