"""`hitl`: asks a human, and pauses the run until the answer arrives or the deadline passes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from flujo.domain import canonical
from flujo.domain.journal import EntryKind, ErrorInfo
from flujo.domain.outcomes import Failure, Paused, StepOutcome
from flujo.domain.run import Pause
from flujo.engine.attempts import answering, record_failure, settle, settle_answer
from flujo.engine.journal import error_info
from flujo.exceptions import DeadlinePassed

if TYPE_CHECKING:
    from flujo.domain.paths import StepPath
    from flujo.domain.ports import Binding
    from flujo.domain.steps import HumanInTheLoopStep
    from flujo.engine.frame import Frame, RunBody, Work


def work(step: HumanInTheLoopStep, _binding: Binding, _run_body: RunBody) -> Work:
    """Return the execution of the step."""
    return partial(_answered, step)


async def _answered(step: HumanInTheLoopStep, frame: Frame, path: StepPath) -> StepOutcome:
    """Return the answer when there is one, otherwise a pause that becomes visible with the next commit."""
    asked = frame.run.journal.pause(path)
    if asked is not None and asked.is_open:
        return Paused((asked,))
    if asked is not None and asked.is_expired:
        return await _too_late(step, frame, asked)
    if asked is None or asked.answer is None:
        return _ask(step, frame, path)
    if step.answer_schema is not None:
        answer = canonical.decode(asked.answer)
        frame.run.binding.schema(step.answer_schema).check(answer, what=f"answer to {step.name!r}")
    return await settle_answer(step, frame, asked)


def _ask(step: HumanInTheLoopStep, frame: Frame, path: StepPath) -> Paused:
    message = frame.render(step.message)
    question = Pause(
        pause_id=path,
        message=message if isinstance(message, str) else canonical.encode(message).decode(),
        answer_schema=None if step.answer_schema is None else canonical.encode(step.answer_schema),
        deadline_s=step.deadline_s,
    )
    return Paused((frame.run.journal.ask(question),))


async def _too_late(step: HumanInTheLoopStep, frame: Frame, asked: Pause) -> StepOutcome:
    """Apply `on_deadline`; a retry of a failed step asks again."""
    attempt = answering(step, frame, asked)
    if isinstance(step.on_deadline, Mapping):
        answer = frame.render(step.on_deadline["answer"])
        if step.answer_schema is not None:
            what = f"`on_deadline` of step {step.name!r}"
            answer = frame.run.binding.schema(step.answer_schema).check(answer, what=what)
        attempt.output = answer
        attempt.note({"deadline": "passed"})
        return await settle(attempt)
    failed = frame.run.journal.attempts(asked.pause_id, EntryKind.ANSWER)
    if failed and failed[-1].started_at == asked.asked_at:
        if failed[-1].seq <= frame.since:
            return _ask(step, frame, asked.pause_id)
        return Failure(ErrorInfo.from_json(canonical.decode(failed[-1].error or b"{}")))
    error = DeadlinePassed(
        f"step {step.name!r} was not answered within its `deadline_s` of {step.deadline_s:g} s",
        step=step.name,
    )
    failure = error_info(error, asked.pause_id)
    await record_failure(attempt, failure)
    return Failure(failure, error)
