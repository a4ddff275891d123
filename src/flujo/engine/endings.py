"""`on_failure` of a run: the steps between a failure and the end of the run.

How the steps of the run have ended is a decision at `:end`, with the error and with what they wrote to the
context. A resumed run that finds it executes none of them again, and continues in `on_failure`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, merge
from flujo.domain.journal import Entry, EntryKind, ErrorInfo
from flujo.domain.outcomes import Failure, Paused, Success
from flujo.domain.paths import END, FAILURE, ROOT, StepPath, branch, decoded, shown, without_counts
from flujo.engine.frame import Frame
from flujo.engine.journal import encoded
from flujo.engine.limits import limited
from flujo.exceptions import CallInDoubt

if TYPE_CHECKING:
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.pipeline import Pipeline
    from flujo.engine.frame import RunBody


async def run_whole(pipeline: Pipeline, frame: Frame, run_body: RunBody) -> StepOutcome:
    """Return the outcome of a run: that of its steps, after those of `on_failure` if they have failed.

    A failure that leaves a call in doubt is left to a human: the run may still continue.
    """
    if pipeline.on_failure is None:
        return await limited(frame, None, lambda: run_body(pipeline, frame))
    before, journal = frame.scope.tree, frame.run.journal
    await journal.load_level(ROOT)
    known = None if journal.is_blank else journal.decision(END)
    failure = None if known is None else _recorded(known)
    if known is None or frame.run.recorded is not None:  # a replay computes the failure again
        outcome = await limited(frame, None, lambda: run_body(pipeline, frame))
        if isinstance(outcome, Failure) and outcome.error.code != CallInDoubt.code:
            failure = outcome
            journal.void_below(ROOT)
            await journal.record(_end(failure, frame, before))
        elif failure is None or not isinstance(outcome, Paused):
            return outcome
    if known is not None:
        frame.scope.tree = merge.apply(before, canonical.decode(known.patch or b"[]"))
    assert failure is not None  # noqa: S101 - for the type checker: recorded or computed
    return await _handled(pipeline.on_failure, failure, frame, run_body)


async def _handled(handler: Pipeline, failure: Failure, frame: Frame, run_body: RunBody) -> StepOutcome:
    """Return the failure of a run after `on_failure`, with the error of a step that failed there as well."""
    if frame.budget is not None:
        frame.budget.begin_on_failure()
    value = _value(failure.error)
    inner = Frame(
        frame.run,
        frame.scope,
        input=frame.input,
        previous=value,
        path=branch(ROOT, FAILURE),
        names={"failure": value},
        since=frame.since,
        budget=frame.budget,
        input_pii=frame.input_pii,
    )
    outcome = await run_body(handler, inner)
    match outcome:
        case Success():
            return replace(failure, error=replace(failure.error, is_handled=True))
        case Failure(error=other):
            too = f"`on_failure` failed too, at `{shown(other.path)}`: {other.message}"
            error = replace(failure.error, message=f"{failure.error.message}; {too}")
            return replace(failure, error=error)
        case _:
            return outcome


def _value(error: ErrorInfo) -> dict[str, Any]:
    """Return `failure`: the step of the run that has failed, by its name, and the error.

    The name is empty when the output of the run has failed.
    """
    first = without_counts(StepPath(error.path)).partition("/")[0].partition(":")[0].partition("!")[0]
    return {"step": decoded(first), "error": error.as_value()}


def _end(failure: Failure, frame: Frame, before: Any) -> Entry:
    now = frame.run.clock.now()
    output = {"ended": "failed", "failure": _value(failure.error)}
    return Entry(
        path=END,
        kind=EntryKind.DECISION,
        output=encoded(output, "the failure of the run"),
        patch=encoded(merge.diff(before, frame.scope.tree), "what the steps of the run saved"),
        detail=canonical.encode({"error": failure.error.to_json()}),
        started_at=now,
        ended_at=now,
    )


def _recorded(end: Entry) -> Failure:
    return Failure(ErrorInfo.from_json(canonical.decode(end.detail or b"{}")["error"]))
