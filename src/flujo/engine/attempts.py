"""Attempts of a leaf step: an entry for each attempt, its outcome, retries with backoff."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.agents import TIMEOUT_OF_ATTEMPT
from flujo.domain.events import StepRetried, StepStarted
from flujo.domain.journal import TRANSCRIPT, Entry, EntryKind, EntryStatus, ErrorInfo, new_entry
from flujo.domain.outcomes import Aborted, Failure, Paused, StepOutcome, Success, new_success
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import IntentState, Pause, PauseKind
from flujo.domain.threads import added
from flujo.engine import idempotent_calls, threads
from flujo.engine.attempt import Attempt, Leaf, new_attempt
from flujo.engine.attempt_costs import note_unfinished, used
from flujo.engine.budget_questions import BudgetAsked, NoFurtherTurn
from flujo.engine.call_layers import answer
from flujo.engine.error_info import foreign_text
from flujo.engine.foreign_code import abandoned
from flujo.engine.frame import standing_still
from flujo.engine.journal import STOPS_THE_WALK, encoded
from flujo.engine.limits import OUT_OF_BUDGET, budget_hit, cut_off, remember, timed_out
from flujo.engine.places import without_place
from flujo.engine.stubs import StubAsked, stubbed
from flujo.engine.time_limits import timeout_of
from flujo.engine.transcripts import encoded_detail, transcript_of
from flujo.exceptions import ModelUnavailable, PausedException, PipelineAbortSignal
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flujo.domain.paths import StepPath
    from flujo.domain.steps import BaseStep
    from flujo.engine.call_layers import LeafCall
    from flujo.engine.frame import Frame

_USUAL_POLICY = RetryPolicy()
_WORK = EntryKind.WORK
"""As a global name, because members of an enumeration are slow to look up."""


# `perform` and `_attempts` are not `async`, because they only choose a coroutine: each of 10,000 waiting runs
# would hold one more of each, and each step would make them.


def perform(call: LeafCall, frame: Frame, path: StepPath) -> Awaitable[StepOutcome]:
    """Return the outcome of a leaf step, after at most the attempts that its `config` allows.

    An exception of the agent or callable fails the attempt. Retries are counted across crashes: a failed
    attempt is recorded before the next one starts.
    """
    if frame.run.recorded is not None:
        return frame.run.recorded.perform(call, frame, path)
    if call.has_effect and frame.run.journal.is_stubbed:
        call = stubbed(call, frame, path)
    return (_settle_doubt if call.is_enforced else _attempts)(call, frame, path)


async def _settle_doubt(call: LeafCall, frame: Frame, path: StepPath) -> StepOutcome:
    """Settle the call that an earlier process left in doubt, then make the attempts."""
    outcome = await _settled(await idempotent_calls.left_in_doubt(call.step, frame, path))
    if outcome is not None:
        return outcome
    try:
        return await _attempts(call, frame, path)
    except idempotent_calls.UnknownSinceRestore:
        return await _settle_doubt(call, frame, path)  # the call is announced now, and in doubt


def _attempts(call: LeafCall, frame: Frame, path: StepPath) -> Awaitable[StepOutcome]:
    journal = frame.run.journal
    asked = None if journal.is_blank else journal.pause(path)
    is_asked = asked is not None and asked.kind is not PauseKind.APPROVAL  # the gate reads an approval
    if asked is not None and is_asked and (asked.is_open or asked.answer is not None):
        return _answered(call.step, frame, asked)
    # Not a nested function: each waiting run would hold one, and a cell for each of its names.
    return retried(call.step, frame, path, _WORK, partial(_attempt, call, frame, path))


async def _answered(step: BaseStep, frame: Frame, asked: Pause) -> StepOutcome:
    if asked.is_open:
        return Paused((frame.run.journal.ask(asked),))
    return await settle_answer(step, frame, asked)


async def _attempt(call: LeafCall, frame: Frame, path: StepPath, number: int) -> StepOutcome:
    limit: asyncio.Timeout | None = None
    attempt = new_attempt(call.step, frame, path, number, started_at=frame.run.clock.now())
    try:
        try:
            limit = _timeout(call, frame)
            await (answer(call, attempt) if limit is None else _answer_in_time(call, attempt, limit))
            return await settle(attempt, call)
        finally:
            if attempt.transaction is not None:
                attempt.roll_back()
    except STOPS_THE_WALK:
        raise
    except PausedException as signal:
        pause = _question(signal, path)
        _settle_call(attempt, IntentState.DONE)
        note_unfinished(attempt, signal)
        return Paused((frame.run.journal.ask(pause),))
    except PipelineAbortSignal as signal:
        note_unfinished(attempt, signal)
        return Aborted(foreign_text(signal.reason))
    except (NoFurtherTurn, asyncio.CancelledError) as signal:
        _note_cut_off(attempt, signal)
        raise
    except TimeoutError as error:
        late = limit is not None and limit.expired()
        failure = frame.run.journal.error_info(timed_out(call.step, frame, error) if late else error, path)
        cause: Exception = error
        attempt.note(abandoned(error.__cause__))
    except Exception as error:  # noqa: BLE001 - foreign code: any exception fails the attempt
        failure, cause = frame.run.journal.error_info(error, path), error
    if call.is_enforced:
        outcome = await _settled(await idempotent_calls.broken_off(attempt, cause, failure))
        if outcome is not None:
            return outcome
    await frame.run.journal.record(_failed(attempt, failure, cause))
    return Failure(failure, cause)


def _question(signal: PausedException, path: StepPath) -> Pause:
    if isinstance(signal, StubAsked | BudgetAsked):
        return signal.pause
    return Pause(pause_id=path, message=signal.message)


def _timeout(call: LeafCall, frame: Frame) -> asyncio.Timeout | None:
    if call.step.config.timeout_s is None:
        return None
    return asyncio.timeout(timeout_of(call.step, frame))


async def _answer_in_time(call: LeafCall, attempt: Attempt, limit: asyncio.Timeout) -> None:
    """Answer under the timeout of the attempt, which stands still while a request waits for its provider."""
    attempt.clocks = (limit,)
    before = TIMEOUT_OF_ATTEMPT.set(partial(standing_still, limit))
    try:
        async with limit:
            await answer(call, attempt)
    finally:
        with suppress(ValueError):  # a coroutine that is never finished is closed in another context
            TIMEOUT_OF_ATTEMPT.reset(before)


def _mask_output(attempt: Attempt, leaf: Leaf) -> None:
    given = canonical.normalise(attempt.output, what=leaf.output_name)
    attempt.output = GATE.entering(given, leaf.masking)


def _launch(attempt: Attempt, step: BaseStep, output: bytes) -> None:
    """Launch the background task of a step and the evaluations of its output with the next entry."""
    if attempt.child is not None:
        attempt.frame.run.journal.launch(attempt.child)
    attempt.frame.launch_evaluations(step, attempt.path, attempt.input, output)


async def settle(attempt: Attempt, leaf: Leaf | None = None) -> Success:
    """Record the completion of a leaf step, with its output and its writes, then make them visible.

    The output is encoded before the first await, and the run continues with the decoded value, as a
    resumed run would.

    Raises:
        NotJournalable: the output cannot be written as JSON.
        SecretInValue: the output or a write contains a known secret.
        OutputRejected: the context does not match its type after the writes.
        TransactionRefused: the database does not commit what a tool wrote.
    """
    frame, leaf = attempt.frame, leaf or Leaf(attempt.step)
    step, journal = leaf.step, frame.run.journal
    if GATE.masks_values or leaf.masking is not None:
        _mask_output(attempt, leaf)
    output = encoded(attempt.output, leaf.output_name)
    value = canonical.read_back(attempt.output, output)
    patch, after = attempt.patch, frame.scope.tree
    if leaf.saves:
        patch = [*(patch or ()), *await frame.saved(step, value)]
    if leaf.thread is not None:
        patch = [*(patch or ()), added(leaf.thread, attempt.path)]
        attempt.note(threads.seen(step, frame))
    if patch:
        patch, after = frame.scope.accepted(patch, what=f"step {step.name!r}")
    written = encoded(patch, f"what step {step.name!r} saved") if patch else None
    attempt.is_settled = True
    if attempt.intent is not None and attempt.transaction is None:
        _settle_call(attempt, IntentState.DONE, output)
    if attempt.meter is not None:
        attempt.meter.close(attempt.usage)
    entry = new_entry(
        path=attempt.path,
        kind=attempt.kind,
        attempt=attempt.number,
        fingerprint=leaf.kind,
        input=attempt.input,
        output=output,
        patch=written,
        usage=attempt.usage,
        detail=attempt.usual_detail or encoded_detail(attempt.detail, frame.run),
        started_at=attempt.started_at,
        ended_at=frame.run.clock.now(),
    )
    if attempt.transaction is not None and attempt.intent is not None:
        transaction, attempt.transaction = attempt.transaction, None
        intent = replace(attempt.intent, state=IntentState.DONE, result=output)
        await journal.commit_in(transaction, entry, intent, attempt)
    else:
        if attempt.child is not None or leaf.evaluates:
            _launch(attempt, step, output)
        journal.append_deferred(entry)
        wait = leaf.waits and id(step) not in frame.riding
        if not journal.keeps_back(wait=wait):
            await journal.commit(wait=wait, together=frame.place is not None)
    frame.scope.tree = after
    frame.written = value, output
    return new_success(value)


async def settle_answer(step: BaseStep, frame: Frame, asked: Pause) -> Success:
    """Record the completion of a step with the answer of a human."""
    attempt = answering(step, frame, asked)
    attempt.output = canonical.decode(asked.answer or b"null")
    return await settle(attempt)


def answering(step: BaseStep, frame: Frame, asked: Pause) -> Attempt:
    """Return the attempt that a settled question ends; each repetition of a question is a new attempt."""
    return Attempt(
        step,
        frame,
        asked.pause_id,
        len(frame.run.journal.attempts(asked.pause_id, EntryKind.ANSWER)) + 1,
        EntryKind.ANSWER,
        asked.asked_at or frame.run.clock.now(),
        input=canonical.encode(asked.message),
    )


async def record_failure(attempt: Attempt, failure: ErrorInfo) -> None:
    """Record a failed attempt without usage."""
    await attempt.frame.run.journal.record(
        _entry(attempt, status=EntryStatus.FAILED, error=canonical.encode(failure.to_json()))
    )


async def _settled(outcome: Attempt | StepOutcome | None) -> StepOutcome | None:
    """Return an outcome unchanged; settle an attempt whose call was found to have been made."""
    return await settle(outcome) if isinstance(outcome, Attempt) else outcome


def _note_cut_off(attempt: Attempt, signal: BaseException) -> None:
    """Record an attempt that was cancelled, because it was paid for.

    It has failed if the timeout of an enclosing step has ended it; the entry is committed with that step's
    own. An announced call stays in doubt, like after a crash.
    """
    frame = attempt.frame
    if attempt.is_settled:
        return
    if not frame.is_out_of_time or attempt.intent is not None:
        note_unfinished(attempt, signal)
        return
    error = cut_off(attempt.step, frame, attempt.path)
    error.__cause__ = signal
    attempt.note(budget_hit(error) | abandoned(signal))
    journal = frame.run.journal
    journal.append_deferred(_failed(attempt, journal.error_info(error, attempt.path), signal))


def _settle_call(attempt: Attempt, state: IntentState, result: bytes | None = None) -> None:
    if attempt.intent is not None:
        intent = replace(attempt.intent, state=state)
        attempt.frame.run.journal.record_intent(intent if result is None else replace(intent, result=result))


def _failed(attempt: Attempt, failure: ErrorInfo, cause: BaseException) -> Entry:
    usage, detail = used(attempt, cause), {**(attempt.detail or {}), **budget_hit(cause)}
    if (said := transcript_of(cause)) is not None:
        detail[TRANSCRIPT] = said
    is_retried = TRANSCRIPT in detail and _is_retried(attempt.step, failure, _failures_with(attempt))
    if attempt.meter is not None:
        attempt.meter.close(usage)
    return _entry(
        attempt,
        status=EntryStatus.FAILED,
        error=canonical.encode(failure.to_json()),
        usage=usage,
        detail=encoded_detail(detail, attempt.frame.run, is_retried=is_retried),
    )


def _entry(attempt: Attempt, **more: Any) -> Entry:
    return Entry(
        path=attempt.path,
        kind=attempt.kind,
        attempt=attempt.number,
        fingerprint=attempt.step.kind,
        input=attempt.input,
        started_at=attempt.started_at,
        ended_at=attempt.frame.run.clock.now(),
        **more,
    )


# Retries -------------------------------------------------------------------------------------------------


async def retried(
    step: BaseStep,
    frame: Frame,
    path: StepPath,
    kind: EntryKind,
    attempt: Callable[[int], Awaitable[StepOutcome]],
) -> StepOutcome:
    """Return the outcome of the last attempt; each failed attempt is an entry of `kind`.

    Args:
        step: the step, whose `config` has the number and delays of retries.
        frame: the scope, which determines which recorded failures count.
        path: the path of the step.
        kind: the kind of the attempts' entries.
        attempt: executes the attempt of a number, and records it when it fails.
    """
    journal = frame.run.journal
    failures, number = 0, 1
    if not journal.is_blank and (recorded := journal.attempts(path, kind)):
        number = recorded[-1].attempt + 1
        counted = [entry for entry in recorded if entry.seq > frame.since]
        failures = len(counted)
        if counted:
            error = ErrorInfo.from_json(canonical.decode(counted[-1].error or b"{}"))
            if not _is_retried(step, error, failures):
                remember(frame, counted[-1], error)
                return Failure(error)
    while True:
        if not journal.may_begin():
            await journal.renew_lease()
        if frame.run.sink is not None or frame.run.feed is not None:
            await frame.tell(StepStarted(path, step.kind, number, step.tool))
        outcome = await attempt(number)
        if not isinstance(outcome, Failure):
            return outcome
        failures += 1
        if not _is_retried(step, outcome.error, failures):
            return outcome
        cause, policy = outcome.cause, step.config.retry or _USUAL_POLICY
        asked_s = cause.retry_after_s if isinstance(cause, ModelUnavailable) else None
        delay = policy.delay_s(failures, frame.run.random.fraction(), asked_s=asked_s)
        await frame.tell(StepRetried(path, number, outcome.error, delay))
        await without_place(frame.place, frame.run.clock.sleep(delay))
        frame.require_going()
        number += 1


def _failures_with(attempt: Attempt) -> int:
    """Return how many failures of a step count when this attempt fails."""
    before = attempt.frame.run.journal.attempts(attempt.path, attempt.kind)
    counted = sum(entry.seq > attempt.frame.since for entry in before)
    return counted + attempt.number - (before[-1].attempt if before else 0)


def _is_retried(step: BaseStep, error: ErrorInfo, failures: int) -> bool:
    """Return whether another attempt follows the latest of some failures."""
    policy = step.config.retry or _USUAL_POLICY
    if failures > step.config.max_retries or error.code in OUT_OF_BUDGET:
        return False  # regardless of the policy: a retry does not make room in a budget
    if policy.on:
        return error.type in policy.on or error.code in policy.on
    return error.retryable
