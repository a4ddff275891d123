"""Several bodies at once, each on its own fork of the context; a finished one is a single entry."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from flujo.domain import merge
from flujo.domain.outcomes import Aborted, Failure, Paused, Success
from flujo.engine.recording import finish_turn, recorded
from flujo.exceptions import FlujoError, StateError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from flujo.domain.journal import StepPath
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.pipeline import Pipeline
    from flujo.engine.frame import Frame, RunBody


@dataclass(frozen=True, slots=True)
class Arm:
    """One of the bodies that run at once."""

    name: str
    path: StepPath
    body: Pipeline
    previous: Any
    names: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Arrival:
    """How an arm came out, and what it wrote since the fork."""

    name: str
    outcome: StepOutcome
    patch: merge.Patch

    @property
    def ok(self) -> bool:
        """Whether the arm succeeded."""
        return isinstance(self.outcome, Success)

    @property
    def output(self) -> Any:
        """What an arm that succeeded gave."""
        return self.outcome.output if isinstance(self.outcome, Success) else None

    def collected(self) -> dict[str, Any]:
        """Return what became of the arm, as data."""
        error = self.outcome.error.to_json() if isinstance(self.outcome, Failure) else None
        return {"ok": self.ok, "output": self.output, "error": error}


async def fan_out(
    frame: Frame,
    kind: str,
    arms: AsyncGenerator[Arm, None],
    run_body: RunBody,
    *,
    limit: int,
    stop_at_failure: bool,
    one_entry: bool = True,
) -> list[Arrival]:
    """Run the arms, at most `limit` at a time, and return how they came out, in the order they were given.

    An arm that has begun comes to its end, so that nothing it did is lost. After an abort, a failure of
    `arms` itself, or (with `stop_at_failure`) a failure of an arm, no further one begins. Without `one_entry`
    an arm is nothing but its steps: two may have one path, and what they write to the context is not kept.

    Raises:
        FlujoError: what `arms` raised, after the arms that had begun have come to their end.
        StateError: the journal could not be read or written; the others are cancelled.
    """
    arrived: dict[int, Arrival] = {}
    free = asyncio.Semaphore(max(1, limit))
    stops = (Aborted, Failure) if stop_at_failure else (Aborted,)
    stopped = False
    arriving = _arrive if one_entry else _pass

    async def arrive(number: int, arm: Arm) -> None:
        nonlocal stopped
        try:
            arrived[number] = await arriving(frame, kind, arm, run_body)
            stopped = stopped or isinstance(arrived[number].outcome, stops)
        finally:
            free.release()

    broken: FlujoError | None = None
    try:
        async with aclosing(arms), asyncio.TaskGroup() as group:
            for number in count():
                await free.acquire()
                arm, broken = (None, None) if stopped else await _next(arms)
                if arm is None:
                    break
                group.create_task(arrive(number, arm))
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    if broken is not None:
        raise broken
    return [arrived[number] for number in sorted(arrived)]


async def _next(arms: AsyncGenerator[Arm, None]) -> tuple[Arm | None, FlujoError | None]:
    """Return the next arm, None when there is none, and why there cannot be one."""
    try:
        return await anext(arms, None), None
    except StateError:
        raise
    except FlujoError as error:
        return None, error


async def _arrive(frame: Frame, kind: str, arm: Arm, run_body: RunBody) -> Arrival:
    """Return how one arm came out, from the journal when it has finished before."""
    inner = frame.fork(arm.path, previous=arm.previous, names=arm.names)
    fork = inner.zone.tree
    outcome: StepOutcome | None = recorded(inner, arm.path, kind)
    if outcome is None:
        outcome = await run_body(arm.body, inner)
        if isinstance(outcome, Success):
            finish_turn(inner, arm.path, kind, outcome.output, fork, {})
    return Arrival(arm.name, outcome, merge.diff(fork, inner.zone.tree))


async def _pass(frame: Frame, _kind: str, arm: Arm, run_body: RunBody) -> Arrival:
    """Return how an arm came out that is no entry of its own."""
    inner = frame.fork(arm.path, previous=arm.previous, names=arm.names)
    return Arrival(arm.name, await run_body(arm.body, inner), [])


def stopped_by(frame: Frame, arrivals: Sequence[Arrival], *, failures_stop: bool) -> StepOutcome | None:
    """Return why the composite cannot go on: somebody aborted, failed, or waits; None when it can.

    A failure goes before a pause: the questions of the siblings are void then.
    """
    outcomes = [arrival.outcome for arrival in arrivals]
    pauses = [pause for outcome in outcomes if isinstance(outcome, Paused) for pause in outcome.pauses]
    for kinds in (Aborted, Failure) if failures_stop else (Aborted,):
        for outcome in outcomes:
            if isinstance(outcome, kinds):
                frame.run.journal.void(pauses)
                return outcome
    return Paused(tuple(pauses)) if pauses else None
