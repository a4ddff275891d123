"""Runs as listings show them, and the queries that choose them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypedDict

from flujo.domain import chains
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath
from flujo.domain.queues import RunKind
from flujo.domain.reach import EVERYWHERE
from flujo.domain.run import AT_A_PAUSE, RunCondition, RunCursor, RunOrder, RunQuery, RunStatus
from flujo.domain.wording import repr_short, suggest
from flujo.exceptions import SettingsError
from flujo.governance.events import read_error
from flujo.services.given import choice, seconds_of, text_or_none, whole_number
from flujo.state import owner_tokens

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from flujo.domain.journal import ErrorInfo
    from flujo.domain.ports import Clock
    from flujo.domain.reach import Reach
    from flujo.domain.run import Pause, RunRecord
    from flujo.domain.store import StateStore
    from flujo.domain.usage import Usage

Status = RunStatus | RunCondition
STATUSES: tuple[Status, ...] = (*RunStatus, *RunCondition)
"""What runs can be listed by: each status, and what a status alone does not tell."""

Moment = float | datetime | timedelta
"""Seconds since the epoch, a time with its zone, or how long ago."""


@dataclass(frozen=True, slots=True)
class Task:
    """A run as a listing shows it."""

    run_id: str
    pipeline: str
    status: RunStatus
    user_id: str | None
    metadata: Mapping[str, Any]
    usage: Usage
    created_at: float
    updated_at: float
    deadline_at: float | None = None
    """The earliest deadline of its open questions, in seconds since the epoch."""
    ends_by: float | None = None
    """The deadline of the run itself, in seconds since the epoch."""
    display_status: Status = RunStatus.ACCEPTED
    """The status, or what it alone does not tell: `orphaned` for a running run without a living process,
    `answered` for a paused run without an open question, which no process has resumed yet."""
    error: ErrorInfo | None = None
    """Why a run failed, was cancelled or was parked."""
    questions: tuple[Pause, ...] = ()
    """The open questions of a paused run."""
    waits: tuple[Pause, ...] = ()
    """What a waiting run waits for: times and events."""
    answer: Pause | None = None
    """Of an `answered` run, or a waiting one whose wait is over: the pause that was settled last."""
    kind: RunKind = RunKind.RUN
    """`task` for one that a background step has launched."""
    parent: str | None = None
    """The run that has launched it."""
    parent_path: str | None = None
    """The step that has launched it."""
    cursor: str = ""
    """The run's place in the list, from which `list_tasks(cursor=…)` continues."""
    queue: str | None = None
    """The queue whose workers execute it."""


class TaskConditions(TypedDict, total=False):
    """The conditions of a list of runs; see `TaskClient.list_tasks`."""

    status: str | RunStatus | Sequence[str] | None
    metadata_filter: Mapping[str, Any] | None
    user_id: str | None
    blueprint: str | None
    queue: str | None
    pause: str | None
    kind: str | RunKind | Sequence[str] | None
    parent: str | None
    chain: str | None
    since: Moment | None
    until: Moment | None
    order: str
    cursor: str | None


def task_of(
    record: RunRecord,
    pauses: Sequence[Pause] = (),
    *,
    usage: Usage | None = None,
    order: RunOrder = RunOrder.NEWEST,
) -> Task:
    """Return a run as a listing shows it.

    Args:
        record: the run.
        pauses: its questions; needed only while it is paused.
        usage: what it has used so far, instead of what it had used at its last change of status.
        order: the order of the list.
    """
    questions = tuple(pause for pause in pauses if pause.needs_answer)
    shown = _display_status(record, questions)
    settled = [pause for pause in pauses if pause.is_settled and not pause.void]
    is_waiting = record.status is RunStatus.WAITING
    is_answered = shown is RunCondition.ANSWERED or (is_waiting and record.is_answered)
    return Task(
        run_id=record.run_id,
        pipeline=record.pipeline,
        status=record.status,
        user_id=record.user_id,
        metadata=record.metadata,
        usage=record.usage if usage is None else usage,
        created_at=record.created_at,
        updated_at=record.updated_at,
        deadline_at=record.deadline_at,
        ends_by=record.ends_by,
        display_status=shown,
        error=None if record.error is None else read_error(record.error, record.run_id),
        questions=questions if record.status is RunStatus.PAUSED else (),
        waits=tuple(pause for pause in pauses if pause.is_open) if is_waiting else (),
        answer=max(settled, key=lambda each: each.answered_at or 0.0, default=None) if is_answered else None,
        kind=record.kind,
        parent=None if record.parent is None else record.parent.run_id,
        parent_path=None if record.parent is None else record.parent.path,
        cursor=str(RunCursor.of(record, order)),
        queue=None if record.queued is None else record.queued.queue,
    )


def _display_status(record: RunRecord, questions: Sequence[Pause]) -> Status:
    if record.status is RunStatus.PAUSED and not questions:
        return RunCondition.ANSWERED
    if record.status is RunStatus.RUNNING and not has_living_owner(record):
        return RunCondition.ORPHANED
    return record.status


def has_living_owner(record: RunRecord) -> bool:
    """Return whether a process that may be alive executes a run, by the moment at which it was read."""
    if record.owner is None or owner_tokens.is_provably_dead(record.owner):
        return False
    return record.lease_left_s is None or record.lease_left_s > 0


async def listed_tasks(store: StateStore, query: RunQuery) -> list[Task]:
    """Return the runs that match, with the questions of those that are paused, and what others wait for.

    The usage of an orphaned run is that of its journal: its record has that of its last change of status.
    """
    records = await store.runs(query)
    paused = [record.run_id for record in records if record.status in AT_A_PAUSE]
    pauses = dict(zip(paused, await asyncio.gather(*map(store.pauses, paused)), strict=True))
    orphaned = [each.run_id for each in records if _display_status(each, ()) is RunCondition.ORPHANED]
    progress = dict(zip(orphaned, await asyncio.gather(*map(store.progress, orphaned)), strict=True))
    return [
        task_of(
            record,
            pauses.get(record.run_id, ()),
            usage=progress[record.run_id].usage if record.run_id in progress else None,
            order=query.order,
        )
        for record in records
    ]


def task_query(
    status: Any = None,
    metadata_filter: Any = None,
    *,
    clock: Clock,
    user_id: Any = None,
    blueprint: Any = None,
    queue: Any = None,
    pause: Any = None,
    kind: Any = None,
    parent: Any = None,
    chain: Any = None,
    since: Any = None,
    until: Any = None,
    order: Any = RunOrder.NEWEST,
    limit: Any = 100,
    cursor: Any = None,
    reach: Reach = EVERYWHERE,
) -> RunQuery:
    """Return the query of a listing, with the arguments as callers give them.

    Raises:
        SettingsError: an argument has the wrong type, or a value that is not one of its choices.
    """
    ordered = choice(RunOrder, order, "order")
    asked, launched_by = text_or_none(pause, "pause"), text_or_none(parent, "parent")
    chained = text_or_none(chain, "chain")
    return RunQuery(
        statuses=_statuses(status),
        metadata={} if metadata_filter is None else metadata_filter,
        user_id=text_or_none(user_id, "user_id"),
        pipeline=text_or_none(blueprint, "blueprint"),
        queue=text_or_none(queue, "queue"),
        reach=reach,
        pause=None if asked is None else StepPath(asked),
        kinds=None if kind is None else tuple(choice(RunKind, each, "kind") for each in _several(kind)),
        parent=None if launched_by is None else RunId(launched_by),
        chain=None if chained is None else chains.first_of(chained),
        since=seconds_of(since, "since", clock),
        until=seconds_of(until, "until", clock),
        order=ordered,
        limit=whole_number(limit, "limit"),
        after=None if cursor is None else _read_cursor(cursor),
    )


def _statuses(given: Any) -> tuple[Status, ...]:
    if given is None:
        return ()
    return tuple(_status(each) for each in _several(given))


def _several(given: Any) -> Collection[Any]:
    return given if isinstance(given, list | tuple | set | frozenset) else (given,)


def _status(given: Any) -> Status:
    for status in STATUSES:
        if given == status:
            return status
    raise SettingsError(
        f"{repr_short(given)} is not the status of a run", hint=suggest(str(given), STATUSES, what="statuses")
    )


def _read_cursor(text: Any) -> RunCursor:
    try:
        order, at, run_id = str(text).split(":", 2)
        return RunCursor(RunOrder(order), float(at), run_id)
    except ValueError:
        raise SettingsError(
            f"{repr_short(text)} is not a cursor", hint="pass the `cursor` of a run of the list to continue"
        ) from None
