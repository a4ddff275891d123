"""`loop`: repeats its body until a condition is true."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, InitVar
from typing import ClassVar

from flujo.domain import values
from flujo.domain.arguments import Node, Takes, node, takes
from flujo.domain.pipeline import BaseStep, Body, Extent, In, Instead, OnLimit, Out, Pipeline, Shape, body
from flujo.domain.steps.arguments import OnFailing, instead
from flujo.domain.values import Limit, Limited, Logic, Logical, Value, Valued


@node
class Carry(Node):
    """A variable of a loop."""

    owner: ClassVar[str] = "`carry`: "

    initial: Takes[Valued, Value] = takes(values.value)
    """Its value before the first iteration."""
    next: Takes[Logical, Logic] = takes(values.logic)
    """Its value in the next iteration."""


@node
class LoopStep(BaseStep[In, Out]):
    """Repeats `body` until `until` is true, at most `max_iterations` times."""

    kind: ClassVar[str] = "loop"
    verb: ClassVar[str] = "repeats "
    shape: ClassVar[Shape] = "loop"

    body: Takes[Body, Pipeline] = takes(body)
    """The steps of one iteration."""
    _: KW_ONLY
    until: Takes[Logical | None, Logic] = takes(values.logic, default=None, spelled="exit_condition_callable")
    """Evaluated after each iteration, where the body's steps are visible; a callable gets `data`, the
    iteration's output, and `context`."""
    exit_condition_callable: InitVar[Logical | None] = None
    """An alias of `until`."""
    max_iterations: Takes[Limited, int | Limit] = takes(values.limit, default=10)
    """The maximum number of iterations; `{"value": "{{ … }}", "max": 100}` takes it from data."""
    on_limit: OnLimit = "fail"
    """Whether the step fails at that limit."""
    carry: Mapping[str, Carry] = takes(values.each(values.instance(Carry)), default_factory=dict)
    """Variables of the loop, read as `loop.NAME`."""
    output: Takes[Valued, Value] = takes(values.value, default=None)
    """The output, instead of the last iteration's output."""
    on_error: OnFailing = takes(instead, default="fail")
    """Whether a failure fails the step, is skipped, or is replaced by `{"output": …}`."""

    def summary(self) -> str:
        """Return the condition and the limit."""
        return f"until {self.until}, at most {self.max_iterations} times"

    def decides(self) -> str:
        """Return the condition that ends it."""
        return str(self.until)

    def limits(self) -> Iterator[str]:
        """Yield the number of iterations."""
        yield f"at most {self.max_iterations} times"

    def local_names(self) -> Mapping[str, Sequence[str]]:
        """Return the names of the carried variables."""
        return {"carry": tuple(self.carry)}

    @property
    def extent(self) -> Extent:
        """How many iterations there are."""
        return Extent(most=values.most(self.max_iterations))

    @property
    def instead(self) -> Instead:
        """That of `on_error`."""
        return self.on_error

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the body."""
        return {"steps": self.body}
