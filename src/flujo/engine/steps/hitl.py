"""`hitl`: a human is asked, and the run waits for the answer for as long as it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain import canonical
from flujo.domain.outcomes import Paused, StepOutcome
from flujo.domain.run import Pause
from flujo.engine.settling import settle_answer

if TYPE_CHECKING:
    from flujo.domain.journal import StepPath
    from flujo.domain.steps import HumanInTheLoopStep
    from flujo.engine.frame import Frame


async def run(step: HumanInTheLoopStep, frame: Frame, path: StepPath) -> StepOutcome:
    """Return the answer when there is one, otherwise a pause that becomes visible with the next commit."""
    asked = await frame.run.journal.pause(path)
    if asked is None or asked.answer is None:
        pause = asked if asked and asked.is_open else _question(step, frame, path)
        frame.run.journal.ask(pause)
        return Paused((pause,))
    if step.answer_schema is not None:
        answer = canonical.decode(asked.answer)
        frame.run.binding.schema(step.answer_schema).check(answer, what=f"answer to {step.name!r}")
    return await settle_answer(step, frame, asked)


def _question(step: HumanInTheLoopStep, frame: Frame, path: StepPath) -> Pause:
    message = frame.render(step.message)
    return Pause(
        pause_id=path,
        message=message if isinstance(message, str) else canonical.encode(message).decode(),
        answer_schema=None if step.answer_schema is None else canonical.encode(step.answer_schema),
    )
