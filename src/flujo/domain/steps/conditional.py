"""`conditional`: a condition chooses which branch runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, InitVar
from typing import Any, ClassVar, Literal

from flujo.domain import values
from flujo.domain.arguments import Takes, node, takes
from flujo.domain.pipeline import BaseStep, Body, In, Out, Pipeline, Shape, body
from flujo.domain.steps.arguments import bodies
from flujo.domain.values import Logic, Logical, Value, Valued
from flujo.exceptions import PipelineError

Form = Literal["if", "switch"]


@node
class ConditionalStep(BaseStep[In, Out]):
    """Routing: `then` and `else_` by a condition, or `branches` and `default` by a value."""

    kind: ClassVar[str] = "conditional"
    names_bodies: ClassVar[bool] = True
    verb: ClassVar[str] = "chooses "
    shape: ClassVar[Shape] = "choice"

    _: KW_ONLY
    condition: Takes[Logical | None, Logic] = takes(values.logic, default=None, spelled="condition_callable")
    """True or false for `then` and `else_`; the name of a branch for `branches`."""
    condition_callable: InitVar[Logical | None] = None
    """The same argument under the name of the manual."""
    then: InitVar[Body | None] = None
    """What runs when the condition holds."""
    else_: InitVar[Body | None] = None
    """What runs otherwise; without it, the input of the step is its output."""
    branches: Takes[Mapping[str, Body], Mapping[str, Pipeline]] = takes(bodies, default_factory=dict)
    """What runs, by the condition's value; `then` and `else` for an `if`."""
    default: Takes[Body | None, Pipeline | None] = takes(body, default=None)
    """What runs when there is no such branch; without it, that is an error."""
    form: Takes[Form | None, Form] = None  # type: ignore[assignment]  # follows from the branches
    """Which of the two it is; it follows from the branches' names when it is not given."""
    output: Takes[Valued, Value] = takes(values.value, default=None)
    """What comes out, instead of the branch's output."""

    def _adapt(self, arguments: dict[str, Any]) -> None:
        """Put `then` and `else_` among the branches, and tell the two forms apart."""
        ways = {
            key: way
            for key, way in (("then", arguments["then"]), ("else", arguments["else_"]))
            if way is not None
        }
        branches = {**arguments["branches"], **ways}
        fits_if = arguments["default"] is None and branches.keys() <= {"then", "else"}
        if not fits_if and (arguments["form"] == "if" or ways):
            raise PipelineError(
                f"step {arguments['name']!r} mixes the two forms of a condition",
                hint="give `then` and `else_`, or `branches` and `default`",
            )
        arguments["branches"] = branches
        arguments["form"] = arguments["form"] or ("if" if fits_if else "switch")

    def summary(self) -> str:
        """Return what decides."""
        return f"{'if' if self.form == 'if' else 'by'} {self.condition}"

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the branches, and `default` under its own name."""
        return {**self.branches, "default": self.default} if self.default else self.branches
