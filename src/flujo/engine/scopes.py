"""A pipeline in a scope of its own: an imported blueprint, or a blueprint as a tool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.outcomes import Ended, Success
from flujo.engine.context_isolation import ContextScope
from flujo.engine.frame import Frame
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.pipeline import Pipeline
    from flujo.engine.frame import RunBody


async def run_apart(
    pipeline: Pipeline,
    given: Any,
    frame: Frame,
    path: StepPath,
    run_body: RunBody,
    *,
    inherits: bool = False,
    what: str,
) -> StepOutcome:
    """Return the output of a pipeline whose steps see its input and its own context, or an inherited one.

    Args:
        pipeline: the pipeline.
        given: its input.
        frame: the frame around it.
        path: the path that its steps are below.
        run_body: runs the steps.
        inherits: whether its steps use the context of `frame`.
        what: the name of the input in errors.

    Raises:
        OutputRejected: the input does not match `input_schema`.
    """
    given = canonical.normalise(given, what=what)
    if pipeline.input_schema is not None:
        given = frame.run.binding.schema(pipeline.input_schema).check(given, what=what)
    declared = pipeline.input_pii
    given = GATE.entering_fields(given, declared)
    inner = Frame(
        frame.run,
        frame.scope if inherits else await _own_scope(pipeline, frame, path),
        input=given,
        previous=given,
        path=path,
        since=frame.since,
        limits=frame.limits,
        budget=frame.budget,
        place=frame.place,
        is_listed=frame.is_listed,
        input_pii=declared,
    )
    outcome = await run_body(pipeline, inner)
    return Success(outcome.output) if isinstance(outcome, Ended) else outcome


async def _own_scope(pipeline: Pipeline, frame: Frame, path: StepPath) -> ContextScope:
    own = frame.run.binding.context(pipeline)
    return ContextScope(own, await frame.call(path, own.start({})))
