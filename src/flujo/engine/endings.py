"""`on_failure` and `finally` of a run: the steps between the end of its other steps and its own end.

How the run has ended so far is a decision at `:end` before the first step of either, with the context as the
steps have left it. A resumed run that finds it executes no earlier step again, and continues after it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, merge
from flujo.domain.journal import Entry, EntryKind, ErrorInfo
from flujo.domain.outcomes import Aborted, Ended, Failure, Paused, Success
from flujo.domain.paths import END, FAILURE, FINALLY, ROOT, StepPath, branch, decoded, shown, without_counts
from flujo.domain.run import PauseKind
from flujo.engine.error_info import error_info
from flujo.engine.frame import Frame
from flujo.engine.journal import encoded
from flujo.engine.limits import limited
from flujo.exceptions import CallInDoubt, StepFailed, StepTimeout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.pipeline import Pipeline
    from flujo.engine.frame import Run, RunBody

FINALLY_S = 60.0
"""The most seconds that the steps of `finally` take together, in one execution of the run."""

_ATTEMPTS: Mapping[str, int] = {FAILURE: 1, FINALLY: 2}
"""The attempt of the decision at `:end` before the steps of each branch."""

_ANNOUNCED = 0
"""The attempt of the decision at `:end` that a run with `finally` begins with."""

_STATUS: Mapping[type[StepOutcome], str] = {Success: "completed", Failure: "failed", Aborted: "cancelled"}


def begins_with_finally(entries: Iterable[Entry]) -> bool:
    """Return whether the entries directly below a run show that it has begun, with a `finally`."""
    return any(each.path == END and each.attempt == _ANNOUNCED for each in entries)


def is_in_finally(entries: Iterable[Entry]) -> bool:
    """Return whether the entries directly below a run say how it ends after its `finally`."""
    return any(each.path == END and each.attempt == _ATTEMPTS[FINALLY] for each in entries)


# Not `async`, because it only calls another coroutine: each of 10,000 waiting runs would hold one more.


def run_whole(pipeline: Pipeline, frame: Frame, run_body: RunBody) -> Awaitable[StepOutcome]:
    """Return the outcome of a run: that of its steps, after those of `on_failure` and `finally`.

    A failure that leaves a call in doubt is left to a human: the run may still continue.
    """
    if pipeline.endings():
        return _with_endings(pipeline, frame, run_body)
    return limited(frame, None, partial(run_body, pipeline, frame))


async def _with_endings(pipeline: Pipeline, frame: Frame, run_body: RunBody) -> StepOutcome:
    ends = _Ends(frame, frame.scope.tree)
    await frame.run.journal.load_level(ROOT)

    def steps() -> Awaitable[StepOutcome]:
        return limited(frame, None, lambda: run_body(pipeline, frame))

    async def handled() -> StepOutcome:
        if pipeline.on_failure is None:
            return await steps()
        outcome = await ends.before(FAILURE, steps)
        if not isinstance(outcome, Failure) or not _leads_to(FAILURE, outcome):
            return outcome
        return await _handled(pipeline.on_failure, outcome, frame, run_body)

    if pipeline.finally_ is None:
        return await handled()
    await ends.announce()
    outcome = await ends.before(FINALLY, handled if frame.run.cancelled is None else ends.cancelled)
    if not _leads_to(FINALLY, outcome):
        return outcome
    return await _finally(pipeline.finally_, outcome, frame, run_body)


def _leads_to(name: str, outcome: StepOutcome) -> bool:
    """Return whether the steps of a branch are executed after an outcome."""
    if isinstance(outcome, Failure):
        return outcome.error.code != CallInDoubt.code
    return name == FINALLY and isinstance(outcome, Success | Aborted)


@dataclass(slots=True)
class _Ends:
    """The decisions about the end of a run."""

    frame: Frame
    start: Any
    """The context's tree at the start of the run."""

    async def announce(self) -> None:
        """Record that the run has begun with `finally`, for processes without the pipeline."""
        journal = self.frame.run.journal
        if self.frame.run.recorded is not None or journal.decision(END, _ANNOUNCED) is None:
            await journal.record(self._entry(_ANNOUNCED, {"finally": True}))

    async def before(self, name: str, work: Callable[[], Awaitable[StepOutcome]]) -> StepOutcome:
        """Return how the run has ended before the steps of a branch, from the record or from `work`."""
        journal, scope = self.frame.run.journal, self.frame.scope
        known = None if journal.is_blank else journal.decision(END, _ATTEMPTS[name])
        outcome: StepOutcome | None = None
        if known is None or self.frame.run.recorded is not None:  # a replay computes the end again
            outcome = await work()
            if isinstance(outcome, Ended):
                outcome = Success(outcome.output)
            if _leads_to(name, outcome):
                journal.void_below(ROOT)
                await journal.record(self._end(name, outcome))
        if known is not None:
            if outcome is None or isinstance(outcome, Paused):  # a replay cannot compute a cancellation
                outcome = _recorded(known)
            if _leads_to(name, outcome):
                scope.tree = merge.apply(self.start, canonical.decode(known.patch or b"[]"))
        assert outcome is not None  # noqa: S101 - for the type checker: recorded or computed
        return outcome

    async def cancelled(self) -> StepOutcome:
        """Return the outcome of a run that is to be cancelled, with the context that its steps have left."""
        cancelled = self.frame.run.cancelled
        assert cancelled is not None  # noqa: S101 - the caller has checked it
        self.frame.scope.tree = cancelled.tree
        return Aborted(cancelled.reason)

    def _end(self, name: str, outcome: StepOutcome) -> Entry:
        output: dict[str, Any] = {"ended": _STATUS[type(outcome)]}
        detail = None
        if isinstance(outcome, Success):
            output["output"] = outcome.output
        elif isinstance(outcome, Failure | Aborted):
            error = outcome.error
            output |= {"failure": _value(error)} if name == FAILURE else {"error": error.as_value()}
            detail = canonical.encode({"error": error.to_json()})
        return self._entry(_ATTEMPTS[name], output, detail, self.frame.scope.tree)

    def _entry(self, attempt: int, output: Any, detail: bytes | None = None, after: Any = None) -> Entry:
        now = self.frame.run.clock.now()
        patch = [] if after is None else merge.diff(self.start, after)
        return Entry(
            path=END,
            kind=EntryKind.DECISION,
            attempt=attempt,
            output=encoded(output, "the end of the run"),
            patch=encoded(patch, "what the steps of the run saved"),
            detail=detail,
            started_at=now,
            ended_at=now,
        )


def _recorded(end: Entry) -> StepOutcome:
    said, detail = canonical.decode(end.output or b"{}"), canonical.decode(end.detail or b"{}")
    match said["ended"]:
        case "completed":
            return Success(said["output"])
        case "cancelled":
            return Aborted(detail["error"]["message"])
        case _:
            return Failure(ErrorInfo.from_json(detail["error"]))


# on_failure ----------------------------------------------------------------------------------------------


async def _handled(handler: Pipeline, failure: Failure, frame: Frame, run_body: RunBody) -> StepOutcome:
    """Return the failure of a run after `on_failure`, with the error of a step that failed there as well."""
    value = _value(failure.error)
    outcome = await run_body(handler, _inside(frame, FAILURE, "failure", value))
    match outcome:
        case Success():
            return _settled(failure)
        case Failure(error=other):
            return _with_both(failure, "on_failure", other)
        case _:
            return outcome


def _value(error: ErrorInfo) -> dict[str, Any]:
    """Return `failure`: the step of the run that has failed, by its name, and the error.

    The name is empty when the output of the run has failed.
    """
    first = without_counts(StepPath(error.path)).partition("/")[0].partition(":")[0].partition("!")[0]
    return {"step": decoded(first), "error": error.as_value()}


# finally -------------------------------------------------------------------------------------------------


async def _finally(body: Pipeline, ended: StepOutcome, frame: Frame, run_body: RunBody) -> StepOutcome:
    """Return how a run has ended after `finally`: as recorded, unless a step failed there."""
    run = frame.run
    run.wish.is_past = True
    error = ended.error if isinstance(ended, Failure | Aborted) else None
    value = {"status": _STATUS[type(ended)], "error": None if error is None else error.as_value()}
    inner = _inside(frame, FINALLY, "ended", value)
    clock = asyncio.timeout(None if run.recorded is not None else FINALLY_S)
    inner.limits = (clock,)
    try:
        async with clock:
            outcome = await run_body(body, inner)
    except TimeoutError as cause:
        if not clock.expired():
            raise
        outcome = _out_of_time(cause)
    match outcome:
        case Paused() if run.recorded is not None or _may_wait(outcome, ended, run):
            return outcome
        case Paused():
            run.journal.void_below(branch(ROOT, FINALLY))
            return _with_failure(ended, _waited(outcome))
        case Failure() | Aborted():
            return _with_failure(ended, outcome)
        case _:
            return _settled(ended)


def _out_of_time(cause: TimeoutError) -> Failure:
    late = StepTimeout(
        f"the steps of `finally` took longer than {FINALLY_S:g} s together",
        hint="give slow calls in it a `timeout_s`, or do that work in `steps`",
    )
    late.__cause__ = cause
    return Failure(error_info(late, branch(ROOT, FINALLY)), late)


def _may_wait(outcome: Paused, ended: StepOutcome, run: Run) -> bool:
    """Return whether the run waits for a human: only about a call in doubt, and not after a cancel."""
    is_cancelled = isinstance(ended, Aborted) or run.cancelled is not None
    return not is_cancelled and all(each.kind is PauseKind.DOUBT for each in outcome.pauses)


def _waited(outcome: Paused) -> Failure:
    pause = outcome.pauses[0]
    waits = StepFailed(
        f"the step waits for {pause.kind.name_of_one}, and `finally` waits for nothing",
        hint="ask, or wait, in a step of the run itself",
    )
    return Failure(error_info(waits, StepPath(pause.pause_id.partition("!")[0])), waits)


def _with_failure(ended: StepOutcome, failed: Failure | Aborted) -> StepOutcome:
    """Return the end of a run whose `finally` has failed: a completed one fails, others name both errors."""
    match ended:
        case Failure():
            return _with_both(ended, "finally", failed.error)
        case Aborted(reason=reason):
            return Aborted(_both(reason, "finally", failed.error))
        case _:
            return Failure(failed.error, failed.cause if isinstance(failed, Failure) else None)


# Both ----------------------------------------------------------------------------------------------------


def _inside(frame: Frame, name: str, seen: str, value: Any) -> Frame:
    """Return the frame of a branch after the steps of a run; its steps see `value` by the name `seen`."""
    if frame.budget is not None:
        frame.budget.begin_ending()
    return Frame(
        frame.run,
        frame.scope,
        input=frame.input,
        previous=value,
        path=branch(ROOT, name),
        names={seen: value},
        since=frame.since,
        budget=frame.budget,
        input_pii=frame.input_pii,
    )


def _settled(ended: StepOutcome) -> StepOutcome:
    """Return the end of a run after all the steps of a branch; a failed one is not tried again."""
    if not isinstance(ended, Failure):
        return ended
    return replace(ended, error=replace(ended.error, is_handled=True))


def _with_both(ended: Failure, key: str, other: ErrorInfo) -> Failure:
    message = _both(ended.error.message, key, other)
    return replace(ended, error=replace(ended.error, message=message, is_handled=False))


def _both(message: str, key: str, other: ErrorInfo) -> str:
    where = f", at `{shown(StepPath(other.path))}`" if other.path else ""
    return f"{message}; `{key}` failed too{where}: {other.message}"
