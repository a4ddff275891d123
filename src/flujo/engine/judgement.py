"""Judges the answers of a conversation; the verdict of its validators is recorded, with their usage."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.journal import Entry, EntryKind, EntryStatus
from flujo.engine.attempt import Attempt
from flujo.engine.attempt_costs import note_unfinished, spent
from flujo.engine.budget_questions import BudgetAsked
from flujo.engine.journal import STOPS_THE_WALK
from flujo.engine.processors import OutputGate
from flujo.engine.step_meter import StepMeter
from flujo.exceptions import OutputRejected

if TYPE_CHECKING:
    from flujo.domain.paths import StepPath
    from flujo.domain.steps.step import TurnStep
    from flujo.engine.frame import Frame


async def judged(step: TurnStep, frame: Frame, path: StepPath, value: Any) -> Any:
    """Return an answer that passes the output schema and the validators.

    The verdict of validators is a decision at the path of the turn, so a resumed run does not repeat their
    work, and does not pay for it twice.

    Args:
        step: the step with its output schema and validators.
        frame: the frame of the step.
        path: the path of the turn that has the answer.
        value: the answer.

    Raises:
        OutputRejected: it does not fit (`reason`).
        StepFailed: a validator raised something else; it is called again by a retry.
    """
    journal = frame.run.journal
    recorded = journal.attempts(path, EntryKind.DECISION)
    if recorded and recorded[-1].status is EntryStatus.COMPLETED:
        refused = canonical.decode(recorded[-1].output or b"null")
        if refused is not None:
            raise OutputRejected(refused["message"], reason=refused["reason"], retryable=True)
        step = replace(step, validators=())
    if not step.validators:
        return await OutputGate(Attempt(step, frame, path))(value)
    attempt = Attempt(step, frame, path, len(recorded) + 1, EntryKind.DECISION, frame.run.clock.now())
    attempt.meter = StepMeter.of(frame.budget, path, journal)
    try:
        value = await OutputGate(attempt)(value)
    except OutputRejected as rejected:
        if "validator" not in rejected.facts:
            raise  # by the schema, which rejects it again
        said = {"message": rejected.message, "reason": rejected.reason}
        await _record(attempt, output=canonical.encode(said))
        raise
    except STOPS_THE_WALK:
        raise
    except (BudgetAsked, asyncio.CancelledError) as signal:
        note_unfinished(attempt, signal)
        raise
    except Exception as error:
        attempt.usage += spent(error)
        failure = canonical.encode(journal.error_info(error, path).to_json())
        await _record(attempt, status=EntryStatus.FAILED, error=failure)
        raise
    await _record(attempt, output=canonical.encode(None))
    return value


async def _record(attempt: Attempt, **verdict: Any) -> None:
    if attempt.meter is not None:
        attempt.meter.close(attempt.usage)
    await attempt.frame.run.journal.record(
        Entry(
            path=attempt.path,
            kind=attempt.kind,
            attempt=attempt.number,
            fingerprint=attempt.step.kind,
            usage=attempt.usage,
            started_at=attempt.started_at,
            ended_at=attempt.frame.run.clock.now(),
            **verdict,
        )
    )
