"""`state_machine`: visits states until a final one has been executed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY
from typing import ClassVar

from flujo.domain import values
from flujo.domain.arguments import Node, Takes, node, takes
from flujo.domain.pipeline import BaseStep, Body, Extent, Flow, In, Out, Pipeline, Shape, body
from flujo.domain.values import Logic, Logical, Value, Valued


@node
class Transition(Node):
    """A transition to another state; without `when` it is always taken."""

    owner: ClassVar[str] = "transition to {to!r}: "

    to: str
    """The next state."""
    when: Takes[Logical | None, Logic | None] = takes(values.logic, default=None)
    """The condition of the transition."""


def _transitions(given: Sequence[Transition], _where: str) -> tuple[Transition, ...]:
    return tuple(given)


@node
class State(Node):
    """A state: its steps and transitions; a final state has no transitions."""

    owner: ClassVar[str] = "a state's "

    body: Takes[Body, Pipeline] = takes(body, default=())
    """The state's steps."""
    transitions: Takes[Sequence[Transition], tuple[Transition, ...]] = takes(_transitions, default=())
    """The transitions; the first with a true condition is taken."""
    on_error: str | None = None
    """The next state when a step of this one fails, instead of that of the machine."""


def after_errors(states: Mapping[str, str | None], machine: str | None) -> Mapping[str, str]:
    """Return the state after a failure of each state, by its `on_error` and that of the machine."""
    usual = {name: own or (None if name == machine else machine) for name, own in states.items()}
    return {name: to for name, to in usual.items() if to is not None}


@node
class StateMachineStep(BaseStep[In, Out]):
    """Visits states from `initial` until one of `final` has been executed."""

    kind: ClassVar[str] = "state_machine"
    names_bodies: ClassVar[bool] = True
    verb: ClassVar[str] = "goes "
    shape: ClassVar[Shape] = "states"

    _: KW_ONLY
    initial: str
    """The first state."""
    states: Mapping[str, State] = takes(values.each(values.instance(State)))
    """The states by name, with their steps and transitions."""
    final: Takes[Sequence[str], tuple[str, ...]] = takes(values.texts)
    """The states that end the machine."""
    max_transitions: int = takes(values.count, default=50)
    """The maximum number of transitions."""
    on_error: str | None = None
    """The next state when a step of a state fails, except of that state itself."""
    output: Takes[Valued, Value] = takes(values.value, default=None)
    """The output, instead of that of the last executed step."""

    def summary(self) -> str:
        """Return the first and the final states."""
        return f"from {self.initial} to {' or '.join(self.final)}"

    def limits(self) -> Iterator[str]:
        """Yield the number of transitions."""
        yield f"at most {self.max_transitions} transitions"

    @property
    def extent(self) -> Extent:
        """A state for each transition, and the first one."""
        return Extent(way="one", least=0, most=self.max_transitions + 1)

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return each state's steps."""
        return {name: state.body for name, state in self.states.items()}

    def flow(self) -> Flow:
        """Return the transitions."""
        ways = {name: [(way.to, way.when) for way in each.transitions] for name, each in self.states.items()}
        return Flow(self.initial, ways, self.final, self.failures())

    def failures(self) -> Mapping[str, str]:
        """Return for each state the one that follows when a step of it fails; some have none."""
        return after_errors({name: state.on_error for name, state in self.states.items()}, self.on_error)
