"""A body under a budget: what it does is cut off when its time is over, and a limit that was hit ends it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flujo.domain.journal import StepPath
from flujo.domain.outcomes import Failure
from flujo.engine.attempts import error_info

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.usage import UsageLimits
    from flujo.engine.budget import Budget
    from flujo.engine.frame import Frame
    from flujo.exceptions import UsageLimitExceeded


def limited(
    frame: Frame, limits: UsageLimits | None, work: Callable[[], Awaitable[StepOutcome]]
) -> Awaitable[StepOutcome]:
    """Return how a body came out that has limits of its own, or is the outermost one of a run."""
    return work() if frame.budget is None else _within(frame, frame.budget, limits, work)


async def _within(
    frame: Frame, budget: Budget, limits: UsageLimits | None, work: Callable[[], Awaitable[StepOutcome]]
) -> StepOutcome:
    if limits is not None:
        budget = frame.budget = budget.inside(frame.path, limits)
    left = budget.left_s
    outcome = await (work() if left is None else _in_time(frame, budget, left, work))
    return unless_breached(frame, outcome)


async def _in_time(
    frame: Frame, budget: Budget, left_s: float, work: Callable[[], Awaitable[StepOutcome]]
) -> StepOutcome:
    if left_s <= 0:
        return _failure(budget.out_of_time(frame.path))
    budget.clock = asyncio.timeout(left_s)
    frame.limits = (*frame.limits, budget.clock)
    try:
        async with budget.clock:
            return await work()
    except TimeoutError:
        if not budget.clock.expired():
            raise
        return _failure(budget.out_of_time(frame.path))


def unless_breached(frame: Frame, outcome: StepOutcome) -> StepOutcome:
    """Return how something came out, or the limit that was hit meanwhile: nobody makes a success of that."""
    breach = breach_of(frame)
    return outcome if breach is None else breach


def breach_of(frame: Frame) -> Failure | None:
    """Return the limit that was hit here or around here, as the failure that it is; None when none was."""
    breach = None if frame.budget is None else frame.budget.breach
    return None if breach is None else _failure(breach)


def _failure(breach: UsageLimitExceeded) -> Failure:
    return Failure(error_info(breach, StepPath(breach.facts["step"])), breach)
