"""`import`: another blueprint as one step, with its own input and, unless it inherits, its own context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.outcomes import Failure, StepOutcome, Success
from flujo.engine.context_isolation import ContextScope
from flujo.engine.frame import Frame
from flujo.exceptions import CallInDoubt

if TYPE_CHECKING:
    from flujo.domain.paths import StepPath
    from flujo.domain.steps import ImportStep
    from flujo.engine.frame import RunBody


async def run(step: ImportStep, frame: Frame, path: StepPath, run_body: RunBody) -> StepOutcome:
    """Return the imported blueprint's output.

    Raises:
        OutputRejected: its input does not match its `input_schema`.
    """
    given = frame.previous
    if step.arguments is not None:
        given = {name: frame.render(value) for name, value in step.arguments.items()}
    given = canonical.normalise(given, what=f"input of import {step.name!r}")
    if step.pipeline.input_schema is not None:
        schema = frame.run.binding.schema(step.pipeline.input_schema)
        given = schema.check(given, what=f"input of import {step.name!r}")
    inner = Frame(
        frame.run,
        await _scope(step, frame, path),
        input=given,
        previous=given,
        path=path,
        since=frame.since,
        limits=frame.limits,
        budget=frame.budget,
        place=frame.place,
        is_listed=frame.is_listed,
    )
    return await run_body(step.pipeline, inner)


async def _scope(step: ImportStep, frame: Frame, path: StepPath) -> ContextScope:
    """Return the context of the imported steps: this one, or a new one of their blueprint."""
    if step.context == "inherit":
        return frame.scope
    own = frame.run.binding.context(step.pipeline)
    return ContextScope(own, await frame.call(path, own.start({})))


def instead(step: ImportStep, frame: Frame, failure: Failure) -> StepOutcome:
    """Apply `on_failure` to an import that failed after its last attempt and leaves no call in doubt."""
    if step.on_failure == "fail" or failure.error.code == CallInDoubt.code:
        return failure
    return Success(_substitute(step, frame), facts={"failed": failure.error.to_json()})


def _substitute(step: ImportStep, frame: Frame) -> Any:
    if isinstance(step.on_failure, Mapping):
        return frame.render(step.on_failure["output"])
    return frame.previous
