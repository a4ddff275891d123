"""`set`: writes values to the context, in one entry."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flujo.domain.events import StepStarted
from flujo.engine.attempt import Attempt
from flujo.engine.attempts import settle

if TYPE_CHECKING:
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.ports import Binding
    from flujo.domain.steps import SetStep
    from flujo.engine.frame import Frame, RunBody, Work


def work(step: SetStep, _binding: Binding, _run_body: RunBody) -> Work:
    """Return the execution of the step."""
    return partial(_written, step)


async def _written(step: SetStep, frame: Frame, path: StepPath) -> StepOutcome:
    """Return the values that the step has written.

    Raises:
        ExpressionFailed: one of them cannot be evaluated.
        OutputRejected: the context no longer matches its type.
    """
    await frame.tell(StepStarted(path, step.kind))
    attempt = Attempt(step, frame, path, started_at=frame.run.clock.now())
    attempt.output = frame.render(step.values)
    attempt.patch = [["set", [name], value] for name, value in attempt.output.items()]
    return await settle(attempt)
