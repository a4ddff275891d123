"""`import`: another blueprint as one step, with its own input and, unless it inherits, its own context."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.engine.scopes import run_apart

if TYPE_CHECKING:
    from flujo.domain.outcomes import StepOutcome
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
