"""What a schema cannot say of a state machine: its states exist, are reached, and lead to an end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import Severity, one_of, rule, suggest
from flujo.blueprint.language import models as doc
from flujo.domain.state_graph import Graph

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.scopes import Visit
    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.language.traversal import Path

_HEAD = "kind: state_machine\nname: review\ninitial: draft\nfinal: [done]\nstates:\n"
UNKNOWN_STATE = rule(
    "FLJ231",
    "unknown-state",
    "A state machine names a state that it does not have",
    finds="An `initial`, a `to` or an entry of `final` that is no key of `states:`.",
    why="The machine would have nowhere to go, after the states before it have been paid for.",
    example=_HEAD + "  draft: {transitions: [{to: dnoe}]}\n  done: {}",
    instead=_HEAD + "  draft: {transitions: [{to: done}]}\n  done: {}",
)
UNREACHED_STATE = rule(
    "FLJ232",
    "unreached-state",
    "A state that no way leads to",
    finds="A state that cannot be come to from `initial` along the transitions.",
    why="Its steps never run; often a transition goes to another state by mistake.",
    example=_HEAD + "  draft: {transitions: [{to: done}]}\n  edit: {transitions: [{to: done}]}\n  done: {}",
    instead=_HEAD + "  draft: {transitions: [{to: edit}]}\n  edit: {transitions: [{to: done}]}\n  done: {}",
)
DEAD_END = rule(
    "FLJ233",
    "dead-end",
    "A state machine that cannot come to its end",
    finds="A state that is not in `final` and has no transitions, or a machine in which no way leads from "
    "`initial` to a final state.",
    why="The run would fail in that state, or go in circles until `max_transitions`.",
    example=_HEAD + "  draft: {steps: [{name: write, agent: a}]}\n  done: {}",
    instead=_HEAD + "  draft: {steps: [{name: write, agent: a}], transitions: [{to: done}]}\n  done: {}",
)
NEVER_TAKEN = rule(
    "FLJ234",
    "transition-never-taken",
    "A transition that is never taken",
    finds="A transition after one without `when`, or one of a final state.",
    why="The first transition that holds wins, and one without `when` always holds; a final state ends the "
    "machine.",
    example="transitions:\n  - {to: done}\n  - {to: edit, when: '!steps.check.output.ok'}",
    instead="transitions:\n  - {to: edit, when: '!steps.check.output.ok'}\n  - {to: done}",
)


def state_machine(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Yield everything that is wrong with the states and transitions of a machine."""
    if not isinstance(visit.step, doc.StateMachineStep):
        return
    unknown = list(_unknown_states(unit, visit.path, visit.step))
    yield from unknown
    for name in visit.step.states:
        yield from _never_taken(unit, visit.path, visit.step, name)
    if not unknown:  # with a state missing nobody can say what is reached
        yield from _ends(unit, visit.path, visit.step)


def _unknown_states(unit: Unit, path: Path, step: doc.StateMachineStep) -> Iterator[Diagnostic]:
    named: list[tuple[str, Path]] = [(step.initial, ("initial",))]
    named += [(name, ("final", index)) for index, name in enumerate(step.final)]
    named += [
        (transition.to, ("states", name, "transitions", index, "to"))
        for name, state in step.states.items()
        for index, transition in enumerate(state.transitions)
    ]
    for name, where in named:
        if name not in step.states:
            yield UNKNOWN_STATE.at(
                unit.span(*path, *where),
                f"state machine {step.name!r} has no state {name!r}",
                hint=suggest(name, step.states, what="its states are"),
            )


def _never_taken(unit: Unit, path: Path, step: doc.StateMachineStep, name: str) -> Iterator[Diagnostic]:
    transitions = step.states[name].transitions
    always = next((index for index, one in enumerate(transitions) if one.when is None), len(transitions))
    first = 0 if name in step.final else always + 1
    if first >= len(transitions):
        return
    where = (*path, "states", name, "transitions")
    final = "a final state ends the machine" if name in step.final else "the one before it always holds"
    yield NEVER_TAKEN.at(
        unit.span(*where, first, "to"),
        f"this transition of state {name!r} is never taken: {final}",
        hint=f"take {name!r} out of `final`, or the transition out"
        if name in step.final
        else "move the transition without `when` to the end",
        severity=Severity.WARNING,
    )


def _ends(unit: Unit, path: Path, step: doc.StateMachineStep) -> Iterator[Diagnostic]:
    reached = Graph(step).reached
    stuck = [name for name, state in step.states.items() if name not in step.final and not state.transitions]
    for name in stuck:
        yield DEAD_END.at(
            unit.span(*path, "states", name, key=True),
            f"state {name!r} is not final, and no transition leads out of it",
            hint=f"give it `transitions: [{{to: …}}]`, or put it into `final: [{', '.join(step.final)}]`",
        )
    if stuck:
        return
    if not any(name in reached for name in step.final):
        yield DEAD_END.at(
            unit.span(*path, "final"),
            f"no way leads from {step.initial!r} to {one_of(step.final)}",
            hint="add the transition that ends the machine",
        )
        return
    for name in step.states:
        if name not in reached:
            yield UNREACHED_STATE.at(
                unit.span(*path, "states", name, key=True),
                f"no way leads from {step.initial!r} to state {name!r}",
                hint="add a transition to it, or take it out",
                severity=Severity.WARNING,
            )
