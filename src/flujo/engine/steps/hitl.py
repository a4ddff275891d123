"""`hitl`: asks a human, and pauses the run until the answer arrives or the deadline passes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from flujo.domain import canonical, choices
from flujo.domain.choices import MAX_CHOICES
from flujo.domain.run import Pause
from flujo.domain.wording import kind_of
from flujo.engine import questions
from flujo.engine.attempts import settle_answer
from flujo.engine.error_info import safe_text
from flujo.engine.time_limits import seconds_of
from flujo.exceptions import ExpressionFailed

if TYPE_CHECKING:
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.ports import Binding
    from flujo.domain.steps import HumanInTheLoopStep
    from flujo.domain.values import Expr
    from flujo.engine.frame import Frame, RunBody, Work


def work(step: HumanInTheLoopStep, _binding: Binding, _run_body: RunBody) -> Work:
    """Return the execution of the step."""
    return partial(_answered, step)


async def _answered(step: HumanInTheLoopStep, frame: Frame, path: StepPath) -> StepOutcome:
    """Return the answer when there is one, otherwise a pause that becomes visible with the next commit."""
    asked = frame.run.journal.pause(path)
    question = step.question
    if asked is not None and asked.answer_schema is not None:  # with its recorded choices
        question = replace(question, answer_schema=canonical.decode(asked.answer_schema))
    return await questions.settled(
        step,
        frame,
        path,
        question,
        ask=lambda: _ask(step, frame, path),
        take=lambda asked: _taken(step, frame, asked),
        missed="was not answered",
    )


async def _taken(step: HumanInTheLoopStep, frame: Frame, asked: Pause) -> StepOutcome:
    frame.run.journal.keeps(asked.pause_id, canonical.encode(asked.message), lambda: _asked(step, frame))
    if asked.answer_schema is not None:  # a fork has the questions of its parent without it
        frame.run.journal.keeps(
            asked.pause_id, asked.answer_schema, lambda: _schema(step, frame) or b"null", "schema"
        )
    if step.question.answer_schema is not None:  # its choices were checked when it was answered
        answer = canonical.decode(asked.answer or b"null")
        frame.run.binding.schema(step.question.answer_schema).check(answer, what=f"answer to {step.name!r}")
    return await settle_answer(step, frame, asked)


def _message(step: HumanInTheLoopStep, frame: Frame) -> str:
    message = frame.render(step.message)
    return message if isinstance(message, str) else canonical.encode(message).decode()


def _asked(step: HumanInTheLoopStep, frame: Frame) -> bytes:
    """Return the message as the journal has it."""
    return canonical.encode(safe_text(_message(step, frame)))


def _schema(step: HumanInTheLoopStep, frame: Frame) -> bytes | None:
    """Return the schema of the answer, with the choices that there are now."""
    if step.answer_schema is None:
        return None
    listed = partial(_choices, step, frame)
    return canonical.encode(choices.asked(step.answer_schema, listed), what=f"schema of {step.name!r}")


def _choices(step: HumanInTheLoopStep, frame: Frame, expression: Expr) -> list[str]:
    """Return the values to choose from, each once.

    Raises:
        ExpressionFailed: they are not a list of texts, or too few or too many.
    """
    found = frame.evaluate(expression)
    problem = None
    if not isinstance(found, list):
        problem = f"{kind_of(found)}, not a list"
    elif not found:
        problem = "an empty list"
    elif len(found) > MAX_CHOICES:
        problem = f"a list of {len(found)} values, and at most {MAX_CHOICES} are allowed"
    elif others := [each for each in found if not isinstance(each, str)]:
        problem = f"a list with {kind_of(others[0])}, and choices are texts"
    if problem is not None:
        raise ExpressionFailed(
            f"the choices of the question {step.name!r}, `{expression.source}`, are {problem}",
            hint="use an expression whose value is a list of texts: `input.teams.map(t, t.name)`",
        )
    return list(dict.fromkeys(found))


async def _ask(step: HumanInTheLoopStep, frame: Frame, path: StepPath) -> Pause:
    return Pause(
        pause_id=path,
        message=_message(step, frame),
        answer_schema=_schema(step, frame),
        deadline_s=seconds_of(step.deadline_s, frame, what=f"`deadline_s` of step {step.name!r}"),
    )
