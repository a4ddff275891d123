"""Checks a pipeline when a runner is built: its tree, and whether the annotations of its steps fit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flujo.agents.function import FunctionAgent, adapter
from flujo.blueprint.rules.schedules import violations
from flujo.domain import wording
from flujo.domain.agents import OneOf
from flujo.domain.checks import findings
from flujo.domain.migration_checks import migration_findings
from flujo.domain.paths import ROOT, StepPath, branch, child, shown
from flujo.domain.pipeline import Pipeline
from flujo.domain.schedule_checks import schedule_findings
from flujo.domain.steps import (
    PREVIOUS,
    CacheStep,
    ImportStep,
    LoopStep,
    MapStep,
    StateMachineStep,
    Step,
)
from flujo.exceptions import PipelineError
from flujo.services.checks.type_compatibility import fits, item, repr_short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from flujo.domain.agents import AgentSpec
    from flujo.domain.schedule_checks import ScheduleFinding
    from flujo.domain.schedules import Schedule
    from flujo.domain.steps import BaseStep, CallableRef


@dataclass(frozen=True)
class Flow:
    """A value between two steps: the step that produced it, and its annotation."""

    path: StepPath
    hint: Any

    @cached_property
    def _adapted(self) -> Callable[[Any], Any]:
        return adapter(self.hint)

    def load(self, output: Any) -> Any:
        """Return a run's output as an instance of the annotation: a model, a dataclass, a set.

        An output that does not fit is returned as recorded: a human's answer may replace it.
        """
        try:
            return self._adapted(output)
        except ValueError:  # pydantic's ValidationError
            return output


def checked_pipeline(pipeline: Any) -> Pipeline:
    """Return a pipeline that was passed to a runner.

    Raises:
        PipelineError: it is something else.
    """
    if isinstance(pipeline, Pipeline):
        return pipeline
    hint = "pass a `Pipeline`: `Step(…) >> Step(…)` makes one, and `read_blueprint(NAME)` reads one"
    raise PipelineError(f"`pipeline` is {wording.repr_short(pipeline)}, not a pipeline", hint=hint)


def check_pipeline(pipeline: Pipeline, *, is_pinned: bool = True) -> Flow | None:
    """Return the type of a pipeline's output, as far as annotations say.

    Args:
        pipeline: the tree.
        is_pinned: whether its runs pin its source; those of a pipeline in Python do not.

    Raises:
        PipelineError: the tree has an error, with the code that a blueprint gets for the same error; or the
            output of a step does not fit the input of the next.
    """
    for found in findings(pipeline):
        if not found.is_warning:
            raise PipelineError(found.message, hint=found.hint, code=found.code)
    for wrong in unfit_schedules(pipeline, pipeline.schedules):
        message = f"pipeline {pipeline.name!r}: {wrong.message}"
        raise PipelineError(message, hint=wrong.hint, code=wrong.code)
    for unfit in migration_findings(pipeline, is_pinned=is_pinned):
        message = f"pipeline {pipeline.name!r}: `migrations`: {unfit.message}"
        raise PipelineError(message, hint=unfit.hint, code=unfit.code)
    flow = _through(pipeline, ROOT, None)
    for name, body in pipeline.endings().items():
        _through(body, branch(ROOT, name), None)
    return flow if pipeline.output is None else None


def unfit_schedules(pipeline: Pipeline, schedules: Sequence[Schedule]) -> Iterator[ScheduleFinding]:
    """Yield what is wrong with schedules of a pipeline."""
    if schedules:
        yield from schedule_findings(
            schedules,
            pipeline.name,
            input_schema=pipeline.input_schema,
            context_schema=pipeline.context_schema,
            violations=violations,
        )


# Joints --------------------------------------------------------------------------------------------------


def _through(body: Pipeline, path: StepPath, came: Flow | None) -> Flow | None:
    """Return what a body gives when `came` flows in; None when that is not known."""
    for step in body.steps:
        gave = _flow(step, child(path, step.name), came)
        came = gave if step.when is None else None  # a skipped step passes its input on
    return came


def _flow(step: BaseStep, here: StepPath, came: Flow | None) -> Flow | None:
    """Judge a step and what is inside it, and return what it gives."""
    match step:
        case Step():
            return _asked(step, here, came)
        case CacheStep():
            return _flow(step.step, child(here, step.step.name), came)
        case ImportStep():
            gave = _through(step.pipeline, here, came if step.arguments is None else None)
            return gave if step.pipeline.output is None and step.on_failure == "fail" else None
        case LoopStep():
            gave = _through(step.body, here, came)
            _through(step.body, here, gave)  # what an iteration gives, the next one takes
            return gave if step.output is None and step.on_error == "fail" else None
        case MapStep():
            return _each(step, here, came)
        case StateMachineStep():
            for state in step.bodies().values():
                _through(state, here, None)
        case _:
            for name, body in step.bodies().items():
                _through(body, here, None if step.is_tool(name) else came)
    return None


def _asked(step: Step, here: StepPath, came: Flow | None) -> Flow | None:
    given_else = step.input is not None or step.arguments is not None or step.processors.input
    if step.fallback is not None:
        _asked(step.fallback, child(here, step.fallback.name), None if given_else else came)
    gave = _answered(step, here, None if given_else else came)
    return gave if step.fallback is None and not step.processors.output else None


def _answered(step: Step, here: StepPath, came: Flow | None) -> Flow | None:
    """Return what the step's own callable or agent gives."""
    if step.agent is not None:
        return None if step.output_schema is not None else _said(step.agent, here)
    callee = None if step.call is None else _function(step.call)
    if callee is None:
        return None
    if came is not None:
        _join(came, Flow(here, callee.takes))
    return None if callee.gives is Any else Flow(here, callee.gives)


def _said(agent: AgentSpec | OneOf, here: StepPath) -> Flow | None:
    """Return what an agent returns: an object of its class, or text when it has no output type."""
    if isinstance(agent, OneOf):
        return None
    if agent.output_type is None:
        return None if agent.output_schema is not None else Flow(here, str)
    return None if agent.output_type.live is None else Flow(here, agent.output_type.live)


def _each(step: MapStep, here: StepPath, came: Flow | None) -> Flow | None:
    """Judge a map's body; of an expression other than `previous`, the items are not known."""
    items = None
    if came is not None and step.over == PREVIOUS:
        if not fits(came.hint, list):
            raise _mismatch(came, here, "iterates over a list")
        items = Flow(came.path, item(came.hint))
    gave = _through(step.body, here, items)
    if step.output is not None:
        return None
    if step.keep == "none":
        return Flow(here, type(None))
    if gave is None or step.on_error == "collect" or step.keep == "failed":
        return None
    return Flow(here, list[gave.hint])  # type: ignore[name-defined]  # an annotation made at run time


def _join(gave: Flow, takes: Flow) -> None:
    if not fits(gave.hint, takes.hint):
        raise _mismatch(gave, takes.path, f"takes `{repr_short(takes.hint)}`")


def _mismatch(gave: Flow, path: StepPath, takes: str) -> PipelineError:
    return PipelineError(
        f"step {shown(gave.path)!r} returns `{repr_short(gave.hint)}`, but step {shown(path)!r} {takes}",
        hint="change one of the annotations, add a step between them, or set `input=`",
    )


def _function(ref: CallableRef) -> FunctionAgent | None:
    """Return how a live callable is called; None for one that is imported later, or answers by itself."""
    return None if ref.live is None or hasattr(ref.live, "ask") else FunctionAgent(ref.live)
