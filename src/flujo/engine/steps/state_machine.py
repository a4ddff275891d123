"""`state_machine`: visits states along guarded transitions, from `initial` to one of `final`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.journal import EntryKind
from flujo.domain.outcomes import StepOutcome, Success
from flujo.domain.paths import branch, child, indexed
from flujo.engine.decisions import decide_flag
from flujo.engine.journal import success
from flujo.exceptions import JournalConflict, NoTransition, TransitionLimitReached

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.paths import StepPath
    from flujo.domain.steps import StateMachineStep
    from flujo.engine.frame import Frame, RunBody

Scope = dict[str, dict[str, Any]]

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
    passed: dict[str, StepPath] = {}
    steps: Scope = {}
    name, previous = step.initial, frame.previous
    for _ in range(step.max_transitions + 1):
        state = step.states[name]
        here = indexed(branch(path, name), visits[name])
        await frame.run.journal.load_level(branch(path, name))
        finished = frame.recorded(here, step.kind)
        if finished is None:
            await _restore(step, frame, steps, passed)
            before = frame.scope.tree
            inner = replace(frame.inside(here, previous=previous), steps=steps)
            outcome = await run_body(state.body, inner)
            if not isinstance(outcome, Success):
                return outcome
            facts = await _facts(step, name, inner, here, outcome.output)
            inner.append_done(here, step.kind, canonical.encode(outcome.output), before, facts)
            finished = Success(outcome.output, facts=facts)
        else:
            passed.pop(name, None)
            passed[name] = here
        visits[name] += 1
        previous, to = finished.output, finished.facts["to"]
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


async def _facts(
    step: StateMachineStep, name: str, inner: Frame, here: StepPath, output: Any
) -> Mapping[str, Any]:
    """Return the next state after a visit, or the output when there is none."""
    inner.previous = output
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


async def _restore(step: StateMachineStep, frame: Frame, steps: Scope, passed: dict[str, StepPath]) -> None:
    """Make the steps of completed visits visible from the journal: for each state, of its latest visit."""
    journal = frame.run.journal
    for name, here in passed.items():
        await journal.load_level(here)
        for each in step.states[name].body.steps:
            entry = journal.result(child(here, each.name), each.kind)
            if entry is None:
                steps[each.name] = {"output": None, "skipped": True}
            else:
                came_out = success(entry)
                steps[each.name] = {"output": came_out.output, **came_out.facts}
    passed.clear()
