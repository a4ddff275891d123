"""`continue_as_new`: records the input of the run that continues this one.

The interpreter ends the run at the step's entry, also when a resumed run finds that entry: a crash between
the entry and the end of the run changes nothing.
"""

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
    from flujo.domain.steps import ContinueAsNewStep
    from flujo.engine.frame import Frame, RunBody, Work


def work(step: ContinueAsNewStep, _binding: Binding, _run_body: RunBody) -> Work:
    """Return the execution of the step."""
    return partial(_begun_again, step)


async def _begun_again(step: ContinueAsNewStep, frame: Frame, path: StepPath) -> StepOutcome:
    """Return the input of the new run.

    Raises:
        InputRejected: the `deadline` of the pipeline has no value for it.
        OutputRejected: it does not fit the `input_schema` of the pipeline.
    """
    await frame.tell(StepStarted(path, step.kind))
    given = frame.input if step.input is None else frame.render(step.input)
    if frame.run.input_schema is not None:
        what = f"the input of step {step.name!r}"
        given = frame.run.binding.schema(frame.run.input_schema).check(given, what=what)
    if frame.run.life_of is not None:
        frame.run.life_of(given)  # before the input is recorded: the new run could not be accepted
    attempt = Attempt(step, frame, path, started_at=frame.run.clock.now())
    attempt.output = given
    return await settle(attempt)
