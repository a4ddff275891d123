"""Attempts of a leaf step: the layers around its call, an entry for each attempt, retries with backoff."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from flujo.domain import canonical
from flujo.domain.agents import AgentSpec, Ask, answered_by
from flujo.domain.events import Chunk, StepRetried, StepStarted
from flujo.domain.journal import Entry, EntryKind, EntryStatus, ErrorInfo
from flujo.domain.outcomes import Aborted, Failure, Paused, StepOutcome, Success
from flujo.domain.ports import CheckedAgent
from flujo.domain.retry import RetryPolicy
from flujo.domain.run import IntentState, Pause
from flujo.domain.usage import NOTHING, Usage
from flujo.engine import idempotent_calls, processors
from flujo.engine.attempt import Attempt
from flujo.engine.foreign_code import abandoned
from flujo.engine.journal import STOPS_THE_WALK, encoded, error_info, foreign_text
from flujo.engine.limits import budget_hit, cut_off, remember, timed_out
from flujo.engine.step_meter import StepMeter
from flujo.exceptions import ModelUnavailable, PausedException, PipelineAbortSignal, UsageLimitExceeded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from flujo.domain.paths import StepPath
    from flujo.domain.steps import BaseStep, CallableRef, Step
    from flujo.engine.frame import Frame

_USUAL_POLICY = RetryPolicy()


# The layers around a call --------------------------------------------------------------------------------


class Layer(NamedTuple):
    """A layer around a call, needed by some steps only."""

    is_needed: Callable[[Step, Frame], bool]
    prepare: Callable[[Attempt], Awaitable[None]]


async def _budget(attempt: Attempt) -> None:
    """Reserve the requests of the attempt before they are made."""
    attempt.meter = StepMeter.of(attempt.frame.budget, attempt.path, attempt.frame.run.journal)


async def _context(attempt: Attempt) -> None:
    """Give the attempt a view of the context, whose changes are kept only when the attempt succeeds."""
    attempt.context = attempt.frame.scope.view()


def _takes_context(step: Step, frame: Frame) -> bool:
    asked = [_target(step), *step.processors.input]
    return any(frame.run.binding.agent(who).wants_context for who in asked)


async def _input(attempt: Attempt) -> None:
    """Fill in `with:` or `input:`, and encode it for the journal."""
    step, frame = cast("Step", attempt.step), attempt.frame
    given: Any
    if step.arguments is not None:
        given = {name: frame.render(value) for name, value in step.arguments.items()}
    else:
        given = frame.previous if step.input is None else frame.render(step.input)
    attempt.input = encoded(given, f"input of step {step.name!r}")


def _judges_answers(step: Step, _: Frame) -> bool:
    return bool(step.output_schema is not None or step.validators or step.processors.output)


def _is_enforced(step: Step, _: Frame) -> bool:
    return step.enforce_idempotency and step.call is not None


async def _check_arguments(attempt: Attempt) -> None:
    """Refuse arguments that the callable does not take before the call is announced and can be in doubt."""
    step = cast("Step", attempt.step)
    agent = attempt.frame.run.binding.agent(_target(step))
    if isinstance(agent, CheckedAgent):
        agent.check_arguments(replace(_question(step, attempt), idempotency_key=""))


LAYERS: Sequence[Layer] = (
    Layer(lambda _, frame: frame.budget is not None, _budget),
    Layer(_takes_context, _context),
    Layer(lambda _, __: True, _input),
    Layer(lambda step, _: bool(step.processors.input), processors.process_input),
    # Every answer passes the output processors, the output schema and the validators.
    Layer(_judges_answers, processors.set_output_gate),
    Layer(_is_enforced, _check_arguments),
    Layer(_is_enforced, idempotent_calls.announce),
)
"""The layers around the call of a step, in the order of preparation; the call follows.

The attempt's timeout covers all of them. `save:` and the entry follow the answer: see `settle`.
"""


async def _ask(attempt: Attempt) -> None:
    """Prepare the layers that the step needs, ask its agent or callable, and keep the answer."""
    step, frame = cast("Step", attempt.step), attempt.frame
    for layer in LAYERS:
        if layer.is_needed(step, frame):
            await layer.prepare(attempt)
    who = _target(step)
    reply = await frame.ask(attempt.path, who, _question(step, attempt), *attempt.clocks)
    if reply.usage is not NOTHING:
        attempt.usage += reply.usage
    if any(clock.expired() for clock in attempt.clocks):
        raise asyncio.CancelledError  # the answer came too late
    attempt.detail = _detail(who, reply.model, reply.repairs)
    attempt.output = reply.output
    if attempt.check is not None:
        if not attempt.is_passed:
            attempt.output = await attempt.check(reply.output)
        attempt.patch = frame.scope.changes(attempt.tree, what=f"step {step.name!r}")
    elif attempt.context is not None:
        after = frame.scope.tree_of(attempt.context)
        attempt.patch = frame.scope.changes(after, what=f"step {step.name!r}")


def _question(step: Step, attempt: Attempt) -> Ask:
    """Return the request to the agent; its values are decoded from the recorded input."""
    frame, spec = attempt.frame, step.agent
    mine = canonical.decode(attempt.input or b"null")
    return Ask(
        data=mine if step.arguments is None else None,
        arguments=None if step.arguments is None else mine,
        instructions=frame.render(spec.instructions) if spec and spec.instructions else None,
        # The result of the processors must match the schema, not the answer itself.
        output_schema=None if step.processors.output else step.output_schema,
        context=attempt.context,
        resources=frame.run.resources,
        idempotency_key=None if attempt.intent is None else attempt.intent.key,
        check=attempt.check,
        on_text=None if frame.run.sink is None else partial(_tell, attempt),
        meter=attempt.meter,
    )


async def _tell(attempt: Attempt, text: str) -> None:
    """Forward the text of the agent, while the attempt's timeout is suspended."""
    await attempt.frame.tell(Chunk(attempt.path, attempt.number, text), *attempt.clocks)


def _target(step: Step) -> AgentSpec | CallableRef:
    who = step.agent or step.call
    if who is None:
        raise ValueError(f"step {step.name!r} has neither `agent` nor `call`")
    return who


def _detail(who: AgentSpec | CallableRef, model: str | None, repairs: tuple[str, ...]) -> dict[str, Any]:
    detail: dict[str, Any] = {"agent": who.name} if isinstance(who, AgentSpec) else {"call": who.target}
    if model is not None:
        detail |= answered_by(who, model)
    return detail | ({"repairs": list(repairs)} if repairs else {})


# One attempt ---------------------------------------------------------------------------------------------


async def perform(step: Step, frame: Frame, path: StepPath) -> StepOutcome:
    """Return the outcome of a leaf step, after at most the attempts that its `config` allows.

    An exception of the agent or callable fails the attempt. Retries are counted across crashes: a failed
    attempt is recorded before the next one starts.
    """
    if _is_enforced(step, frame):
        outcome = await _settled(await idempotent_calls.left_in_doubt(step, frame, path))
        if outcome is not None:
            return outcome
    asked = frame.run.journal.pause(path)
    if asked is not None and asked.is_open:
        return Paused((frame.run.journal.ask(asked),))
    if asked is not None and asked.answer is not None:
        return await settle_answer(step, frame, asked)
    # Not a nested function: each waiting run would hold one, and a cell for each of its names.
    attempted = partial(_attempt, step, frame, path)
    try:
        return await retried(step, frame, path, EntryKind.WORK, attempted)
    except idempotent_calls.UnknownSinceRestore:
        return await perform(step, frame, path)  # the call is announced now, and in doubt


async def _attempt(step: Step, frame: Frame, path: StepPath, number: int) -> StepOutcome:
    limit = None if step.config.timeout_s is None else asyncio.timeout(step.config.timeout_s)
    attempt = Attempt(step, frame, path, number, started_at=frame.run.clock.now())
    try:
        if limit is None:
            await _ask(attempt)
        else:
            attempt.clocks = (limit,)
            async with limit:
                await _ask(attempt)
        return await settle(attempt)
    except STOPS_THE_WALK:
        raise
    except PausedException as signal:
        pause = Pause(pause_id=path, message=signal.message)
        _settle_call(attempt, IntentState.DONE)
        return Paused((frame.run.journal.ask(pause),))
    except PipelineAbortSignal as signal:
        return Aborted(foreign_text(signal.reason))
    except asyncio.CancelledError as signal:
        _note_cut_off(attempt, signal)
        raise
    except TimeoutError as error:
        failure = error_info(timed_out(step) if limit and limit.expired() else error, path)
        cause: Exception = error
        attempt.note(abandoned(error.__cause__))
    except Exception as error:  # noqa: BLE001 - foreign code: any exception fails the attempt
        failure, cause = error_info(error, path), error
    if _is_enforced(step, frame):
        outcome = await _settled(await idempotent_calls.broken_off(attempt, cause, failure))
        if outcome is not None:
            return outcome
    await frame.run.journal.record(_failed(attempt, failure, cause))
    return Failure(failure, cause)


async def settle(attempt: Attempt) -> Success:
    """Record the completion of a leaf step, with its output and its writes, then make them visible.

    The output is encoded before the first await, and the run continues with the decoded value, as a
    resumed run would.

    Raises:
        NotJournalable: the output cannot be written as JSON.
        SecretInValue: the output or a write contains a known secret.
        OutputRejected: the context does not match its type after the writes.
    """
    step, frame = attempt.step, attempt.frame
    output = encoded(attempt.output, f"output of step {step.name!r}")
    value = canonical.decode(output)
    patch, after = attempt.patch or [], frame.scope.tree
    if step.save:
        patch = [*patch, *await frame.saved(step, value)]
    if patch:
        after = frame.scope.accepted(patch, what=f"step {step.name!r}")
    written = encoded(patch, f"what step {step.name!r} saved") if patch else None
    attempt.is_settled = True
    _settle_call(attempt, IntentState.DONE, output)
    if attempt.meter is not None:
        attempt.meter.close(attempt.usage)
    await frame.run.journal.record(
        _entry(
            attempt,
            output=output,
            patch=written,
            usage=attempt.usage,
            detail=canonical.encode(attempt.detail) if attempt.detail else None,
        ),
        wait=step is not frame.last and step.config.durability != "exit",
    )
    frame.scope.tree = after
    return Success(value)


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
    """Record an attempt that the timeout of an enclosing step ended, because it was paid for.

    The entry is committed with that step's own. An announced call stays in doubt, like after a crash.
    """
    frame = attempt.frame
    if frame.is_out_of_time and not attempt.is_settled and attempt.intent is None:
        error = cut_off(attempt.step, frame, attempt.path)
        attempt.note(budget_hit(error) | abandoned(signal))
        frame.run.journal.append_deferred(_failed(attempt, error_info(error, attempt.path), signal))


def _settle_call(attempt: Attempt, state: IntentState, result: bytes | None = None) -> None:
    if attempt.intent is not None:
        intent = replace(attempt.intent, state=state)
        attempt.frame.run.journal.record_intent(intent if result is None else replace(intent, result=result))


def _failed(attempt: Attempt, failure: ErrorInfo, cause: BaseException) -> Entry:
    used, detail = attempt.usage + spent(cause), (attempt.detail or {}) | budget_hit(cause)
    if attempt.meter is not None:
        attempt.meter.close(used)
    return _entry(
        attempt,
        status=EntryStatus.FAILED,
        error=canonical.encode(failure.to_json()),
        usage=used,
        detail=canonical.encode(detail) if detail else None,
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


def spent(error: BaseException | None) -> Usage:
    """Return the usage of a failed agent; a timeout ends an agent by cancellation."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # foreign code may raise an error from itself
        seen.add(id(error))
        usage = vars(error).get("usage")
        if isinstance(usage, Usage):
            return usage
        error = error.__cause__
    return NOTHING


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
        cause = outcome.cause
        asked_s = cause.retry_after_s if isinstance(cause, ModelUnavailable) else None
        delay = policy.delay_s(failures, frame.run.random.fraction(), asked_s=asked_s)
        await frame.tell(StepRetried(path, number, outcome.error, delay))
        await frame.run.clock.sleep(delay)
        frame.require_going()
        number += 1


def _worth_retrying(error: ErrorInfo, policy: RetryPolicy) -> bool:
    if error.code == UsageLimitExceeded.code:
        return False  # regardless of the policy: a retry does not make room in a budget
    if policy.on:
        return error.type in policy.on or error.code in policy.on
    return error.retryable
