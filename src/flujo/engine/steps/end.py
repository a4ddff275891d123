"""`end`: the output, or the failure, with which a body ends before its last step.

The interpreter ends the body at the step's entry, also when a resumed run finds that entry.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flujo.domain.events import StepStarted
from flujo.domain.journal import EntryKind
from flujo.domain.outcomes import Failure
from flujo.engine.attempt import Attempt
from flujo.engine.attempts import record_failure, settle
from flujo.engine.error_info import error_info
from flujo.exceptions import EndedInFailure

if TYPE_CHECKING:
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.ports import Binding
    from flujo.domain.steps import EndStep
    from flujo.engine.frame import Frame, RunBody, Work


def work(step: EndStep, _binding: Binding, _run_body: RunBody) -> Work:
    """Return the execution of the step."""
    return partial(_ended, step)


async def _ended(step: EndStep, frame: Frame, path: StepPath) -> StepOutcome:
    """Return the output, or the failure that the step declares.

    Raises:
        ExpressionFailed: it cannot be evaluated.
    """
    await frame.tell(StepStarted(path, step.kind))
    number = len(frame.run.journal.attempts(path, EntryKind.WORK)) + 1
    attempt = Attempt(step, frame, path, number, started_at=frame.run.clock.now())
    if step.fail is not None:
        error = EndedInFailure(frame.render(step.fail))
        failure = error_info(error, path)
        await record_failure(attempt, failure)
        return Failure(failure, error)
    attempt.output = frame.previous if step.output is None else frame.render(step.output)
    return await settle(attempt)
