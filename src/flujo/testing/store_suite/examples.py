"""Example runs, entries and writes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flujo.domain.journal import Entry, EntryKind, RunId
from flujo.domain.paths import StepPath
from flujo.domain.run import Move, NewRun, Pause, RunQuery, RunRecord, RunStatus, Write
from flujo.domain.store import StateStore

if TYPE_CHECKING:
    from collections.abc import Sequence

OpenStore = Callable[..., Awaitable[StateStore]]

RUN = RunId("run-1")
NEVER_S = 1e6
SHORT_S = 0.2


def new_run(run_id: str = RUN, **changes: Any) -> NewRun:
    """Return a run to accept."""
    run = NewRun(
        run_id=RunId(run_id),
        pipeline="triage",
        closure="c" * 64,
        input=b'{"text":"hello"}',
        context=b'{"label":""}',
    )
    return replace(run, **changes)


def entry(seq: int, path: str = "", **changes: Any) -> Entry:
    """Return a journal entry."""
    made = Entry(path=StepPath(path or f"step_{seq}"), kind=EntryKind.WORK, seq=seq, output=b'"ok"')
    return replace(made, **changes)


def move(run: RunRecord, status: RunStatus, **changes: Any) -> Write:
    """Return a write that moves a run."""
    return Write(run_id=run.run_id, fence=run.fence, move=Move(status=status, **changes))


def writes(run: RunRecord, *entries: Entry) -> Write:
    """Return a write of entries."""
    return Write(run_id=run.run_id, fence=run.fence, entries=entries)


async def ask(store: StateStore, run: RunRecord, *names: str) -> None:
    """Open questions whose deadline is far away."""
    questions = tuple(
        Pause(pause_id=StepPath(name), message=f"{name}?", answer_schema=b"{}", deadline_s=4e9)
        for name in names
    )
    await store.write(Write(run_id=run.run_id, fence=run.fence, pauses=questions))


async def in_state(store: StateStore, status: RunStatus, run_id: str) -> RunRecord:
    """Return a new run that has this status."""
    run = await store.accept(new_run(run_id), {}, claim=status is not RunStatus.ACCEPTED)
    if status not in (RunStatus.ACCEPTED, RunStatus.RUNNING):
        await store.write(move(run, status))
    return run


async def listed(store: StateStore, **conditions: Any) -> list[str]:
    """Return the ids of the matching runs."""
    return [record.run_id for record in await store.runs(RunQuery(**conditions))]


def won(results: Sequence[object]) -> list[RunRecord]:
    """Return the runs among the results of several claims."""
    return [result for result in results if isinstance(result, RunRecord)]
