"""`event`: a run waits for an event from outside, and holds no process meanwhile.

The name and the key are fixed by the commit that begins the wait, and a resumed run keeps them. The same
commit takes an event that came before, so the run may continue at once.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flujo.domain import canonical
from flujo.domain.run import Pause, PauseKind
from flujo.domain.sent_events import MAX_KEY
from flujo.engine import questions
from flujo.engine.attempts import answering, settle
from flujo.engine.decisions import value_of
from flujo.engine.time_limits import seconds_of
from flujo.exceptions import ExpressionFailed

if TYPE_CHECKING:
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.ports import Binding
    from flujo.domain.steps import EventStep
    from flujo.domain.values import Logic
    from flujo.engine.frame import Frame, RunBody, Work


def work(step: EventStep, _binding: Binding, _run_body: RunBody) -> Work:
    """Return the execution of the step."""
    return partial(_received, step)


async def _received(step: EventStep, frame: Frame, path: StepPath) -> StepOutcome:
    """Return the payload when the event is there, otherwise the wait."""
    return await questions.settled(
        step,
        frame,
        path,
        step.question,
        ask=lambda: _wait(step, frame, path),
        take=lambda wait: _taken(step, frame, wait),
        missed=f"got no event {step.event_name!r}",
    )


async def _taken(step: EventStep, frame: Frame, wait: Pause) -> StepOutcome:
    attempt = answering(step, frame, wait)
    attempt.output = canonical.decode(wait.answer or b"null")
    if step.event_schema is not None:  # another one than the wait's, when changes were accepted
        what = f"the payload of event {step.event_name!r}"
        attempt.output = frame.run.binding.schema(step.event_schema).check(attempt.output, what=what)
    return await settle(attempt)


async def _wait(step: EventStep, frame: Frame, path: StepPath) -> Pause:
    key = None if step.key is None else await _key(step, step.key, frame)
    return Pause(
        pause_id=path,
        message=f"waits for the event {step.event_name}" + ("" if key is None else f" with the key {key}"),
        answer_schema=None if step.event_schema is None else canonical.encode(step.event_schema),
        deadline_s=seconds_of(step.deadline_s, frame, what=f"`deadline_s` of step {step.name!r}"),
        kind=PauseKind.EVENT,
        event=step.event_name,
        event_key=key,
    )


async def _key(step: EventStep, rule: Logic, frame: Frame) -> str:
    """Return the key of a wait: a text, or a number as text.

    Raises:
        ExpressionFailed: it is something else, empty, or too long.
    """
    given = await value_of(rule, frame)
    if isinstance(given, int | float) and not isinstance(given, bool):
        given = canonical.encode(given).decode()
    if not isinstance(given, str) or not 0 < len(given) <= MAX_KEY or "\x00" in given:
        raise ExpressionFailed(
            f"`key` of step {step.name!r} is {given!r}, which is neither a number nor a text of 1 to "
            f"{MAX_KEY} characters",
            hint="use what the sender of the event knows as well, for instance `key: input.customer_id`",
        )
    return given
