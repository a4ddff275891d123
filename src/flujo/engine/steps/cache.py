"""`cache`: a step whose answers are reused for the same input."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flujo.domain.outcomes import StepOutcome, Success
from flujo.domain.paths import child
from flujo.engine.step_cache import answered

if TYPE_CHECKING:
    from flujo.domain.paths import StepPath
    from flujo.domain.steps import CacheStep
    from flujo.engine.frame import Frame, RunBody


async def run(step: CacheStep, frame: Frame, path: StepPath, run_body: RunBody) -> StepOutcome:
    """Return the inner step's answer, cached or new; the fact `cached` tells which."""

    async def work() -> StepOutcome:
        inner = frame.inside(path, previous=frame.previous)
        outcome = await run_body(step.bodies()["step"], inner)
        if isinstance(outcome, Success):  # its facts include whether the fallback answered
            told = inner.steps[step.step.name]
            return replace(outcome, facts={name: told[name] for name in told if name != "output"})
        return outcome

    outcome, cached = await answered(
        step.step, step.policy, frame, path, work, inner=child(path, step.step.name)
    )
    return Success(outcome.output, facts={"cached": cached}) if isinstance(outcome, Success) else outcome
