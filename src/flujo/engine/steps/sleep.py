"""`sleep`: a run waits for some time, or until a moment, and holds no process meanwhile.

The moment is fixed by the commit that begins the wait, and a resumed run keeps it. The wait ends like an
expired question: by a worker, or by any process that recovers runs.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from flujo.domain.outcomes import Paused, StepOutcome
from flujo.domain.run import Pause, PauseKind
from flujo.engine.attempts import answering, settle
from flujo.engine.decisions import value_of
from flujo.exceptions import ExpressionFailed

if TYPE_CHECKING:
    from flujo.domain.paths import StepPath
    from flujo.domain.ports import Binding
    from flujo.domain.steps import SleepStep
    from flujo.engine.frame import Frame, RunBody, Work


def work(step: SleepStep, _binding: Binding, _run_body: RunBody) -> Work:
    """Return the execution of the step."""
    return partial(_slept, step)


async def _slept(step: SleepStep, frame: Frame, path: StepPath) -> StepOutcome:
    """Pass the input on once the wait has ended; until then, the wait."""
    wait = frame.run.journal.pause(path)
    if wait is not None and wait.is_settled:
        attempt = answering(step, frame, wait)
        attempt.output = frame.previous
        return await settle(attempt)
    if wait is None or wait.void:
        wait = frame.run.journal.ask(await _wait(step, frame, path))
    return Paused((wait,))


async def _wait(step: SleepStep, frame: Frame, path: StepPath) -> Pause:
    """Return a wait that begins with the next commit.

    Raises:
        ExpressionFailed: `until` is not RFC 3339 text with a zone.
    """
    if step.until is None:
        return Pause(pause_id=path, message=step.summary(), deadline_s=step.for_s, kind=PauseKind.SLEEP)
    given = await value_of(step.until, frame)
    try:
        moment = datetime.fromisoformat(given)
    except (TypeError, ValueError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ExpressionFailed(
            f"`until` of step {step.name!r} is {given!r}, which is not a moment with a time zone",
            hint='write it like "2026-11-29T09:00:00Z", or compute it: '
            '`string(timestamp(input.at) + duration("24h"))`',
        )
    return Pause(
        pause_id=path,
        message=f"waits until {given}",
        deadline_at=moment.timestamp(),
        kind=PauseKind.SLEEP,
    )
