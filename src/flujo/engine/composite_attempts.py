"""Attempts of a whole composite: retries keep the completed steps; and the entry of its end."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.journal import Entry, EntryKind, EntryStatus
from flujo.domain.outcomes import Failure, Success
from flujo.domain.threads import added
from flujo.engine.attempts import retried
from flujo.engine.journal import encoded
from flujo.engine.limits import budget_hit, within_timeout
from flujo.exceptions import CallInDoubt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.steps import BaseStep
    from flujo.engine.frame import Frame


async def perform_whole(
    step: BaseStep, frame: Frame, path: StepPath, work: Callable[[Frame], Awaitable[StepOutcome]]
) -> StepOutcome:
    """Return the outcome of a composite, after at most the attempts that its `config` allows.

    A further attempt keeps completed steps, and gives failed steps all their attempts again. Each failed
    attempt is recorded as a failed `done`, so that attempts are counted across crashes. A pause does not end
    an attempt, and the time until its answer does not count.
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
        outcome = await within_timeout(step, inner, path, work)
        if isinstance(outcome, Failure):
            journal.void_below(path)
            journal.learn(await journal.record(_failed(step, frame, path, number, outcome, started_at)))
        return outcome

    known = journal.attempts(path, EntryKind.DONE)
    first = known[-1].attempt + 1 if known else 1
    return await retried(step, frame, path, EntryKind.DONE, attempt)


def is_attempted(step: BaseStep) -> bool:
    """Return whether a composite has a timeout or retries; those of a map over workers are its batches'."""
    return not step.config.is_spread and (step.config.timeout_s is not None or step.config.max_retries > 0)


def replaced(step: BaseStep, frame: Frame, failure: Failure) -> StepOutcome:
    """Return what a composite gives instead of its failure after the last attempt, if that is declared.

    A failure that leaves a call in doubt is never replaced.
    """
    if step.instead == "fail" or failure.error.code == CallInDoubt.code:
        return failure
    output = frame.previous if step.instead == "skip" else frame.render(step.instead["output"])
    name = "failed" if step.imported is not None else "error"
    return Success(output, facts={name: failure.error.as_value()})


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


async def finish(
    step: BaseStep, frame: Frame, path: StepPath, success: Success, before: Any, *, joins: str | None = None
) -> Success:
    """Record the completion of a composite: its output, and its net patch since `before`.

    With `joins`, the step itself adds an exchange to the thread of this name.
    """
    output = encoded(success.output, f"output of step {step.name!r}")
    value = canonical.decode(output)
    patch = await frame.saved(step, value)
    if joins is not None:
        patch = [*patch, added(joins, path)]
    _, frame.scope.tree = frame.scope.accepted(patch, what=f"step {step.name!r}")
    frame.launch_evaluations(step, path, None, output)
    frame.append_done(path, step.kind, output, before, success.facts)
    if success.facts.get("cached") is True and step.config.durability != "exit":
        await frame.run.journal.flush()  # because the cache may drop the answer before a resume
    return Success(value, facts=success.facts)
