"""`import`: another blueprint as one step, with its own input and, unless it inherits, its own context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flujo.domain.outcomes import Failure, StepOutcome, Success
from flujo.engine.scopes import run_apart
from flujo.exceptions import CallInDoubt

if TYPE_CHECKING:
    from flujo.domain.paths import StepPath
    from flujo.domain.steps import ImportStep
    from flujo.engine.frame import Frame, RunBody


async def run(step: ImportStep, frame: Frame, path: StepPath, run_body: RunBody) -> StepOutcome:
    """Return the imported blueprint's output.

    Raises:
        OutputRejected: its input does not match its `input_schema`.
    """
    given = frame.previous
    if step.arguments is not None:
        given = {name: frame.render(value) for name, value in step.arguments.items()}
    what, inherits = f"input of import {step.name!r}", step.context == "inherit"
    return await run_apart(step.pipeline, given, frame, path, run_body, inherits=inherits, what=what)


def instead(step: ImportStep, frame: Frame, failure: Failure) -> StepOutcome:
    """Apply `on_failure` to an import that failed after its last attempt and leaves no call in doubt."""
    if step.on_failure == "fail" or failure.error.code == CallInDoubt.code:
        return failure
    return Success(_substitute(step, frame), facts={"failed": failure.error.as_value()})


def _substitute(step: ImportStep, frame: Frame) -> Any:
    if isinstance(step.on_failure, Mapping):
        return frame.render(step.on_failure["output"])
    return frame.previous
