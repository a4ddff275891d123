"""What `hitl` and `event` share: a question or a wait is opened, stays open, is answered, or is too late."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.journal import EntryKind, ErrorInfo
from flujo.domain.outcomes import Failure, Paused
from flujo.domain.values import TimeLimit
from flujo.engine.attempts import answering, record_failure, settle
from flujo.engine.error_info import error_info
from flujo.exceptions import DeadlinePassed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.pipeline import Question
    from flujo.domain.run import Pause
    from flujo.domain.steps import BaseStep
    from flujo.engine.frame import Frame


async def settled(
    step: BaseStep[Any, Any],
    frame: Frame,
    path: StepPath,
    question: Question,
    *,
    ask: Callable[[], Awaitable[Pause]],
    take: Callable[[Pause], Awaitable[StepOutcome]],
    missed: str,
) -> StepOutcome:
    """Return the result of a step's answer or of its deadline; until then, the open pause.

    Args:
        step: the step.
        frame: its frame.
        path: its path, which is the id of the pause.
        question: what the step says about its pause.
        ask: returns the pause to open, which becomes visible with the next commit.
        take: settles the step with the answer of the pause.
        missed: what has not happened before the deadline, `was not answered`.
    """

    async def opened() -> Paused:
        return Paused((frame.run.journal.ask(await ask()),))

    asked = frame.run.journal.pause(path)
    if asked is not None and asked.is_open:
        return Paused((asked,))
    if asked is not None and asked.is_expired:
        return await _too_late(step, frame, asked, question, missed=missed, ask=opened)
    return await opened() if asked is None or asked.answer is None else await take(asked)


async def _too_late(
    step: BaseStep[Any, Any],
    frame: Frame,
    asked: Pause,
    question: Question,
    *,
    missed: str,
    ask: Callable[[], Awaitable[Paused]],
) -> StepOutcome:
    """Apply `on_deadline`; a retry of a failed step opens the pause again."""
    attempt = answering(step, frame, asked)
    schema = question.answer_schema
    if isinstance(question.on_deadline, Mapping):
        answer = frame.render(question.on_deadline["answer"])
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
    limit = question.deadline_s or 0
    if isinstance(limit, TimeLimit):  # its seconds stand in the recorded wait
        limit = round((asked.deadline_at or 0) - (asked.asked_at or 0), 3)
    error = DeadlinePassed(
        f"step {step.name!r} {missed} within its `deadline_s` of {limit:g} s",
        step=step.name,
    )
    failure = error_info(error, asked.pause_id)
    await record_failure(attempt, failure)
    return Failure(failure, error)
