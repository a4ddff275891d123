"""Attempts of a leaf step: time limits, retries with backoff, and one entry for each attempt."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.journal import Entry, EntryKind, EntryStatus, ErrorInfo, StepPath
from flujo.domain.outcomes import Aborted, Failure, Paused, StepOutcome, StepRetried, StepStarted
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import Intent, IntentState, Pause
from flujo.domain.usage import NOTHING, Usage
from flujo.engine.budget import meter
from flujo.engine.journal import STOPS_THE_WALK
from flujo.engine.recording import Draft, settle, settle_answer
from flujo.exceptions import (
    EngineError,
    FlujoError,
    PausedException,
    PipelineAbortSignal,
    StepFailed,
    StepTimeout,
    UsageLimitExceeded,
)
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from flujo.domain.steps import BaseStep
    from flujo.engine.frame import Frame


_USUAL_POLICY = RetryPolicy()

BrokenOff = Callable[["Intent", Exception], Awaitable[StepOutcome | None]]
"""Decides what becomes of an announced call that raised; None when it has failed like any other."""


async def perform(
    step: BaseStep,
    frame: Frame,
    path: StepPath,
    work: Callable[[Draft], Awaitable[None]],
    *,
    broken_off: BrokenOff | None = None,
) -> StepOutcome:
    """Return how a leaf step came out, after as many attempts as its `config` allows.

    `work` fills a draft; what it raises is a failed attempt. Retries are counted over crashes: a failed
    attempt is recorded before the next one starts. Where the draft has announced a call, `broken_off` is
    asked first what becomes of it.
    """
    asked = frame.run.journal.pause(path)
    if asked is not None and asked.is_open:
        frame.run.journal.ask(asked)
        return Paused((asked,))
    if asked is not None and asked.answer is not None:
        return await settle_answer(step, frame, asked)

    # No function of its own: every run that waits in its step would hold one, and a cell for each name.
    attempt = partial(_attempt, step, frame, path, work, broken_off)
    return await retried(step, frame, path, EntryKind.WORK, attempt)


async def retried(
    step: BaseStep,
    frame: Frame,
    path: StepPath,
    kind: EntryKind,
    attempt: Callable[[int], Awaitable[StepOutcome]],
) -> StepOutcome:
    """Return how the last attempt came out, when each that fails is an entry of `kind`.

    Args:
        step: whose `config` says how often and after how long to try again.
        frame: the scope that says which failures of the past count.
        path: where the step stands.
        kind: what an attempt is recorded as.
        attempt: makes the attempt of a number, and records it when it fails.
    """
    recorded = frame.run.journal.attempts(path, kind)
    counted = [entry for entry in recorded if entry.seq > frame.since]
    failures, policy = len(counted), step.config.retry or _USUAL_POLICY
    if counted:
        error = ErrorInfo.from_json(canonical.decode(counted[-1].error or b"{}"))
        if failures > step.config.max_retries or not _worth_retrying(error, policy):
            remember(frame, counted[-1], error)
            return Failure(error)
    number = recorded[-1].attempt + 1 if recorded else 1
    while True:
        await frame.run.journal.ensure_lease()
        await frame.tell(StepStarted(path, step.kind, number))
        outcome = await attempt(number)
        if not isinstance(outcome, Failure):
            return outcome
        failures += 1
        if failures > step.config.max_retries or not _worth_retrying(outcome.error, policy):
            return outcome
        delay = policy.delay_s(failures, frame.run.random.fraction())
        await frame.tell(StepRetried(path, number, outcome.error, delay))
        await frame.run.clock.sleep(delay)
        number += 1


async def _attempt(
    step: BaseStep,
    frame: Frame,
    path: StepPath,
    work: Callable[[Draft], Awaitable[None]],
    broken_off: BrokenOff | None,
    attempt: int,
) -> StepOutcome:
    limit = None if step.config.timeout_s is None else asyncio.timeout(step.config.timeout_s)
    draft = Draft(None, attempt=attempt, limit=limit, meter=meter(frame, path))
    started_at = frame.run.clock.now()
    entry = partial(
        Entry, path=path, kind=EntryKind.WORK, attempt=attempt, fingerprint=step.kind, started_at=started_at
    )
    try:
        if limit is None:
            await work(draft)
        else:
            async with limit:
                await work(draft)
        return await settle(step, frame, entry, draft)
    except STOPS_THE_WALK:
        raise
    except PausedException as signal:
        pause = Pause(pause_id=path, message=signal.message)
        _settle_call(frame, draft, IntentState.DONE)
        frame.run.journal.ask(pause)
        return Paused((pause,))
    except PipelineAbortSignal as signal:
        return Aborted(signal.reason)
    except asyncio.CancelledError as signal:
        _note_cut_off(step, frame, entry, draft, path, signal)
        raise
    except TimeoutError as error:
        failure = error_info(timed_out(step) if limit and limit.expired() else error, path)
        cause: Exception = error
    except Exception as error:  # noqa: BLE001 - foreign code: whatever it raises is a failed attempt
        failure, cause = error_info(error, path), error
    if draft.intent is not None and broken_off is not None:
        outcome = await broken_off(draft.intent, cause)
        if outcome is not None:
            return outcome
    _settle_call(frame, draft, IntentState.FAILED)
    await frame.run.journal.record(_failed(frame, entry, draft, failure, cause))
    return Failure(failure, cause)


def _note_cut_off(
    step: BaseStep,
    frame: Frame,
    entry: Callable[..., Entry],
    draft: Draft,
    path: StepPath,
    signal: BaseException,
) -> None:
    """Record an attempt that the time limit of a step around it ended, because it was paid for.

    The entry is committed with that step's own. An announced call stays in doubt, like after a crash.
    """
    if frame.is_out_of_time and not draft.is_settled and draft.intent is None:
        error = _cut_off(step, frame, path)
        draft.detail = (draft.detail or {}) | budget_hit(error)
        frame.run.journal.append_deferred(_failed(frame, entry, draft, error_info(error, path), signal))


def _settle_call(frame: Frame, draft: Draft, state: IntentState) -> None:
    if draft.intent is not None:
        frame.run.journal.record_intent(replace(draft.intent, state=state))


def _failed(
    frame: Frame, entry: Callable[..., Entry], draft: Draft, failure: ErrorInfo, cause: BaseException
) -> Entry:
    used, detail = draft.usage + spent(cause), (draft.detail or {}) | budget_hit(cause)
    if draft.meter is not None:
        draft.meter.close(used)
    return entry(
        status=EntryStatus.FAILED,
        input=draft.input,
        error=canonical.encode(failure.to_json()),
        usage=used,
        detail=canonical.encode(detail) if detail else None,
        ended_at=frame.run.clock.now(),
    )


def budget_hit(cause: BaseException | None) -> dict[str, Any]:
    """Return whose limit a failed attempt ran into, for the detail of its entry."""
    return {"budget": cause.facts["budget"]} if isinstance(cause, UsageLimitExceeded) else {}


def spent(error: BaseException | None) -> Usage:
    """Return what an agent had used when it failed; a step's clock cuts it off through a cancellation."""
    while error is not None:
        usage = getattr(error, "usage", None)
        if isinstance(usage, Usage):
            return usage
        error = error.__cause__
    return NOTHING


def error_info(error: Exception, path: StepPath) -> ErrorInfo:
    """Return an error as the journal keeps it."""
    if isinstance(error, FlujoError):
        return ErrorInfo(
            code=error.code,
            message=GATE.text(_writable(error.message)),
            hint=error.hint and GATE.text(error.hint),
            type=type(error).__name__,
            path=path,
            retryable=bool(getattr(error, "retryable", False)),
        )
    kind = type(error).__name__
    text = GATE.text(_writable(str(error)))
    return ErrorInfo(
        StepFailed.code,
        f"{kind}: {text}" if text else kind,
        StepFailed.hint,
        kind,
        path,
        retryable=True,
    )


def _writable(text: str) -> str:
    """Return a text of foreign code without what JSON or a database cannot hold."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "")


def remember(frame: Frame, entry: Entry, error: ErrorInfo) -> None:
    """Take note of a limit that was hit before this execution began: what it holds for does not go on."""
    if frame.budget is not None and error.type == UsageLimitExceeded.__name__:
        detail = canonical.decode(entry.detail) if entry.detail else {}
        frame.budget.remember(StepPath(detail.get("budget", "")), error)


def _worth_retrying(error: ErrorInfo, policy: RetryPolicy) -> bool:
    if error.type == UsageLimitExceeded.__name__:
        return False  # whatever the policy says: there is no room, and time makes none
    if policy.on:
        return error.type in policy.on or error.code in policy.on
    return error.retryable


def timed_out(step: BaseStep) -> StepTimeout:
    """Return the error of an attempt that took longer than its step's `timeout_s`."""
    limit = step.config.timeout_s
    return StepTimeout(
        f"step {step.name!r} took longer than its `timeout_s` of {limit:g} s",
        hint="raise `config.timeout_s`, or allow retries with `config.max_retries`",
        retryable=True,
    )


def _cut_off(step: BaseStep, frame: Frame, path: StepPath) -> EngineError:
    if frame.budget is not None and frame.budget.is_out_of_time:
        return frame.budget.out_of_time(path)
    return StepTimeout(
        f"step {step.name!r} was cut off: a step around it took longer than its `timeout_s`",
        hint="raise `config.timeout_s` of that step, or allow retries with its `config.max_retries`",
        retryable=True,
    )
