"""What a step does when the deadline of its question or its wait has passed: `on_deadline`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.journal import EntryKind, ErrorInfo
from flujo.domain.outcomes import Failure
from flujo.engine.attempts import answering, record_failure, settle
from flujo.engine.journal import error_info
from flujo.exceptions import DeadlinePassed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flujo.domain.outcomes import Paused, StepOutcome
    from flujo.domain.run import Pause
    from flujo.domain.steps import BaseStep
    from flujo.engine.frame import Frame


async def too_late(
    step: BaseStep[Any, Any],
    frame: Frame,
    asked: Pause,
    *,
    on_deadline: Any,
    missed: str,
    ask: Callable[[], Awaitable[Paused]],
) -> StepOutcome:
    """Apply `on_deadline`; a retry of a failed step opens the pause again.

    Args:
        step: the step.
        frame: its frame.
        asked: the expired pause.
        on_deadline: what the step says.
        missed: what did not happen, `was not answered`.
        ask: opens the pause again.
    """
    attempt = answering(step, frame, asked)
    schema, limit_s = (
        (step.question.answer_schema, step.question.deadline_s) if step.question else (None, None)
    )
    if isinstance(on_deadline, Mapping):
        answer = frame.render(on_deadline["answer"])
        if schema is not None:
            what = f"`on_deadline` of step {step.name!r}"
            answer = frame.run.binding.schema(schema).check(answer, what=what)
        attempt.output = answer
        attempt.note({"deadline": "passed"})
        return await settle(attempt)
    failed = frame.run.journal.attempts(asked.pause_id, EntryKind.ANSWER)
    if failed and failed[-1].started_at == asked.asked_at:
        if failed[-1].seq <= frame.since:
            return await ask()
        return Failure(ErrorInfo.from_json(canonical.decode(failed[-1].error or b"{}")))
    error = DeadlinePassed(
        f"step {step.name!r} {missed} within its `deadline_s` of {limit_s or 0:g} s", step=step.name
    )
    failure = error_info(error, asked.pause_id)
    await record_failure(attempt, failure)
    return Failure(failure, error)
