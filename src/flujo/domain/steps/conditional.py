"""`conditional`: a condition chooses which branch runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, InitVar
from typing import Any, ClassVar, Literal

from flujo.domain import values
from flujo.domain.arguments import Takes, node, takes
from flujo.domain.pipeline import BaseStep, Body, Extent, In, Instead, Out, Pipeline, Shape, body
from flujo.domain.steps.arguments import OnFailing, bodies, instead
from flujo.domain.values import Logic, Logical, Value, Valued
from flujo.exceptions import PipelineError

Form = Literal["if", "switch"]


def value_text(value: Any) -> str:
    """Return the name of the branch that a value of a `switch` means."""
    return str(value).lower() if isinstance(value, bool) else str(value)


@node
class ConditionalStep(BaseStep[In, Out]):
    """Runs `then` or `else_` by a condition, or one of `branches` or `default` by a value."""

    kind: ClassVar[str] = "conditional"
    names_bodies: ClassVar[bool] = True
    verb: ClassVar[str] = "chooses "
    shape: ClassVar[Shape] = "choice"

    _: KW_ONLY
    condition: Takes[Logical | None, Logic] = takes(values.logic, default=None, spelled="condition_callable")
    """True or false for `then` and `else_`; the name of a branch for `branches`."""
    condition_callable: InitVar[Logical | None] = None
    """An alias of `condition`."""
    then: InitVar[Body | None] = None
    """The steps that run when the condition is true."""
    else_: InitVar[Body | None] = None
    """The steps that run otherwise; without it, the step outputs its input."""
    branches: Takes[Mapping[str, Body], Mapping[str, Pipeline]] = takes(bodies, default_factory=dict)
    """The branches by the condition's value; `then` and `else` for an `if`."""
    default: Takes[Body | None, Pipeline | None] = takes(body, default=None)
    """The steps that run for any other value; without it, another value is an error."""
    form: Takes[Form | None, Form] = None  # type: ignore[assignment]  # follows from the branches
    """Whether it is an `if` or a `switch`; by default determined by the names of the branches."""
    output: Takes[Valued, Value] = takes(values.value, default=None)
    """The output, instead of the branch's output."""
    on_error: OnFailing = takes(instead, default="fail")
    """Whether a failure fails the step, is skipped, or is replaced by `{"output": …}`."""

    def _adapt(self, arguments: dict[str, Any]) -> None:
        """Move `then` and `else_` into the branches, and determine the form."""
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
                hint="use `then` and `else_`, or `branches` and `default`",
            )
        if arguments["default"] is not None and "default" in branches:
            raise PipelineError(
                f"step {arguments['name']!r} has a branch 'default' and `default`, which would have the same "
                "paths",
                hint="rename the branch, or leave `default` out",
            )
        arguments["branches"] = branches
        arguments["form"] = arguments["form"] or ("if" if fits_if else "switch")

    def chosen(self, value: Any) -> str | None:
        """Return the name of the branch for a value of the condition; None without a branch and a `default`.

        An `else` that is left out is named as well.
        """
        if self.form == "if":
            return "then" if value else "else"
        name = value_text(value)
        return name if name in self.branches else None if self.default is None else "default"

    def summary(self) -> str:
        """Return the condition."""
        return f"{'if' if self.form == 'if' else 'by'} {self.condition}"

    @property
    def extent(self) -> Extent:
        """One branch, or none where no branch is for other values."""
        return Extent(way="one", least=int(self.default is not None))

    @property
    def instead(self) -> Instead:
        """That of `on_error`."""
        return self.on_error

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the branches, including `default`."""
        return {**self.branches, "default": self.default} if self.default else self.branches
