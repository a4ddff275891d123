"""Tells which runs can continue with the blueprints on disk: `flujo check-resume`."""

from __future__ import annotations

from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flujo.domain.paths import shown
from flujo.domain.run import RunCursor, RunQuery, RunStatus
from flujo.exceptions import FlujoError
from flujo.services.recorded.replay import recording_of
from flujo.services.runs.changes import Comparison, compare
from flujo.services.runs.replays import replayed
from flujo.services.runs.run_services import is_python, pinned_closure
from flujo.services.workspace import open_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from flujo.domain.run import RunRecord
    from flujo.domain.store import StateStore
    from flujo.services.recorded.replay import Replayed
    from flujo.services.workspace import Workspace

WAITING = (RunStatus.WAITING, RunStatus.PAUSED, RunStatus.INTERRUPTED, RunStatus.FAILED)
"""The states of runs that a resume continues."""

_PAGE = 100


@dataclass(frozen=True, slots=True)
class Checked:
    """Whether one run can continue."""

    run: RunRecord
    comparison: Comparison = field(default_factory=Comparison)
    error: FlujoError | None = None
    """Why the blueprint cannot be used at all."""
    is_skipped: bool = False
    """Whether the run is of a pipeline that is written in Python, which this command does not have."""

    @property
    def can_continue(self) -> bool:
        """Whether nothing is known that stops it."""
        return self.error is None and self.comparison.can_continue

    def reason(self) -> str:
        """Return why it cannot continue, or why it was not checked; empty otherwise."""
        if self.error is not None:
            return f"{self.error.message} [{self.error.code}]"
        if self.is_skipped:
            return "not checked: the pipeline is written in Python"
        return self.comparison.refusal()


def migrations_in(found: Sequence[Checked]) -> dict[str, int]:
    """Return how many runs have each set of migrations: `draft → compose`."""
    counted: Counter[str] = Counter()
    for each in found:
        if applied := each.comparison.migrations.applied:
            counted[", ".join(f"{shown(one.old)} → {shown(one.new)}" for one in applied)] += 1
    return dict(counted)


async def check_resume(ws: Workspace, runs: Sequence[str], against: str | None) -> list[Checked]:
    """Compare runs with the blueprints on disk; nothing is called, and nothing is written.

    Args:
        ws: the project.
        runs: ids, unique prefixes of them, or `@last`. Default: every run that waits, is paused, was
            interrupted or has failed.
        against: the URI of the database that has them. Default: the project's.

    Raises:
        RunNotFound: no run, or several, are meant.
        StateError: the database cannot be opened.
    """
    async with _opened(ws, against) as store:
        found = [await store.find(run) for run in runs] if runs else await _waiting(store)
        subjects: dict[str, Replayed] = {}
        return [await _checked(ws, store, record, subjects) for record in found]


async def waiting_runs(ws: Workspace, files: Collection[str]) -> dict[str, int]:
    """Return by blueprint how many runs of the project's database wait to be continued.

    Args:
        ws: the project.
        files: the blueprints; those without such a run are left out.

    Raises:
        StateError: the database cannot be read.
    """
    store = await ws.store()
    counted: Counter[str] = Counter()
    entries: dict[str, str] = {}
    for record in await _waiting(store):
        if not is_python(record):
            if record.closure not in entries:
                entries[record.closure] = (await pinned_closure(store, record)).entry
            counted[entries[record.closure]] += 1
    return {file: counted[file] for file in files if counted[file]}


@asynccontextmanager
async def _opened(ws: Workspace, uri: str | None) -> AsyncIterator[StateStore]:
    if uri is None:
        yield await ws.store()
        return
    store = await open_store(uri, ws.project.settings)
    try:
        yield store
    finally:
        await store.aclose()


async def _waiting(store: StateStore) -> list[RunRecord]:
    query = RunQuery(statuses=WAITING, limit=_PAGE)
    found: list[RunRecord] = []
    while page := await store.runs(query):
        found += page
        query = replace(query, after=RunCursor.of(page[-1], query.order))
    return found


async def _checked(
    ws: Workspace, store: StateStore, record: RunRecord, subjects: dict[str, Replayed]
) -> Checked:
    if is_python(record):
        return Checked(record, is_skipped=True)
    try:
        if record.closure not in subjects:
            pinned = await pinned_closure(store, record)
            blueprint = ws.load(pinned.entry, overrides=pinned.overrides)
            subjects[record.closure] = replayed(ws, blueprint.pipeline, is_pinned=False)
        recording = await recording_of(store, record.run_id)
        return Checked(record, await compare(recording, subjects[record.closure]))
    except FlujoError as error:
        return Checked(record, error=error)


def checked_data(checked: Checked) -> dict[str, Any]:
    """Return the JSON data of a run that was checked."""
    found = checked.comparison
    return {
        "run_id": checked.run.run_id,
        "blueprint": checked.run.pipeline,
        "status": str(checked.run.status),
        "can_continue": checked.can_continue,
        "reason": checked.reason(),
        "kept": list(found.kept),
        "migrated": list(found.migrated),
        "changed": [each.to_json() for each in found.changed],
        "conflicts": [each.to_json() for each in found.conflicts],
        "lost": [*found.lost, *found.left_out],
        "migrations": [{"from": each.old, "to": each.new} for each in found.migrations.applied],
    }
