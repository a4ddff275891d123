"""`execution_mode: background`: a step launches a task, and the run continues.

The task is a run of its own, which executes the one step. It gets the values that the step can read, because
the run continues meanwhile, and a copy of the context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, cast

from flujo.domain.events import StepStarted
from flujo.domain.paths import ROOT, StepPath, branch, child
from flujo.domain.pipeline import BaseStep, Pipeline
from flujo.domain.steps.map import PREVIOUS
from flujo.domain.values import Expr, Text
from flujo.engine.attempt import Attempt
from flujo.engine.attempts import settle
from flujo.engine.journal import encoded
from flujo.exceptions import FlujoError, StepFailed

if TYPE_CHECKING:
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.queues import Queued
    from flujo.domain.usage import Usage
    from flujo.engine.frame import Frame

_OF_RUN = ("context", "run", "output")
"""Names that a task has itself, or that only exist inside a step."""


async def launched(step: BaseStep, frame: Frame, path: StepPath) -> StepOutcome:
    """Launch the step as a task, with the entry whose output is the task's id."""
    run = frame.run
    if run.launches is None:
        raise StepFailed(f"step {step.name!r} cannot be launched here", hint="remove `execution_mode`")
    await run.journal.require_lease()
    await frame.tell(StepStarted(path, step.kind))
    given = encoded(scope_of(step, frame), f"what step {step.name!r} reads")
    context = encoded(frame.scope.tree, "context")
    queued = _place(step, frame, run.launches.place)
    held = await lent(step, frame, path)
    recorded = run.journal.stored_path(path)
    child = run.launches.child(
        run.id, path, recorded=recorded, given=given, context=context, queued=queued, lent=held
    )
    attempt = Attempt(step, frame, path, started_at=run.clock.now(), child=child)
    attempt.output = {"task_id": child.run.run_id}
    if run.recorded is not None and (known := run.recorded.launched(path)) is not None:
        attempt.output = known
    try:
        return await settle(attempt)
    except FlujoError:
        if frame.budget is not None and not attempt.is_settled:
            frame.budget.take_back(path)
        raise


def _place(step: BaseStep, frame: Frame, place: Callable[[str, int, bytes], Queued] | None) -> Queued | None:
    """Return the task's place in the queue of the step; None when this process executes it."""
    config = step.config
    if config.queue is None or place is None:
        return None
    arguments, given = getattr(step, "arguments", None), getattr(step, "input", None)
    value = frame.previous if given is None else frame.render(given)
    if arguments is not None:
        value = {name: frame.render(each) for name, each in arguments.items()}
    return place(config.queue, config.priority, encoded(value, f"the input of step {step.name!r}"))


async def lent(step: BaseStep, frame: Frame, path: StepPath) -> Usage | None:
    """Hold the budget of the task in that of the run; return it, or None when the run has no limits.

    Raises:
        UsageLimitExceeded: a limit has no room for it; nothing is held.
    """
    if frame.budget is None or step.config.budget is None:
        return None
    most = step.config.budget.most
    await frame.budget.count_ended_tasks(most)
    frame.budget.lend(path, most)
    return most


def scope_of(step: BaseStep, frame: Frame, *, narrow: bool = False) -> dict[str, Any]:
    """Return the values of the frame that a step and the steps inside it read: the input of a task.

    `previous` is always there; `input`, `steps` and `names` are when they are read. With `narrow`, `input`
    has only the fields that are read, if only fields of it are.
    """
    given: dict[str, Any] = {"previous": frame.previous}
    fields: set[str] = set()
    for text in _texts(step):
        for root, *rest in frame.run.binding.evaluator(text).reads:
            if root == "input" and narrow and rest and isinstance(frame.input, dict):
                fields.add(rest[0])
            elif root == "input":
                given["input"] = frame.input
            elif root == "steps" and rest:
                _take(given.setdefault("steps", {}), rest[0], frame, "steps", rest[0])
            elif root not in (*_OF_RUN, "previous", "steps"):
                _take(given.setdefault("names", {}), root, frame, root)
    if fields and "input" not in given:
        given["input"] = {name: frame.input[name] for name in sorted(fields & frame.input.keys())}
    return given


def _take(into: dict[str, Any], name: str, frame: Frame, *chain: str) -> None:
    try:
        into[name] = frame.lookup(chain)
    except KeyError:
        return  # a name inside the step, or a step that has not run: the task finds no value either


def _texts(part: Any) -> Iterator[Expr | Text]:
    """Yield the expressions and texts in a part of the tree, except those of imported pipelines."""
    match part:
        case Expr() | Text():
            yield part
        case Mapping():
            for item in part.values():
                yield from _texts(item)
        case tuple():
            for item in part:
                yield from _texts(item)
        case BaseStep() if part.imported is not None:
            imported = part.imported.pipeline
            for each in fields(part):
                value = getattr(part, each.name)
                yield from () if value is imported else _texts(value)
        case _ if is_dataclass(part):
            for each in fields(part):
                yield from _texts(getattr(part, each.name))
        case _:
            return  # names, numbers, schemas


# The other side: the pipeline of a task -------------------------------------------------------------------


def pipeline_of(pipeline: Pipeline, entry: str) -> tuple[Pipeline, Pipeline] | None:
    """Return the pipeline of a task or a batch, and that whose context it has; None without such a step.

    Args:
        pipeline: that of the closure.
        entry: the path of the task's step in it.
    """
    for path, step, owner in _walk(pipeline, ROOT, pipeline):
        if path == entry and step.config.is_spread:
            return Pipeline((batch_step(step),), name=pipeline.name, budget=step.config.budget), owner
        if path == entry:
            of_task = replace(step.config, execution_mode="sync", queue=None, priority=0, budget=None)
            one = replace(step, config=of_task, when=None, save={})
            return Pipeline((one,), name=pipeline.name, budget=step.config.budget), owner
    return None


def batch_step(step: BaseStep) -> BaseStep:
    """Return the map that the run of a batch executes: its items are `previous`, one after another."""
    of_batch = replace(step.config, executor=None, batch_size=None, queue=None, priority=0, budget=None)
    return replace(
        cast("Any", step),
        config=of_batch,
        when=None,
        save={},
        cache=None,
        over=PREVIOUS,
        max_concurrency=1,
        output=None,
    )


def _walk(body: Pipeline, path: StepPath, owner: Pipeline) -> Iterator[tuple[StepPath, BaseStep, Pipeline]]:
    for step in body.steps:
        here = child(path, step.name)
        yield here, step, owner
        imported = step.imported
        inner_owner = owner if imported is None or imported.inherits else imported.pipeline
        for name, inner in step.bodies().items():
            yield from _walk(inner, branch(here, name) if step.names_bodies else here, inner_owner)
    for name, inner in body.endings().items():
        yield from _walk(inner, branch(path, name), owner)
