"""`await`: a run waits for background tasks that it has launched, and takes their results.

A run that waits holds no process. The commit that ends the last of the tasks settles the wait, and any
process continues the run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.commands import command
from flujo.domain.journal import EntryKind, ErrorInfo, RunId
from flujo.domain.outcomes import Failure, Paused, StepOutcome
from flujo.domain.run import ENDS_OF_TASKS, Pause, PauseKind, RunRecord, RunStatus
from flujo.domain.values import Text
from flujo.domain.wording import plural, repr_short
from flujo.engine.attempt import Attempt
from flujo.engine.attempts import record_failure, settle
from flujo.engine.error_info import error_info
from flujo.exceptions import RunNotFound, StepFailed

if TYPE_CHECKING:
    from flujo.domain.paths import StepPath
    from flujo.domain.ports import Binding
    from flujo.domain.steps import AwaitStep
    from flujo.domain.values import Value
    from flujo.engine.frame import Frame, RunBody, Work

_LEFT_OUT: Any = object()
"""The result of a failed task under `on_failure: skip`."""


def work(step: AwaitStep, _binding: Binding, _run_body: RunBody) -> Work:
    """Return the execution of the step."""
    return partial(_awaited, step)


async def _awaited(step: AwaitStep, frame: Frame, path: StepPath) -> StepOutcome:
    """Return the results of the tasks once all have ended; until then, the wait."""
    journal = frame.run.journal
    ids = _ids(step, frame)
    if frame.run.recorded is not None:
        return await frame.run.recorded.awaited(step, canonical.encode(ids), frame, path)
    await journal.flush()  # the launches may wait for a commit
    several = _flat(ids)
    found = await asyncio.gather(*(_task(step, frame, task_id) for task_id in several))
    tasks = dict(zip(several, found, strict=True))
    pending = [task_id for task_id, task in tasks.items() if task.status not in ENDS_OF_TASKS]
    wait = journal.pause(path)
    if pending:
        if wait is None or not wait.is_open or wait.tasks != tasks.keys():
            wait = _wait(path, tasks)
        return Paused((journal.ask(wait),))
    attempt = Attempt(
        step,
        frame,
        path,
        len(journal.attempts(path, EntryKind.WORK)) + 1,
        started_at=frame.run.clock.now() if wait is None or wait.asked_at is None else wait.asked_at,
        input=canonical.encode(ids),
    )
    failed = next((task for task in tasks.values() if task.status is not RunStatus.COMPLETED), None)
    if failed is not None and step.on_failure == "fail":
        error = _failure(step, failed)
        failure = error_info(error, path)
        await record_failure(attempt, failure)
        return Failure(failure, error)
    results = {task_id: _result(step, frame, task) for task_id, task in tasks.items()}
    attempt.output = _filled(ids, results, frame.previous)
    return await settle(attempt)


def _ids(step: AwaitStep, frame: Frame) -> Any:
    """Return the ids of the tasks in the shape of the results: one, by name, or as an expression has them.

    None stands for a step that was skipped.
    """
    if step.task is not None:
        return _id(step.task, frame)
    if isinstance(step.tasks, tuple):
        return {str(each): _id(each, frame) for each in step.tasks}
    given = frame.render(step.tasks)
    if not isinstance(given, list | dict):
        raise StepFailed(
            f"`tasks` of step {step.name!r} is {repr_short(given)}, not a list or a map of task ids",
            hint="pass for instance `{{ steps.NAME.output }}` of a map whose step runs in the background",
        )
    return [_plain(each) for each in given] if isinstance(given, list) else dict(given)


def _id(given: Value, frame: Frame) -> Any:
    """Return the task of a step by its name, or the value of an expression."""
    if isinstance(given, Text) and "{{" not in given.source:
        output = frame.lookup(("steps", given.source.strip()))["output"]
    else:
        output = frame.render(given)
    return _plain(output)


def _plain(given: Any) -> Any:
    """Return a task id; that of a launch, when its whole output is given."""
    return given["task_id"] if isinstance(given, Mapping) and "task_id" in given else given


def _flat(ids: Any) -> list[RunId]:
    several = ids.values() if isinstance(ids, dict) else ids if isinstance(ids, list) else [ids]
    return list(dict.fromkeys(RunId(each) for each in map(_plain, several) if each is not None))


async def _task(step: AwaitStep, frame: Frame, task_id: RunId) -> RunRecord:
    if not isinstance(task_id, str):
        raise StepFailed(f"step {step.name!r} awaits {repr_short(task_id)}, which is not a task id")
    try:
        return await frame.run.journal.task(task_id)
    except RunNotFound as error:
        raise StepFailed(f"step {step.name!r} awaits {repr_short(task_id)}: {error.message}") from error


def _wait(path: StepPath, tasks: Mapping[RunId, RunRecord]) -> Pause:
    names = sorted({task.parent.path for task in tasks.values() if task.parent is not None})
    what = f"{plural(len(tasks), 'background task')}: {', '.join(names[:5])}{', …' * (len(names) > 5)}"
    return Pause(
        pause_id=path,
        message=f"waits for {what}",
        answer_schema=canonical.encode({"tasks": sorted(tasks)}),
        kind=PauseKind.CHILDREN,
    )


def _failure(step: AwaitStep, task: RunRecord) -> StepFailed:
    cause = ErrorInfo.from_json(canonical.decode(task.error)) if task.error else None
    why = "" if cause is None else f": {cause.message} [{cause.code}]"
    where = "" if task.parent is None else f" of step `{task.parent.path}`"
    return StepFailed(
        f"step {step.name!r} awaits background task {task.run_id}{where}, which is {task.status}{why}",
        hint=f"`{command('flujo', 'tasks', 'retry', task.run_id)}` retries the task, then "
        "`flujo resume RUN --retry-failed` the run; or set `on_failure`",
    )


def _result(step: AwaitStep, frame: Frame, task: RunRecord) -> Any:
    """Return the output of a task, or what `on_failure` says."""
    if task.status is RunStatus.COMPLETED:
        return canonical.decode(task.output or b"null")
    if isinstance(step.on_failure, Mapping):
        return frame.render(step.on_failure["output"])
    return _LEFT_OUT


def _filled(ids: Any, results: Mapping[RunId, Any], previous: Any) -> Any:
    """Return the results in the shape of the ids; that of a skipped step is None."""

    def result(each: Any) -> Any:
        plain = _plain(each)
        return None if plain is None else results[plain]

    if isinstance(ids, dict):
        named = {name: result(each) for name, each in ids.items()}
        return {name: value for name, value in named.items() if value is not _LEFT_OUT}
    if isinstance(ids, list):
        return [value for value in map(result, ids) if value is not _LEFT_OUT]
    value = result(ids)
    return previous if value is _LEFT_OUT else value
