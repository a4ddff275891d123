"""Executes a pipeline step by step, reading the journal before each; independent of YAML and SQL."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

from flujo.domain import canonical
from flujo.domain.agents import OneOf
from flujo.domain.events import StepStarted, new_step_ended
from flujo.domain.journal import Entry, EntryKind, EntryStatus
from flujo.domain.outcomes import (
    Aborted,
    BackgroundLaunched,
    BegunAgain,
    Ended,
    Failure,
    Paused,
    StepOutcome,
    Success,
)
from flujo.domain.paths import ROOT, StepPath, child
from flujo.domain.pipeline import NO_ITEMS
from flujo.engine import background
from flujo.engine.agent_choice import chosen
from flujo.engine.budget_questions import BudgetAsked
from flujo.engine.composite_attempts import finish, is_attempted, perform_whole, replaced
from flujo.engine.context_isolation import ContextScope
from flujo.engine.decisions import decide_flag
from flujo.engine.endings import run_whole
from flujo.engine.error_info import error_info, foreign_text
from flujo.engine.foreign_code import is_ctrl_c
from flujo.engine.frame import Frame, PlannedStep, Run
from flujo.engine.journal import STOPS_THE_WALK, encoded
from flujo.engine.limits import breach_of, limited
from flujo.engine.recording import EndOfRecord, end_of_record
from flujo.engine.step_cache import answered
from flujo.engine.steps import (
    await_,
    cache,
    conditional,
    continue_as_new,
    end,
    event,
    granular,
    hitl,
    import_,
    loop,
    map,  # noqa: A004 - a step's file has its kind's name
    parallel,
    router,
    set,  # noqa: A004 - as above
    sleep,
    state_machine,
    step,
    tree_search,
)
from flujo.exceptions import (
    ControlSignal,
    FlujoError,
    JournalConflict,
    PausedException,
    PipelineAbortSignal,
    StepFailed,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import Binding
    from flujo.domain.steps import BaseStep, CachePolicy, Logic
    from flujo.engine.budget import Budget
    from flujo.engine.frame import Work

_LEAVES: Mapping[str, Callable[..., Work]] = {
    "step": step.work,
    "hitl": hitl.work,
    "granular": granular.work,
    "sleep": sleep.work,
    "await": await_.work,
    "event": event.work,
    "continue_as_new": continue_as_new.work,
    "set": set.work,
    "end": end.work,
}
_COMPOSITES: Mapping[str, Callable[..., Awaitable[StepOutcome]]] = {
    "conditional": conditional.run,
    "loop": loop.run,
    "state_machine": state_machine.run,
    "map": map.run,
    "parallel": parallel.run,
    "router": router.run,
    "cache": cache.run,
    "import": import_.run,
    "tree_search": tree_search.run,
}
KINDS = frozenset({*_LEAVES, *_COMPOSITES})
"""The kinds of step that this engine can run."""


async def execute(
    pipeline: Pipeline,
    run: Run,
    value: Any,
    context: Any,
    budget: Budget | None = None,
    *,
    owner: Pipeline | None = None,
) -> tuple[StepOutcome, Any]:
    """Execute a pipeline from its start, or from the end of its journal.

    Args:
        pipeline: the bound tree.
        run: its identity, its journal, and its ports.
        value: the run's input, JSON data that matches `input_schema`.
        context: the context's tree at the start of the run.
        budget: the budget of the run; None when nothing in it is limited.
        owner: of a background task, the pipeline whose context it has a copy of; `value` is then what
            `background.scope_of` has returned.

    Returns:
        The outcome, and the context's fields at that moment.

    Raises:
        StateError: the journal could not be read or written; the run can be resumed.
    """
    scope = ContextScope(run.binding.context(owner or pipeline), context)
    forgiven = run.journal.last_seq if run.retry_failed else 0
    if owner is None:
        frame = Frame(run, scope, input=value, previous=value, since=forgiven, budget=budget)
    else:
        frame = Frame(run, scope, **{"input": None, **value}, since=forgiven, budget=budget)
    frame.input_pii = (owner or pipeline).input_pii
    if run.sink is None:
        if run.plans.riding is None:
            run.plans.riding = _riding(pipeline.steps)
        frame.riding = run.plans.riding
    try:
        outcome = await run_whole(pipeline, frame, run_body)
    except JournalConflict as conflict:  # the run fails, and can be resumed once its tree is restored
        outcome = Failure(error_info(conflict, StepPath(conflict.path)), conflict)
    return Success(outcome.output) if isinstance(outcome, Ended) else outcome, scope.fields


def _riding(steps: Sequence[BaseStep]) -> frozenset[int]:
    """Return the ids of the steps whose entries ride with the next commit, in a run without a watcher.

    They are the last step, and each step before a question or a wait without a condition: nothing begins
    before the commit that ends the run, opens the question or records its answer.
    """
    before = [each for each, following in pairwise(steps) if _is_asked(following)]
    return frozenset(id(each) for each in (*before, steps[-1]))


def _is_asked(each: BaseStep) -> bool:
    """Return whether a step only waits, is never skipped, and has a commit of its own at its end."""
    return (
        bool(each.only_waits)
        and each.when is None
        and each.cache is None
        and each.config.durability != "exit"
    )


# Not `async`, because it only calls another coroutine: each of 10,000 waiting runs would hold one more.


def run_body(body: Pipeline, frame: Frame) -> Awaitable[StepOutcome]:
    """Run the steps of one body in its frame; the output is that of `output`, else the last step's."""
    if body.budget is None:
        return _steps_of(body, frame)
    return limited(frame, body.budget, lambda: _steps_of(body, frame))


async def _steps_of(body: Pipeline, frame: Frame) -> StepOutcome:
    run = frame.run
    await run.journal.load_level(frame.path)
    planned = run.plans.of(body, partial(_planned, run.binding))
    for each in planned:
        outcome = await _run_step(each, frame)
        if not isinstance(outcome, Success):
            return outcome
        if each.ends is not None and not outcome.skipped:
            return _ended_early(each, outcome, planned, frame)
        if outcome.skipped:
            frame.steps[each.name] = {"output": None, "skipped": True}
        else:
            frame.advance(each, outcome)
    if body.output is None:
        return Success(frame.previous)
    try:
        return Success(canonical.decode(encoded(frame.render(body.output), "output")))
    except FlujoError as error:
        return Failure(error_info(error, frame.path), error)


def _ended_early(
    each: PlannedStep, outcome: Success, planned: Sequence[PlannedStep], frame: Frame
) -> StepOutcome:
    """Return the outcome of a body that a step has ended; to expressions, the steps after it are skipped."""
    if each.ends == "blueprint":
        return Ended(outcome.output)
    for later in planned[planned.index(each) + 1 :]:
        frame.steps[later.name] = {"output": None, "skipped": True}
    return Success(outcome.output)


async def _run_step(each: PlannedStep, frame: Frame) -> StepOutcome:
    if frame.budget is not None and (breach := breach_of(frame.budget)) is not None:
        return breach  # a sibling has used up the budget
    frame.require_going()
    run, kind = frame.run, each.kind
    path = StepPath(f"{frame.path}/{each.segment}") if frame.path else each.segment
    started = run.clock.monotonic()
    known = False
    try:
        finished = None if run.journal.is_blank else run.journal.recorded(path, kind, frame.scope)
        known = finished is not None
        outcome = finished if finished is not None else await each.work(frame, path)
    except STOPS_THE_WALK:
        raise
    except FlujoError as error:
        outcome = Failure(run.journal.error_info(error, path), error)
    except ControlSignal as signal:
        outcome = _signalled(signal, each, frame, path)
    except (SystemExit, KeyboardInterrupt) as error:  # of foreign code that is called without `call_code`
        if is_ctrl_c(error):
            raise
        outcome = Failure(run.journal.error_info(error, path), error)
    seconds, usage = run.clock.monotonic() - started, run.journal.take_usage(path)
    shown = _launch_of(outcome) if each.is_background else outcome
    ended = new_step_ended(path, kind, shown, seconds=seconds, usage=usage, recorded=known)
    if frame.is_listed:
        run.ended.append(ended)
    if run.sink is not None:
        await frame.tell(ended)
    if each.ends_run and isinstance(outcome, Success) and not outcome.skipped:
        return BegunAgain(outcome.output)
    return outcome


def _signalled(signal: ControlSignal, each: PlannedStep, frame: Frame, path: StepPath) -> StepOutcome:
    """Return the outcome of a step that a signal ends outside of its attempts."""
    match signal:
        case EndOfRecord():
            return end_of_record(path)
        case BudgetAsked():
            return Paused((frame.run.journal.ask(signal.pause),))
        case PausedException():
            refused = StepFailed(
                f"a callable that decides for step {each.name!r} asked a human: {signal.message}",
                hint="only the code of a `step` may pause; ask in an earlier step, with `kind: hitl`",
            )
            return Failure(error_info(refused, path), refused)
        case PipelineAbortSignal():
            return Aborted(foreign_text(signal.reason))
        case _:
            raise signal


def _launch_of(outcome: StepOutcome) -> StepOutcome:
    """Return the outcome of a step in the background, as events show it."""
    if isinstance(outcome, Success) and not outcome.skipped:
        return BackgroundLaunched(outcome.output["task_id"])
    return outcome


# The layers around a step --------------------------------------------------------------------------------


def _planned(binding: Binding, body: Pipeline) -> Sequence[PlannedStep]:
    return tuple(_plan(each, binding) for each in body.steps)


def _plan(each: BaseStep, binding: Binding) -> PlannedStep:
    is_background = each.config.execution_mode == "background"
    facts = NO_ITEMS if is_background else each.usual_facts()
    segment, work = child(ROOT, each.name), _layered(each, binding)
    return PlannedStep(
        each, each.name, each.kind, segment, facts, work, is_background, each.ends_run, each.ends
    )


def _layered(each: BaseStep, binding: Binding) -> Work:
    """Return the execution of a step: its kind's own, inside the layers that the step needs.

    From the inside: attempts and limits, substitute for a failure and the entry of a composite's end; the
    cache; the choice of an agent; `when`. A leaf step has its attempts and its entry in `attempts`.
    """
    if each.config.execution_mode == "background":
        launch: Work = partial(background.launched, each)
        return launch if each.when is None else partial(_conditional, each, each.when, launch)
    agent = getattr(each, "agent", None)
    if isinstance(agent, OneOf):
        works = {
            name: _layered(replace(cast("Any", each), agent=one, when=None), binding)
            for name, one in agent.one_of.items()
        }
        work: Work = partial(chosen, agent, works, each.name)
        return work if each.when is None else partial(_conditional, each, each.when, work)
    if each.kind in _LEAVES:
        work = _LEAVES[each.kind](each, binding, run_body)
    else:
        attempts = _with_attempts if is_attempted(each) else _once
        work = partial(_composed, each, partial(attempts, each, _COMPOSITES[each.kind]))
    if each.cache is not None:
        work = partial(_cached, each, each.cache, work)
    if each.when is not None:
        work = partial(_conditional, each, each.when, work)
    return work


def _with_attempts(
    each: BaseStep, run: Callable[..., Awaitable[StepOutcome]], frame: Frame, path: StepPath
) -> Awaitable[StepOutcome]:
    return perform_whole(each, frame, path, lambda inner: run(each, inner, path, run_body))


async def _once(
    each: BaseStep, run: Callable[..., Awaitable[StepOutcome]], frame: Frame, path: StepPath
) -> StepOutcome:
    await frame.tell(StepStarted(path, each.kind))
    return await run(each, frame, path, run_body)


async def _composed(each: BaseStep, attempts: Work, frame: Frame, path: StepPath) -> StepOutcome:
    before = frame.scope.tree
    outcome = await attempts(frame, path)
    breach = None if frame.budget is None else breach_of(frame.budget)
    outcome = breach or outcome
    if isinstance(outcome, Failure) and each.instead != "fail" and breach is None:
        frame.scope.tree = before  # drop the writes of a failed step
        outcome = replaced(each, frame, outcome)
    if isinstance(outcome, Success):
        return await finish(each, frame, path, outcome, before)
    return outcome


async def _cached(
    each: BaseStep, policy: CachePolicy, work: Work, frame: Frame, path: StepPath
) -> StepOutcome:
    before = frame.scope.tree
    outcome, cached = await answered(each, policy, frame, path, partial(work, frame, path))
    if cached and isinstance(outcome, Success):
        return await finish(each, frame, path, outcome, before)
    return outcome


async def _conditional(each: BaseStep, when: Logic, work: Work, frame: Frame, path: StepPath) -> StepOutcome:
    """Skip the step unless `when` is true; its decision has attempt 0, before the step's first one."""
    if await decide_flag(when, frame, path, what=f"`when` of step {each.name!r}", attempt=0):
        return await work(frame, path)
    if not frame.run.journal.attempts(path, EntryKind.DONE):
        now = frame.run.clock.now()
        frame.run.journal.append_deferred(
            Entry(
                path=path,
                kind=EntryKind.DONE,
                status=EntryStatus.SKIPPED,
                fingerprint=each.kind,
                started_at=now,
                ended_at=now,
            )
        )
    return Success(None, skipped=True)
