"""Ends runs whose own deadline has passed: the `deadline` of a blueprint counts from a run's acceptance."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.commands import command
from flujo.domain.paths import ROOT
from flujo.domain.run import UNENDED, Move, RunStatus, Write
from flujo.domain.values import TimeLimit
from flujo.domain.wording import span
from flujo.engine.error_info import error_info
from flujo.engine.time_limits import seconds_in_range
from flujo.exceptions import ExpressionFailed, InputRejected, RunDeadlinePassed
from flujo.services.runs.input_values import value_of_input

if TYPE_CHECKING:
    from flujo.domain.journal import ErrorInfo, RunId
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import Binding
    from flujo.domain.run import RunRecord
    from flujo.domain.store import StateStore
    from flujo.services.runs.notices import NotifierOf


def life_of(pipeline: Pipeline, binding: Binding, data: Any) -> float | None:
    """Return how many seconds a run may last from its acceptance; None without a limit.

    Args:
        pipeline: the pipeline of the run.
        binding: its binding.
        data: the input of the run, JSON data.

    Raises:
        InputRejected: the expression of the limit has no value for this input, or one out of its range.
    """
    limit = pipeline.deadline_s
    if not isinstance(limit, TimeLimit):
        return limit
    try:
        return seconds_in_range(value_of_input(limit.value, binding, data), limit, what="`deadline`")
    except ExpressionFailed as error:
        raise InputRejected(
            f"the input does not fit the `deadline` of {pipeline.name!r}: {error.message}",
            hint=error.hint,
        ) from error


def left_s(record: RunRecord) -> float:
    """Return the seconds between the last change of a run and its deadline; infinity without one.

    Both are by the database's clock, so for a run that was just claimed this is the time that is left.
    """
    return math.inf if record.ends_by is None else record.ends_by - record.updated_at


def too_late(record: RunRecord) -> ErrorInfo:
    """Return the error of a run that has not ended before its deadline."""
    life = span(round((record.ends_by or 0.0) - record.created_at, 3))
    error = RunDeadlinePassed(
        f"run {record.run_id} has not ended within {life} of its acceptance, its `deadline`",
        hint=f"`{command('flujo', 'trace', record.run_id)}` shows how far it came; a retry would be too late "
        "as well, so start a new run",
        run_id=record.run_id,
    )
    return error_info(error, ROOT)


async def end_late(store: StateStore, run_id: RunId, notifier: NotifierOf) -> None:
    """End a run without a living owner whose deadline has passed: it fails.

    Raises:
        ResumeConflict: another process was faster, or the run has ended.
    """
    record = await store.claim(run_id, statuses=UNENDED)
    move = Move(status=RunStatus.FAILED, error=canonical.encode(too_late(record).to_json()))
    try:
        move = (await notifier(record)).announced(record, move)
        await store.write(Write(run_id=run_id, fence=record.fence, move=move))
    except BaseException:
        store.let_go(run_id)  # otherwise this process would keep a run that it does not execute
        raise
