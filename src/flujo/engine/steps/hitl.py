"""`hitl`: asks a human, and pauses the run until the answer arrives or the deadline passes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flujo.domain import canonical
from flujo.domain.run import Pause
from flujo.engine import questions
from flujo.engine.attempts import settle_answer
from flujo.engine.journal import safe_text

if TYPE_CHECKING:
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.ports import Binding
    from flujo.domain.steps import HumanInTheLoopStep
    from flujo.engine.frame import Frame, RunBody, Work


def work(step: HumanInTheLoopStep, _binding: Binding, _run_body: RunBody) -> Work:
    """Return the execution of the step."""
    return partial(_answered, step)


async def _answered(step: HumanInTheLoopStep, frame: Frame, path: StepPath) -> StepOutcome:
    """Return the answer when there is one, otherwise a pause that becomes visible with the next commit."""
    return await questions.settled(
        step,
        frame,
        path,
        step.question,
        ask=lambda: _ask(step, frame, path),
        take=lambda asked: _taken(step, frame, asked),
        missed="was not answered",
    )


async def _taken(step: HumanInTheLoopStep, frame: Frame, asked: Pause) -> StepOutcome:
    frame.run.journal.keeps(asked.pause_id, canonical.encode(asked.message), lambda: _asked(step, frame))
    if step.answer_schema is not None:
        answer = canonical.decode(asked.answer or b"null")
        frame.run.binding.schema(step.answer_schema).check(answer, what=f"answer to {step.name!r}")
    return await settle_answer(step, frame, asked)


def _message(step: HumanInTheLoopStep, frame: Frame) -> str:
    message = frame.render(step.message)
    return message if isinstance(message, str) else canonical.encode(message).decode()


def _asked(step: HumanInTheLoopStep, frame: Frame) -> bytes:
    """Return the message as the journal has it."""
    return canonical.encode(safe_text(_message(step, frame)))


async def _ask(step: HumanInTheLoopStep, frame: Frame, path: StepPath) -> Pause:
    return Pause(
        pause_id=path,
        message=_message(step, frame),
        answer_schema=None if step.answer_schema is None else canonical.encode(step.answer_schema),
        deadline_s=step.deadline_s,
    )
