"""Attempts of a whole composite: its time limit, and retries that go on with the parts that failed."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from flujo.domain import canonical
from flujo.domain.journal import Entry, EntryKind, EntryStatus
from flujo.domain.outcomes import Failure
from flujo.engine.attempts import budget_hit, error_info, retried, timed_out
from flujo.engine.journal import STOPS_THE_WALK
from flujo.exceptions import FlujoError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flujo.domain.journal import StepPath
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.steps import BaseStep
    from flujo.engine.frame import Frame


async def perform_whole(
    step: BaseStep, frame: Frame, path: StepPath, work: Callable[[Frame], Awaitable[StepOutcome]]
) -> StepOutcome:
    """Return how a composite came out, after as many attempts as its `config` allows.

    A further attempt keeps what has finished, and gives what has failed its own attempts again. Each failed
    attempt is recorded as a failed `done`, so that they are counted over crashes. A pause ends no attempt
    and stops the clock: the run stops with it, and the time until somebody answers is nobody's.
    """
    journal, before = frame.run.journal, frame.scope.tree

    async def attempt(number: int) -> StepOutcome:
        if number > first:
            frame.scope.tree = before
            await journal.reload()
            await journal.load_level(frame.path)
        failed = journal.attempts(path, EntryKind.DONE)
        inner = replace(frame, since=max(frame.since, failed[-1].seq if failed else 0))
        started_at = frame.run.clock.now()
        outcome = await _once(step, inner, path, work)
        if isinstance(outcome, Failure):
            journal.void_below(path)
            await journal.record(_failed(step, frame, path, number, outcome, started_at))
        return outcome

    known = journal.attempts(path, EntryKind.DONE)
    first = known[-1].attempt + 1 if known else 1
    return await retried(step, frame, path, EntryKind.DONE, attempt)


def is_attempted(step: BaseStep) -> bool:
    """Return whether a composite limits its attempts or allows more of them than one."""
    return step.config.timeout_s is not None or step.config.max_retries > 0


async def _once(
    step: BaseStep, frame: Frame, path: StepPath, work: Callable[[Frame], Awaitable[StepOutcome]]
) -> StepOutcome:
    limit = asyncio.timeout(step.config.timeout_s)
    frame.limits = (*frame.limits, limit)
    try:
        async with limit:
            return await work(frame)
    except STOPS_THE_WALK:
        raise
    except FlujoError as error:
        return Failure(error_info(error, path), error)
    except TimeoutError as error:
        return Failure(error_info(timed_out(step), path), error)


def _failed(
    step: BaseStep, frame: Frame, path: StepPath, number: int, failure: Failure, started_at: float
) -> Entry:
    hit = budget_hit(failure.cause)
    return Entry(
        path=path,
        kind=EntryKind.DONE,
        attempt=number,
        status=EntryStatus.FAILED,
        error=canonical.encode(failure.error.to_json()),
        detail=canonical.encode(hit) if hit else None,
        fingerprint=step.kind,
        started_at=started_at,
        ended_at=frame.run.clock.now(),
    )
