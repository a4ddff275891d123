"""`conditional`: chooses one branch, by `if` or by `switch`, and runs it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from flujo.domain.outcomes import StepOutcome, Success
from flujo.domain.paths import branch
from flujo.engine.decisions import decide, decide_flag
from flujo.exceptions import NoBranch

if TYPE_CHECKING:
    from flujo.domain.paths import StepPath
    from flujo.domain.steps import ConditionalStep
    from flujo.engine.frame import Frame, RunBody


async def run(step: ConditionalStep, frame: Frame, path: StepPath, run_body: RunBody) -> StepOutcome:
    """Return the outcome of the chosen branch.

    Raises:
        NoBranch: a `switch` has no branch for its value and no `default`.
        ExpressionFailed: an `if` is neither true nor false.
    """
    if step.form == "if":
        value = await decide_flag(step.condition, frame, path, what=f"`if` of step {step.name!r}")
    else:
        value = await decide(step.condition, frame, path, check=partial(_branch_of, step))
    name = _branch_of(step, value)
    body = step.branches.get(name, step.default)
    if body is None:
        return Success(frame.previous)
    inner = frame.inside(branch(path, name), previous=frame.previous)
    outcome = await run_body(body, inner)
    if isinstance(outcome, Success) and step.output is not None:
        return Success(inner.render(step.output))
    return outcome


def _branch_of(step: ConditionalStep, value: Any) -> str:
    name = step.chosen(value)
    if name is None:
        raise NoBranch(
            f"`switch` of step {step.name!r} is {value!r}, and there is no such branch and no `default`; "
            f"the branches are {', '.join(step.branches)}",
            value=value,
        )
    return name
