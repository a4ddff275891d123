"""Calls with an effect outside: announced before they are made, in doubt when nobody saw how they ended."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.agents import Ask
from flujo.domain.journal import Entry, EntryKind, EntryStatus, indexed
from flujo.domain.outcomes import Failure, Paused
from flujo.domain.run import Intent, IntentState, Pause
from flujo.engine.attempts import error_info
from flujo.engine.recording import Draft, settle
from flujo.exceptions import CallInDoubt, FlujoError, OutputRejected

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.journal import StepPath
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.steps import Step
    from flujo.engine.frame import Frame

REPEATABLE = ("read", "idempotent")
"""Effects that a second call does not add to: an attempt of theirs that broke off has just failed."""

SAME_KEY = (*REPEATABLE, "transactional")
"""Effects of which a failed call has left nothing behind: a retry is the same call, under the same key."""


async def announce(step: Step, frame: Frame, path: StepPath, draft: Draft) -> str:
    """Record durably that a call is about to be made, and return its key.

    A call that was in doubt and is made again keeps its key, and so does the retry of one whose effect allows
    it; every other attempt is a call of its own.
    """
    before = await frame.run.journal.intent(path)
    tool = step.call.target if step.call else ""
    attempt, sends = draft.attempt, before.sends + 1 if before else 1
    if before is not None and before.attempt == attempt:
        key = before.key
    else:
        repeats = step.effect in SAME_KEY or step.in_doubt == "retry_same_key"
        parts = [
            frame.run.id,
            path,
            tool,
            0 if repeats else attempt,
            canonical.decode(draft.input or b"null"),
        ]
        key = canonical.digest(canonical.encode(parts))
    draft.intent = Intent(
        key=key,
        path=path,
        tool=tool,
        state=IntentState.SENT,
        input=draft.input or b"null",
        attempt=attempt,
        sends=sends,
        sent_at=frame.run.clock.now(),
    )
    frame.run.journal.record_intent(draft.intent)
    await frame.run.journal.flush()
    return key


async def left_in_doubt(step: Step, frame: Frame, path: StepPath) -> StepOutcome | None:
    """Return what becomes of a call that an earlier process made and whose end it did not record.

    None when there is none, or when it is to be made again.
    """
    intent = await frame.run.journal.intent(path)
    if intent is None or intent.state not in (IntentState.SENT, IntentState.IN_DOUBT):
        return None
    ended = [entry.attempt for entry in frame.run.journal.attempts(path, EntryKind.WORK)]
    return None if intent.attempt in ended else await resolve(step, frame, intent)


async def broken_off(step: Step, frame: Frame, intent: Intent, cause: Exception) -> StepOutcome | None:
    """Return what becomes of a call that broke off here; None when it has failed like any other."""
    if step.effect in REPEATABLE or not isinstance(cause, TimeoutError | ConnectionError | CallInDoubt):
        return None
    return await resolve(step, frame, intent)


async def resolve(step: Step, frame: Frame, intent: Intent) -> StepOutcome | None:
    """Do with a call in doubt what `in_doubt` says; None when it is to be made again, under its key."""
    match step.in_doubt:
        case "retry_same_key":
            return None
        case "reconcile":
            return await _reconcile(step, frame, intent)
        case "fail":
            return await _give_up(step, frame, intent)
        case _:
            return await _ask(step, frame, intent)


async def _ask(step: Step, frame: Frame, intent: Intent) -> StepOutcome | None:
    pause_id = indexed(intent.path, intent.sends - 1)
    asked = frame.run.journal.pause(pause_id)
    if asked is not None and asked.is_open:
        return Paused((asked,))
    if asked is None or asked.answer is None:
        question = _question(step, intent, pause_id)
        frame.run.journal.record_intent(replace(intent, state=IntentState.IN_DOUBT))
        frame.run.journal.ask(question)
        return Paused((question,))
    answer = canonical.decode(asked.answer)
    match answer["resolution"]:
        case "done":
            return await _settle(step, frame, intent, answer.get("result"), by="human")
        case "retry":
            return None
        case _:
            return await _give_up(step, frame, intent)


def _question(step: Step, intent: Intent, pause_id: StepPath) -> Pause:
    when = datetime.fromtimestamp(intent.sent_at or 0.0, UTC).isoformat(timespec="seconds")
    result = True if step.output_schema is None else step.output_schema
    return Pause(
        pause_id=pause_id,
        message=f"step {step.name!r} called `{intent.tool}` at {when}, and how that ended is not recorded.\n"
        f"sent: {intent.input.decode()}\nkey:  {intent.key}\n"
        "Look on the other side, then say: done (with its result), retry (call again, with the same key), "
        "or fail.",
        answer_schema=canonical.encode(
            {
                "type": "object",
                "required": ["resolution"],
                "properties": {"resolution": {"enum": ["done", "retry", "fail"]}, "result": result},
                "additionalProperties": False,
            }
        ),
    )


async def _reconcile(step: Step, frame: Frame, intent: Intent) -> StepOutcome | None:
    if step.reconcile is None:
        return await _ask(step, frame, intent)
    ask = Ask(data=canonical.decode(intent.input), resources=frame.run.resources, idempotency_key=intent.key)
    try:
        async with asyncio.timeout(step.config.timeout_s):
            reply = await frame.run.binding.agent(step.reconcile).ask(ask)
        said = canonical.normalise(reply.output, what=f"answer of `{step.reconcile.target}`")
    except FlujoError:
        raise
    except Exception as error:  # noqa: BLE001 - foreign code; the call stays in doubt, and is asked about again
        return Failure(error_info(error, intent.path), error)
    if not isinstance(said, dict) or not isinstance(said.get("done"), bool):
        raise OutputRejected(
            f"`{step.reconcile.target}` does not say whether the call of step {step.name!r} was made",
            hint="return {'done': True, 'result': …} or {'done': False}",
        )
    return await _settle(step, frame, intent, said.get("result"), by="reconcile") if said["done"] else None


async def _settle(step: Step, frame: Frame, intent: Intent, result: Any, *, by: str) -> StepOutcome:
    if step.output_schema is not None:
        frame.run.binding.schema(step.output_schema).check(result, what=f"output of step {step.name!r}")
    detail = {"call": intent.tool, "resolved": by}
    draft = Draft(result, input=intent.input, detail=detail, attempt=intent.attempt, intent=intent)
    return await settle(step, frame, _entry(step, intent), draft)


async def _give_up(step: Step, frame: Frame, intent: Intent) -> Failure:
    error = CallInDoubt(
        f"step {step.name!r} called `{intent.tool}`, and nobody knows whether that took effect",
        key=intent.key,
    )
    failure = error_info(error, intent.path)
    frame.run.journal.record_intent(replace(intent, state=IntentState.IN_DOUBT))
    await frame.run.journal.record(
        _entry(step, intent)(
            status=EntryStatus.FAILED,
            input=intent.input,
            error=canonical.encode(failure.to_json()),
            ended_at=frame.run.clock.now(),
        )
    )
    return Failure(failure, error)


def _entry(step: Step, intent: Intent) -> Callable[..., Entry]:
    return partial(
        Entry,
        path=intent.path,
        kind=EntryKind.WORK,
        attempt=intent.attempt,
        fingerprint=step.kind,
        started_at=intent.sent_at or 0.0,
    )
