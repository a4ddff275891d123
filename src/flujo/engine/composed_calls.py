"""A call of a tool that consists of steps: a blueprint, or another agent.

    research/turn[0]/tool[1]          decision 0: the call is counted in the budget
    research/turn[0]/tool[1]/STEP     the steps inside, each with its own entry
    research/turn[0]/tool[1]          work: input = the arguments, output = what the model gets

The call itself is not announced and is never in doubt: the steps inside it are. It ends when they have ended,
in whichever process; a recorded step is not executed again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, merge
from flujo.domain.conversations import ToolResult
from flujo.domain.events import StepStarted
from flujo.domain.journal import EntryKind, new_entry
from flujo.domain.outcomes import Failure, Success
from flujo.domain.steps.step import ToolCallStep
from flujo.domain.usage import Usage
from flujo.engine.journal import STOPS_THE_WALK, encoded
from flujo.exceptions import (
    AgentChanged,
    AnswerUnbounded,
    BudgetError,
    CallInDoubt,
    FlujoError,
    PriceUnknown,
    SecretInValue,
    SharedBudgetExceeded,
    UsageLimitExceeded,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from flujo.domain.conversations import ToolCall
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.steps import BaseStep
    from flujo.engine.frame import Frame

    RunInside = Callable[[BaseStep, Frame, StepPath], Awaitable[StepOutcome]]
    """Runs the step of a tool; its entries lie below the path, and its end has none."""

_ENDS_THE_STEP = frozenset(
    each.code
    for each in (
        *(BudgetError, UsageLimitExceeded, SharedBudgetExceeded, PriceUnknown, AnswerUnbounded),
        *(CallInDoubt, SecretInValue, AgentChanged),
    )
)
"""Codes of failures inside a tool that are not for the model: a person must act first."""

_ONE = Usage(tool_calls=1)


async def composed_call(
    call: ToolCall,
    step: BaseStep,
    frame: Frame,
    path: StepPath,
    run_inside: RunInside,
    *,
    detail: Mapping[str, Any],
    waits: bool,
) -> ToolResult | StepOutcome:
    """Return what the model gets for a call, or what stops the step that made it.

    A failure inside the tool becomes words for the model, except one after which a person must act.

    Args:
        call: the call; its arguments fit the tool's schema.
        step: the step that the tool consists of.
        frame: a frame whose `previous` is the arguments.
        path: the path of the call.
        run_inside: runs the step.
        detail: for the entry: the tool, and who approved the call.
        waits: whether the entry is committed before the next request.
    """
    _admit(call, frame, path)
    await frame.tell(StepStarted(path, ToolCallStep.kind, 1, call.name))
    before = frame.scope.tree
    outcome = await _outcome(step, frame, path, run_inside)
    match outcome:
        case Success(output=content):
            result = ToolResult(content)
        case Failure(error=error) if error.code not in _ENDS_THE_STEP:
            frame.run.journal.void_below(path)
            frame.scope.tree = before  # drop the writes of a failed call
            result = ToolResult(f"the call failed: {error.message}", "error")
        case _:
            return outcome
    said = {**detail, "outcome": result.outcome}
    await _record(call, result, said, before, frame, path, waits=waits)
    return result


def has_begun(frame: Frame, path: StepPath) -> bool:
    """Return whether a call is counted already, because it began in this process or an earlier one."""
    return any(entry.attempt == 0 for entry in frame.run.journal.attempts(path, EntryKind.DECISION))


def _admit(call: ToolCall, frame: Frame, path: StepPath) -> None:
    """Count the call in the budget when it begins, and not again when it continues.

    The count is committed with the first entry inside.

    Raises:
        UsageLimitExceeded: a limit has no room for the call.
    """
    if has_begun(frame, path):
        return
    if frame.budget is not None:
        frame.budget.reserve(path, _ONE)
        frame.budget.release(_ONE)
        frame.budget.charge(path, _ONE)
    now = frame.run.clock.now()
    frame.run.journal.append_deferred(
        new_entry(
            path=path,
            kind=EntryKind.DECISION,
            attempt=0,
            fingerprint=ToolCallStep.kind,
            input=encoded(call.arguments, f"arguments of tool `{call.name}`"),
            detail=canonical.encode({"tool": call.name}),
            usage=_ONE,
            started_at=now,
            ended_at=now,
        )
    )


async def _outcome(step: BaseStep, frame: Frame, path: StepPath, run_inside: RunInside) -> StepOutcome:
    try:
        return await run_inside(step, frame, path)
    except STOPS_THE_WALK:
        raise
    except FlujoError as error:
        return Failure(frame.run.journal.error_info(error, path), error)


async def _record(
    call: ToolCall,
    result: ToolResult,
    detail: Mapping[str, Any],
    before: Any,
    frame: Frame,
    path: StepPath,
    *,
    waits: bool,
) -> None:
    """Record what the model gets, and what the call wrote to the context around it."""
    patch, now = merge.diff(before, frame.scope.tree), frame.run.clock.now()
    await frame.run.journal.record(
        new_entry(
            path=path,
            kind=EntryKind.WORK,
            fingerprint=ToolCallStep.kind,
            input=encoded(call.arguments, f"arguments of tool `{call.name}`"),
            output=encoded(result.content, f"result of tool `{call.name}`"),
            patch=canonical.encode(patch) if patch else None,
            detail=canonical.encode(detail),
            started_at=now,
            ended_at=now,
        ),
        wait=waits,
    )
