"""Runs several bodies concurrently, each on its own fork of the context.

The end of a branch is one entry: its own, or that of its only step.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import field
from itertools import count
from typing import TYPE_CHECKING, Any

from flujo.domain import merge
from flujo.domain.fast_dataclass import record
from flujo.domain.outcomes import Aborted, Failure, Paused, Success
from flujo.domain.paths import child, shown
from flujo.engine.error_info import error_info
from flujo.engine.places import Place, Places
from flujo.exceptions import (
    AnswerUnbounded,
    CallInDoubt,
    ControlSignal,
    EngineError,
    FlujoError,
    PriceUnknown,
    StateError,
    StepFailed,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.steps import BaseStep
    from flujo.engine.frame import Frame, RunBody


_WITHOUT_PRICE = (PriceUnknown.code, AnswerUnbounded.code)


@record(frozen=True, slots=True)
class Branch:
    """One of the concurrent bodies."""

    name: str
    path: StepPath
    body: Pipeline
    previous: Any
    names: Mapping[str, Any] = field(default_factory=dict)
    only: BaseStep | None = None
    """The step whose entry is that of the branch as well; None if the branch has an entry of its own."""


@record(frozen=True, slots=True)
class BranchResult:
    """The outcome of a branch, and its patch since the fork."""

    name: str
    outcome: StepOutcome
    patch: merge.Patch

    @property
    def ok(self) -> bool:
        """Whether the branch succeeded."""
        return isinstance(self.outcome, Success)

    @property
    def output(self) -> Any:
        """The output of a successful branch."""
        return self.outcome.output if isinstance(self.outcome, Success) else None

    def collected(self) -> dict[str, Any]:
        """Return the result of the branch as data."""
        error = self.outcome.error.as_value() if isinstance(self.outcome, Failure) else None
        return {"ok": self.ok, "output": self.output, "error": error}


async def fan_out(
    frame: Frame,
    kind: str,
    branches: AsyncGenerator[Branch, None],
    run_body: RunBody,
    *,
    limit: int,
    stop_at_failure: bool,
    one_entry: bool = True,
) -> list[BranchResult]:
    """Run the branches, at most `limit` at a time, and return their results in order; see `run_each`."""
    results: dict[int, BranchResult] = {}
    await run_each(
        frame,
        kind,
        branches,
        run_body,
        results.__setitem__,
        limit=limit,
        stop_at_failure=stop_at_failure,
        one_entry=one_entry,
    )
    return [results[number] for number in sorted(results)]


async def run_each(
    frame: Frame,
    kind: str,
    branches: AsyncGenerator[Branch, None],
    run_body: RunBody,
    arrive: Callable[[int, BranchResult], None],
    *,
    limit: int,
    stop_at_failure: bool,
    one_entry: bool = True,
) -> None:
    """Run the branches, at most `limit` at a time; `arrive` gets each result when its branch ends.

    A started branch always runs to its end, so its work is never lost. No further branch starts after an
    abort, after an error from `branches` itself, or (with `stop_at_failure`) after a failed branch. Without
    `one_entry` branches have no journal entries: two branches may share one path, and their context patches
    are dropped.

    Raises:
        FlujoError | ControlSignal: the error of `branches`, after the started branches have ended.
        StepFailed: a branch has ended without a result.
        EngineError: a branch decided differently than recorded, or `arrive` raised it; at the same time.
        StateError: the journal could not be read or written; the others are cancelled.
    """
    places = Places(limit, frame.place)
    stops = (Aborted, Failure) if stop_at_failure else (Aborted,)
    stopped = False
    broken: FlujoError | ControlSignal | None = None
    began = arrived = 0
    arriving = _arrive if one_entry else _pass

    async def execute(number: int, branch: Branch, place: Place) -> None:
        nonlocal arrived, broken, stopped
        try:
            result = await arriving(frame, kind, branch, run_body, place)
            arrived += 1
            stopped = stopped or isinstance(result.outcome, stops)
            arrive(number, result)
        except EngineError as error:
            broken, stopped = broken or error, True
        except (Exception, KeyboardInterrupt):
            frame.run.is_broken = True  # the group cancels the other branches
            raise

    try:
        async with aclosing(branches), asyncio.TaskGroup() as group:
            for number in count():
                place, task = Place(places), None
                await place.begin()
                try:
                    branch, error = (None, None) if stopped else await _next(branches)
                    if branch is None:
                        broken, began = broken or error, number
                        break
                    frame.require_going()
                    task = group.create_task(execute(number, branch, place))
                    task.add_done_callback(place.end)
                finally:
                    if task is None:
                        place.end()
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    if broken is not None:
        raise broken
    if arrived != began:
        raise StepFailed(
            f"{began - arrived} of {began} branches below `{shown(frame.path)}` ended without a result",
            hint="a library has cancelled the tasks of Flujo; a retry executes these branches again",
            retryable=True,
        )


async def _next(
    branches: AsyncGenerator[Branch, None],
) -> tuple[Branch | None, FlujoError | ControlSignal | None]:
    """Return the next branch or None, and the error that prevents one."""
    try:
        return await anext(branches, None), None
    except StateError:
        raise
    except (FlujoError, ControlSignal) as error:
        return None, error


async def _arrive(frame: Frame, kind: str, branch: Branch, run_body: RunBody, place: Place) -> BranchResult:
    """Return the outcome of one branch, from the journal if it is recorded."""
    inner = frame.fork(branch.path, place, previous=branch.previous, names=branch.names)
    fork = inner.scope.tree
    outcome = None if frame.run.journal.is_blank else _recorded(inner, kind, branch)
    if outcome is None:
        outcome = await run_body(branch.body, inner)
        if isinstance(outcome, Success) and branch.only is None:
            try:
                output = inner.encoded(outcome.output, f"a value of `{branch.path}`")
                inner.append_done(branch.path, kind, output, fork, {})
            except EngineError as error:
                outcome = Failure(error_info(error, branch.path), error)
    return BranchResult(branch.name, outcome, merge.diff(fork, inner.scope.tree))


def _recorded(inner: Frame, kind: str, branch: Branch) -> StepOutcome | None:
    outcome, only = inner.recorded(branch.path, kind), branch.only
    if outcome is None and only is not None:
        outcome = inner.recorded(child(branch.path, only.name), only.kind)
    return outcome


async def _pass(frame: Frame, _kind: str, branch: Branch, run_body: RunBody, place: Place) -> BranchResult:
    """Return the outcome of a branch that has no journal entry."""
    inner = frame.fork(branch.path, place, previous=branch.previous, names=branch.names)
    return BranchResult(branch.name, await run_body(branch.body, inner), [])


def stopped_by(frame: Frame, results: Sequence[BranchResult], *, failures_stop: bool) -> StepOutcome | None:
    """Return why the composite stops: a branch aborted, failed, or waits; None when it continues.

    A failure takes precedence over a pause, and voids the questions of the siblings. Of several failures, one
    that leaves a call in doubt is returned. A request that could not be priced is not a failure of its
    branch: under a limit, no branch may send one.
    """
    doubt = doubt_among(results)
    outcomes = [*([] if doubt is None else [doubt]), *(result.outcome for result in results)]
    failures_stop = failures_stop or any(is_without_price(outcome) for outcome in outcomes)
    pauses = [pause for outcome in outcomes if isinstance(outcome, Paused) for pause in outcome.pauses]
    outcomes.sort(key=lambda outcome: not is_without_price(outcome))
    for kinds in (Aborted, Failure) if failures_stop else (Aborted,):
        for outcome in outcomes:
            if isinstance(outcome, kinds):
                frame.run.journal.void(pauses)
                return outcome
    return Paused(tuple(pauses)) if pauses else None


def is_without_price(outcome: StepOutcome) -> bool:
    """Return whether a branch failed because a request could not be priced."""
    return isinstance(outcome, Failure) and outcome.error.code in _WITHOUT_PRICE


def doubt_among(results: Sequence[BranchResult]) -> Failure | None:
    """Return the failure of a branch that leaves a call in doubt; it must not be skipped."""
    for result in results:
        if isinstance(result.outcome, Failure) and leaves_doubt(result.outcome):
            return result.outcome
    return None


def leaves_doubt(outcome: StepOutcome) -> bool:
    """Return whether a branch failed with a call in doubt."""
    return isinstance(outcome, Failure) and outcome.error.code == CallInDoubt.code
