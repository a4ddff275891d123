"""Steps that decide what runs, and how often: conditions, loops, state machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from typing_extensions import Unpack

from flujo.domain import values
from flujo.domain.pipeline import Body, In, Out, Pipeline
from flujo.domain.pipeline import body as as_body  # `body` is also what constructors call an argument
from flujo.domain.steps.base import (
    NO_ITEMS,
    BaseStep,
    Common,
    OnLimit,
    put,
)
from flujo.domain.steps.making import ArgumentReader, set_fields
from flujo.domain.values import Logic, Logical, Value, Valued
from flujo.exceptions import PipelineError


@dataclass(frozen=True, kw_only=True, init=False)
class ConditionalStep(BaseStep[In, Out]):
    """Routing: `form` says whether `condition` is an `if` (branches `then`, `else`) or a `switch`."""

    condition: Logic
    form: Literal["if", "switch"]
    branches: Mapping[str, Pipeline]
    default: Pipeline | None
    output: Value

    kind: ClassVar[str] = "conditional"
    names_bodies: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        *,
        condition: Logical | None = None,
        condition_callable: Logical | None = None,
        then: Body | None = None,
        else_: Body | None = None,
        branches: Mapping[str, Body] = NO_ITEMS,
        default: Body | None = None,
        form: Literal["if", "switch"] | None = None,
        output: Valued = None,
        **common: Unpack[Common],
    ) -> None:
        """Take a condition with `then` and `else_`, or with `branches` and `default`.

        Args:
            name: an identifier.
            condition: true or false for `then` and `else_`; the name of a branch for `branches`.
            condition_callable: the same, as the manual says it.
            then: what is run when the condition holds.
            else_: what is run otherwise; without it, what came in goes on.
            branches: what is run, by the condition's value.
            default: what is run when there is no such branch; without it, that is an error.
            form: which of the two it is; it follows from the branches' names when it is not given.
            output: what comes out, instead of the branch's output.
            common: `when`, `save`, `cache`, `tags`, `config`.

        Raises:
            PipelineError: both forms are mixed, or an argument is of another kind.
        """
        at = ArgumentReader(name)
        ways = {**branches, **{key: way for key, way in (("then", then), ("else", else_)) if way is not None}}
        fits_if = default is None and ways.keys() <= {"then", "else"}
        if not fits_if and (form == "if" or then is not None or else_ is not None):
            raise PipelineError(
                f"step {name!r} mixes the two forms of a condition",
                hint="give `then` and `else_`, or `branches` and `default`",
            )
        set_fields(
            self,
            common,
            name=name,
            condition=values.logic(
                at.one_of(condition=condition, condition_callable=condition_callable), at("condition")
            ),
            form=form or ("if" if fits_if else "switch"),
            branches=at.bodies("branches", ways),
            default=None if default is None else as_body(default, at("default")),
            output=values.value(output, at("output")),
        )

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the branches, and `default` under its own name."""
        return {**self.branches, "default": self.default} if self.default else self.branches


@dataclass(frozen=True, slots=True, init=False)
class Carry:
    """A variable of a loop: its value before the first iteration, and the expression of the next one."""

    initial: Value
    next: Logic

    def __init__(self, initial: Valued, next: Logical) -> None:
        """Take the value before the first iteration, and how the next one follows."""
        put(
            self,
            initial=values.value(initial, "`carry`: `initial`"),
            next=values.logic(next, "`carry`: `next`"),
        )


@dataclass(frozen=True, kw_only=True, init=False)
class LoopStep(BaseStep[In, Out]):
    """Repeats `body` until `until` holds, at most `max_iterations` times."""

    body: Pipeline
    until: Logic
    max_iterations: int
    on_limit: OnLimit
    carry: Mapping[str, Carry]
    output: Value

    kind: ClassVar[str] = "loop"

    def __init__(
        self,
        name: str,
        body: Body,
        *,
        until: Logical | None = None,
        exit_condition_callable: Logical | None = None,
        max_iterations: int = 10,
        on_limit: OnLimit = "fail",
        carry: Mapping[str, Carry] = NO_ITEMS,
        output: Valued = None,
        **common: Unpack[Common],
    ) -> None:
        """Take what is repeated, and when that ends.

        Args:
            name: an identifier.
            body: the steps of one iteration.
            until: judged after each iteration, where the body's steps are visible; a callable gets `data`,
                the iteration's output, and `context`.
            exit_condition_callable: the same, as the manual says it.
            max_iterations: how many there are at most.
            on_limit: whether the step fails when there were so many.
            carry: variables of the loop, read as `loop.NAME`.
            output: what comes out, instead of the last iteration's output.
            common: `when`, `save`, `cache`, `tags`, `config`.

        Raises:
            PipelineError: there is no condition, or an argument is of another kind.
        """
        at = ArgumentReader(name)
        set_fields(
            self,
            common,
            name=name,
            body=as_body(body, at("body")),
            until=values.logic(
                at.one_of(until=until, exit_condition_callable=exit_condition_callable), at("until")
            ),
            max_iterations=at.count("max_iterations", max_iterations),
            on_limit=on_limit,
            carry=at.each("carry", carry, Carry),
            output=values.value(output, at("output")),
        )

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the body."""
        return {"steps": self.body}


@dataclass(frozen=True, slots=True, init=False)
class Transition:
    """An edge of a state machine; without `when` it is the `else`."""

    to: str
    when: Logic | None

    def __init__(self, to: str, when: Logical | None = None) -> None:
        """Take the state that it leads to, and when."""
        put(self, to=to, when=values.maybe_logic(when, f"transition to {to!r}: `when`"))


@dataclass(frozen=True, slots=True, init=False)
class State:
    """A state: its steps, and where it may go; none for a final state."""

    body: Pipeline
    transitions: tuple[Transition, ...]

    def __init__(self, body: Body = (), transitions: Sequence[Transition] = ()) -> None:
        """Take the state's steps and the ways out, of which the first that holds is taken."""
        put(self, body=as_body(body, "a state's `body`"), transitions=tuple(transitions))


@dataclass(frozen=True, kw_only=True, init=False)
class StateMachineStep(BaseStep[In, Out]):
    """Visits states from `initial` until one of `final` is left."""

    initial: str
    states: Mapping[str, State]
    final: tuple[str, ...]
    max_transitions: int
    output: Value

    kind: ClassVar[str] = "state_machine"
    names_bodies: ClassVar[bool] = True

    def __init__(
        self,
        name: str,
        *,
        initial: str,
        states: Mapping[str, State],
        final: Sequence[str],
        max_transitions: int = 50,
        output: Valued = None,
        **common: Unpack[Common],
    ) -> None:
        """Take the states, where it begins and where it ends.

        Args:
            name: an identifier.
            initial: the first state.
            states: each with its steps and transitions.
            final: the states after which it is over.
            max_transitions: how many there are at most.
            output: what comes out, instead of the output of the last step that ran.
            common: `when`, `save`, `cache`, `tags`, `config`.

        Raises:
            PipelineError: an argument is of another kind.
        """
        at = ArgumentReader(name)
        set_fields(
            self,
            common,
            name=name,
            initial=initial,
            states=at.each("states", states, State),
            final=at.texts("final", final),
            max_transitions=at.count("max_transitions", max_transitions),
            output=values.value(output, at("output")),
        )

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return each state's steps."""
        return {name: state.body for name, state in self.states.items()}
