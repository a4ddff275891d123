"""Limits of time and budget. They interrupt steps, and are not retried."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.outcomes import Failure
from flujo.domain.paths import StepPath
from flujo.engine.error_info import error_info
from flujo.engine.journal import STOPS_THE_WALK
from flujo.engine.time_limits import timeout_of
from flujo.exceptions import (
    EngineError,
    FlujoError,
    SharedBudgetExceeded,
    StepTimeout,
    UsageLimitExceeded,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flujo.domain.journal import Entry, ErrorInfo
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.steps import BaseStep
    from flujo.domain.usage import UsageLimits
    from flujo.engine.budget import Budget
    from flujo.engine.frame import Frame

OUT_OF_BUDGET = frozenset({UsageLimitExceeded.code, SharedBudgetExceeded.code})
"""Codes of errors that a retry cannot help: it does not make room in a budget."""

# Time ----------------------------------------------------------------------------------------------------


async def within_timeout(
    step: BaseStep, frame: Frame, path: StepPath, work: Callable[[Frame], Awaitable[StepOutcome]]
) -> StepOutcome:
    """Return the outcome of one attempt of a composite under its `timeout_s`."""
    try:
        limit = asyncio.timeout(None if frame.run.recorded is not None else timeout_of(step, frame))
        frame.limits = (*frame.limits, limit)
        async with limit:
            return await work(frame)
    except STOPS_THE_WALK:
        raise
    except FlujoError as error:
        return Failure(frame.run.journal.error_info(error, path), error)
    except TimeoutError as error:
        return Failure(frame.run.journal.error_info(timed_out(step, frame, error), path), error)


def timed_out(step: BaseStep, frame: Frame, cause: TimeoutError) -> StepTimeout:
    """Return the error of an attempt that took longer than its step's `timeout_s`."""
    limit = timeout_of(step, frame) or 0
    error = StepTimeout(
        f"step {step.name!r} took longer than its `timeout_s` of {limit:g} s",
        hint="raise `config.timeout_s`, or allow retries with `config.max_retries`",
    )
    error.__cause__ = cause  # leads to where the code was interrupted
    return error


def cut_off(step: BaseStep, frame: Frame, path: StepPath) -> EngineError:
    """Return the error of an attempt that the timeout of an enclosing step has ended."""
    if frame.budget is not None and frame.budget.is_out_of_time:
        return frame.budget.out_of_time(path)
    return StepTimeout(
        f"step {step.name!r} was interrupted: an enclosing step took longer than its `timeout_s`",
        hint="raise `config.timeout_s` of that step, or allow retries with its `config.max_retries`",
    )


# Budget --------------------------------------------------------------------------------------------------


def limited(
    frame: Frame, limits: UsageLimits | None, work: Callable[[], Awaitable[StepOutcome]]
) -> Awaitable[StepOutcome]:
    """Return the outcome of a body with its own limits, or of the outermost body of a run."""
    return work() if frame.budget is None else _within_budget(frame, frame.budget, limits, work)


async def _within_budget(
    frame: Frame, budget: Budget, limits: UsageLimits | None, work: Callable[[], Awaitable[StepOutcome]]
) -> StepOutcome:
    if limits is not None:
        budget = frame.budget = budget.inside(frame.path, limits)
    left = budget.left_s
    outcome = await (work() if left is None else _within_time_of(frame, budget, left, work))
    return breach_of(budget) or outcome


async def _within_time_of(
    frame: Frame, budget: Budget, left_s: float, work: Callable[[], Awaitable[StepOutcome]]
) -> StepOutcome:
    if left_s <= 0:
        return _failure(budget.out_of_time(frame.path))
    if budget.clock is None:  # once for all attempts of a part
        await frame.run.journal.begin_time(frame.path)
    budget.clock = asyncio.timeout(left_s)
    frame.limits = (*frame.limits, budget.clock)
    try:
        async with budget.clock:
            return await work()
    except TimeoutError:
        if not budget.clock.expired():
            raise
        return _failure(budget.out_of_time(frame.path))


def breach_of(budget: Budget) -> Failure | None:
    """Return the limit that was hit, here or in an enclosing budget, as a failure that is not retried."""
    return None if budget.breach is None else _failure(budget.breach)


def budget_hit(cause: BaseException | None) -> dict[str, Any]:
    """Return the path of the budget whose limit a failed attempt hit, for the detail of its entry."""
    return {"budget": cause.budget} if isinstance(cause, UsageLimitExceeded) else {}


def remember(frame: Frame, entry: Entry, error: ErrorInfo) -> None:
    """Restore a limit that was hit before this execution: no step under it resumes."""
    if frame.budget is not None and error.code in OUT_OF_BUDGET:
        detail = canonical.decode(entry.detail) if entry.detail else {}
        frame.budget.remember(StepPath(detail.get("budget", "")), error)


def _failure(breach: UsageLimitExceeded) -> Failure:
    return Failure(error_info(breach, StepPath(breach.step)), breach)
