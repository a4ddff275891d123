"""`state_machine`: visits states along guarded transitions, from `initial` to one of `final`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.journal import EntryKind
from flujo.domain.outcomes import Failure, StepOutcome, Success
from flujo.domain.paths import branch, child, indexed
from flujo.engine.decisions import decide_flag
from flujo.engine.fallback import NOT_TAKEN_OVER
from flujo.engine.journal import success
from flujo.engine.limits import breach_of
from flujo.exceptions import JournalConflict, NoTransition, TransitionLimitReached

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.paths import StepPath
    from flujo.domain.steps import StateMachineStep
    from flujo.engine.frame import Frame, RunBody

Scope = dict[str, dict[str, Any]]
Visit = tuple["StepPath", bool]
"""The path of a visit, and whether a step of it failed."""

ROUND = 1000
"""The distance between the numbers of a visit's decisions when its transitions are evaluated again."""


async def run(step: StateMachineStep, frame: Frame, path: StepPath, run_body: RunBody) -> StepOutcome:
    """Return the output of the final state, or the value of `output` in the states' common scope.

    A completed visit is one entry with the next state. So a resumed machine continues at the interrupted
    visit, and reads of the others only the values that the common scope needs.

    Raises:
        NoTransition: no transition of a state leads to a state.
        JournalConflict: the recorded next state is not a state any more.
        TransitionLimitReached: `max_transitions` is reached before a final state.
    """
    visits = dict.fromkeys(step.states, 0)
    passed: dict[str, Visit] = {}
    steps: Scope = {}
    name, previous = step.initial, frame.previous
    error: Any = None
    for _ in range(step.max_transitions + 1):
        here = indexed(branch(path, name), visits[name])
        await frame.run.journal.load_level(branch(path, name))
        finished = frame.recorded(here, step.kind)
        if finished is None:
            await _restore(step, frame, steps, passed)
            names = {"error": error} if step.failures() else None
            inner = replace(frame.inside(here, previous=previous, names=names), steps=steps)
            outcome = await _visited(step, name, frame, inner, run_body)
            if not isinstance(outcome, Success):
                return outcome
            finished = outcome
        else:
            passed.pop(name, None)
            passed[name] = (here, "error" in finished.facts)
        visits[name] += 1
        previous, to, error = finished.output, finished.facts["to"], finished.facts.get("error")
        if to is None:
            return Success(finished.facts.get("output", previous))
        if to not in step.states:
            raise JournalConflict(
                f"the state after `{here}` is recorded as `{to}`, and there is no such state any more",
                hint="restore the state, or name its new one in `migrations`",
                path=here,
                recorded=to,
                now=[*step.states],
            )
        name = to
    raise TransitionLimitReached(
        f"state machine {step.name!r} made {step.max_transitions} transitions without reaching a final state",
        limit=step.max_transitions,
    )


async def _visited(
    step: StateMachineStep, name: str, frame: Frame, inner: Frame, run_body: RunBody
) -> StepOutcome:
    """Run the steps of a state, and record its visit with the next state and the error that leads there."""
    before, given, earlier = frame.scope.tree, inner.previous, dict(inner.steps)
    outcome = await run_body(step.states[name].body, inner)
    to = step.failures().get(name)
    if isinstance(outcome, Failure) and to is not None and _is_taken_over(outcome, frame):
        frame.run.journal.void_below(inner.path)
        frame.scope.tree = before  # drop the writes of the failed visit
        for each in step.states[name].body.steps:
            known = inner.steps.get(each.name)
            if known is not None and (known is earlier.get(each.name) or known.get("skipped")):
                del inner.steps[each.name]  # as `_restore` does
        outcome = Success(given, facts={"to": to, "error": outcome.error.as_value()})
    elif isinstance(outcome, Success):
        outcome = Success(outcome.output, facts=await _facts(step, name, inner, outcome.output))
    if isinstance(outcome, Success):
        output = canonical.encode(outcome.output)
        inner.append_done(inner.path, step.kind, output, before, outcome.facts)
    return outcome


def _is_taken_over(failure: Failure, frame: Frame) -> bool:
    """Return whether another state may follow a failure: not when the budget is used up, or in doubt."""
    is_within = frame.budget is None or breach_of(frame.budget) is None
    return is_within and failure.error.code not in NOT_TAKEN_OVER


async def _facts(step: StateMachineStep, name: str, inner: Frame, output: Any) -> Mapping[str, Any]:
    """Return the next state after a visit, or the output when there is none."""
    inner.previous, here = output, inner.path
    if name in step.final:
        return {"to": None} if step.output is None else {"to": None, "output": inner.render(step.output)}
    first = _round(inner, here) * ROUND + 1
    for number, transition in enumerate(step.states[name].transitions):
        what = f"`when` of transition {number + 1} of state {name!r}"
        if transition.when is None or await decide_flag(
            transition.when, inner, here, what=what, attempt=first + number
        ):
            return {"to": transition.to}
    raise NoTransition(
        f"no transition of state {name!r} in state machine {step.name!r} applies, and the state is not final",
        state=name,
    )


def _round(inner: Frame, here: StepPath) -> int:
    """Return how often all transitions of a visit were false: a retry evaluates them again."""
    answers = inner.run.journal.attempts(here, EntryKind.DECISION)
    if not answers:
        return 0
    latest = answers[-1].attempt // ROUND
    in_vain = all(entry.output == b"false" for entry in answers if entry.attempt // ROUND == latest)
    return latest + 1 if in_vain and inner.run.retry_failed else latest


async def _restore(step: StateMachineStep, frame: Frame, steps: Scope, passed: dict[str, Visit]) -> None:
    """Make the steps of recorded visits visible from the journal: for each state, of its latest visit."""
    journal = frame.run.journal
    for name, (here, has_failed) in passed.items():
        await journal.load_level(here)
        for each in step.states[name].body.steps:
            entry = journal.result(child(here, each.name), each.kind)
            if entry is None and has_failed:
                steps.pop(each.name, None)
            elif entry is None:
                steps[each.name] = {"output": None, "skipped": True}
            else:
                came_out = success(entry)
                steps[each.name] = {"output": came_out.output, **came_out.facts}
    passed.clear()
