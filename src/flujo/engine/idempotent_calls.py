"""Calls with external effects: recorded before they are made, in doubt when their result is not recorded."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from flujo.domain import canonical
from flujo.domain.agents import Ask
from flujo.domain.journal import Entry, EntryKind, EntryStatus
from flujo.domain.outcomes import Failure, Paused
from flujo.domain.paths import doubt, indexed
from flujo.domain.run import UNRESOLVED, Intent, IntentState, Pause, PauseKind
from flujo.engine import failed_calls
from flujo.engine.attempt import Attempt
from flujo.engine.error_info import error_info
from flujo.engine.failed_calls import Verdict
from flujo.engine.time_limits import timeout_of
from flujo.exceptions import CallInDoubt, FlujoError, OutputRejected, StateError

if TYPE_CHECKING:
    from flujo.domain.journal import ErrorInfo
    from flujo.domain.paths import StepPath
    from flujo.domain.steps import Step
    from flujo.engine.frame import Frame

REPEATABLE = ("read", "idempotent")
"""Effects that a second call does not change: an interrupted attempt counts as failed."""

SAME_KEY = (*REPEATABLE, "transactional")
"""Effects that a failed call does not leave: a retry is the same call, under the same key."""

Ended: TypeAlias = Attempt | Failure | Paused | None
"""The resolution of a call in doubt: made (an attempt to settle), given up, or a question; None: repeat."""


class UnknownSinceRestore(StateError):
    """The database was restored from a backup, and the call may have been made since; it is in doubt now."""


async def announce(attempt: Attempt) -> None:
    """Record durably that a call is about to be made."""
    step, frame, path = cast("Step", attempt.step), attempt.frame, attempt.path
    intent = await identify(attempt)
    is_new = step.effect not in REPEATABLE and not attempt.repeats_doubt
    is_unknown = is_new and await frame.run.journal.is_unknown_since_restore(path)
    frame.run.journal.record_intent(intent)
    await frame.run.journal.announce()
    if is_unknown:
        if attempt.meter is not None:
            attempt.meter.close(attempt.usage)
        raise UnknownSinceRestore(f"whether `{intent.tool}` was called since the backup is unknown")


async def identify(attempt: Attempt) -> Intent:
    """Give the attempt the intent of its call, with its key; nothing is recorded.

    A call in doubt keeps its key when it is made again, and so does a call that was not sent. Any other retry
    is a new call, unless the effect makes it the same call.
    """
    step, frame, path = cast("Step", attempt.step), attempt.frame, attempt.path
    before = await frame.run.journal.intent(path)
    tool = step.call.target if step.call else ""
    sent = attempt.input or b"null"
    if before is not None and _is_repeated(before, attempt.number, sent):
        key, attempt.repeats_doubt = before.key, before.state in UNRESOLVED
    else:
        repeats = step.effect in SAME_KEY or step.in_doubt == "retry_same_key"
        stored = frame.run.journal.stored_path(path)  # a renamed step makes the same call under the same key
        parts = [frame.run.id, stored, tool, 0 if repeats else attempt.number, canonical.decode(sent)]
        key = canonical.digest(canonical.encode(parts))
    attempt.intent = Intent(
        key=key,
        path=path,
        tool=tool,
        state=IntentState.SENT,
        input=sent,
        attempt=attempt.number,
        sends=before.sends + 1 if before else 1,
        sent_at=frame.run.clock.now(),
    )
    return attempt.intent


def _is_repeated(before: Intent, number: int, sent: bytes) -> bool:
    """Return whether the next call is the earlier one, made again."""
    if before.state in UNRESOLVED or before.attempt == number:
        return True
    return before.state is IntentState.NOT_SENT and before.input == sent


async def left_in_doubt(step: Step, frame: Frame, path: StepPath) -> Ended:
    """Return the resolution of a call that an earlier process made without recording the result.

    None when there is none, or when it is to be repeated.
    """
    intent = await frame.run.journal.intent(path)
    if intent is None or intent.state not in UNRESOLVED:
        return None
    ended = [entry.attempt for entry in frame.run.journal.attempts(path, EntryKind.WORK)]
    return None if intent.attempt in ended else await resolve(step, frame, intent)


async def broken_off(attempt: Attempt, cause: Exception, failure: ErrorInfo) -> Ended:
    """Return the resolution of a call whose attempt failed; None when the call is not in doubt.

    A call that was in doubt when it was made again stays in doubt after a harmless failure, which says
    nothing about the earlier sending.
    """
    step, frame, intent = cast("Step", attempt.step), attempt.frame, attempt.intent
    journal = frame.run.journal
    if intent is None:  # this attempt has not sent the call
        before = await journal.intent(attempt.path)
        if before is None or before.state not in UNRESOLVED or step.effect in REPEATABLE:
            return None
        intent = replace(before, attempt=attempt.number)
    else:
        verdict = failed_calls.verdict(cause)
        is_in_doubt = attempt.repeats_doubt or verdict is Verdict.IN_DOUBT
        if step.effect in REPEATABLE or not is_in_doubt:
            state = IntentState.NOT_SENT if verdict is Verdict.NOT_SENT else IntentState.FAILED
            journal.record_intent(replace(intent, state=state))
            return None
    resolved = await resolve(step, frame, intent, failure)
    if resolved is not None:
        return resolved
    now = await journal.intent(attempt.path)
    if now is not None and now.state is IntentState.NOT_SENT:
        return None
    return await _fail(step, frame, intent, failure, retryable=True)


async def resolve(step: Step, frame: Frame, intent: Intent, reason: ErrorInfo | None = None) -> Ended:
    """Resolve a call in doubt according to `in_doubt`; None when it is to be repeated, under its key.

    Args:
        step: the step that made the call.
        frame: its scope.
        intent: the call.
        reason: the failure that left it in doubt; None when its process died.
    """
    match step.in_doubt:
        case "retry_same_key":
            return None
        case "reconcile":
            return await _reconcile(step, frame, intent, reason)
        case "fail":
            return await _fail(step, frame, intent, reason)
        case _:
            return await _ask(step, frame, intent, reason)


async def _ask(step: Step, frame: Frame, intent: Intent, reason: ErrorInfo | None) -> Ended:
    pause_id = doubt(intent.path, intent.sends - 1)
    # Flujo 0.1 used the number alone as the id of the question.
    asked = frame.run.journal.pause(pause_id) or frame.run.journal.pause(
        indexed(intent.path, intent.sends - 1)
    )
    if asked is not None and asked.is_open:
        return Paused((asked,))
    if asked is None or asked.answer is None:
        question = _question(step, intent, pause_id, reason)
        frame.run.journal.record_intent(replace(intent, state=IntentState.IN_DOUBT))
        return Paused((frame.run.journal.ask(question),))
    answer = canonical.decode(asked.answer)
    match answer["resolution"]:
        case "done":
            return _made(step, frame, intent, answer.get("result"), by="human")
        case "retry":
            return None
        case _:
            return await _fail(step, frame, intent, reason)


def _question(step: Step, intent: Intent, pause_id: StepPath, reason: ErrorInfo | None) -> Pause:
    when = datetime.fromtimestamp(intent.sent_at or 0.0, UTC).isoformat(timespec="seconds")
    result = True if step.output_schema is None else step.output_schema
    unknown = "how that ended is not recorded."
    if reason is not None:
        unknown = f"it is unknown whether that took effect.\nfailed: {reason.message}"
    return Pause(
        pause_id=pause_id,
        kind=PauseKind.DOUBT,
        message=f"step {step.name!r} called `{intent.tool}` at {when}, and {unknown}\n"
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


async def _reconcile(step: Step, frame: Frame, intent: Intent, reason: ErrorInfo | None) -> Ended:
    if step.reconcile is None:
        return await _ask(step, frame, intent, reason)
    about = step.about_call(canonical.decode(intent.input))
    ask = Ask(data=about, resources=frame.run.resources, idempotency_key=intent.key)
    try:
        async with asyncio.timeout(timeout_of(step, frame)) as limit:
            reply = await frame.ask(intent.path, step.reconcile, ask, limit)
        found = canonical.normalise(reply.output, what=f"answer of `{step.reconcile.target}`")
    except FlujoError:
        raise
    except Exception as error:  # noqa: BLE001 - foreign code; without an entry, a resumed run calls it again
        return Failure(_unknown(step, intent, frame.run.journal.error_info(error, intent.path)), error)
    if not isinstance(found, dict) or not isinstance(found.get("done"), bool):
        raise OutputRejected(
            f"`{step.reconcile.target}` did not return whether the call of step {step.name!r} was made",
            hint="return {'done': True, 'result': …} or {'done': False}",
        )
    if found["done"]:
        return _made(step, frame, intent, found.get("result"), by="reconcile")
    frame.run.journal.record_intent(replace(intent, state=IntentState.NOT_SENT))
    return None


def _made(step: Step, frame: Frame, intent: Intent, result: Any, *, by: str) -> Attempt:
    """Return the attempt of a call that was made, to be settled with its result."""
    if step.output_schema is not None:
        schema = frame.run.binding.schema(step.output_schema)
        result = schema.check(result, what=f"output of step {step.name!r}")
    return Attempt(
        step,
        frame,
        intent.path,
        intent.attempt,
        started_at=intent.sent_at or 0.0,
        input=intent.input,
        intent=intent,
        output=result,
        detail={"call": intent.tool, "resolved": by},
    )


async def _fail(
    step: Step, frame: Frame, intent: Intent, reason: ErrorInfo | None, *, retryable: bool = False
) -> Failure:
    """Record a failed attempt whose call stays in doubt. If it is retried, the retry keeps the key."""
    failure = _unknown(step, intent, reason)
    if reason is not None and retryable:
        failure = replace(failure, type=reason.type, retryable=reason.retryable)
    frame.run.journal.record_intent(replace(intent, state=IntentState.IN_DOUBT))
    await frame.run.journal.record(
        Entry(
            path=intent.path,
            kind=EntryKind.WORK,
            attempt=intent.attempt,
            status=EntryStatus.FAILED,
            fingerprint=step.kind,
            input=intent.input,
            error=canonical.encode(failure.to_json()),
            started_at=intent.sent_at or 0.0,
            ended_at=frame.run.clock.now(),
        )
    )
    return Failure(failure)


def _unknown(step: Step, intent: Intent, reason: ErrorInfo | None) -> ErrorInfo:
    message = f"step {step.name!r} called `{intent.tool}`, and it is unknown whether that took effect"
    if reason is not None:
        message += f": {reason.message}"
    failure = error_info(CallInDoubt(message, key=intent.key), intent.path)
    return failure if reason is None else replace(failure, frame=reason.frame, traceback=reason.traceback)
