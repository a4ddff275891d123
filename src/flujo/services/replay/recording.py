"""Reads everything that is recorded of a run and its background tasks, from a database or a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain import canonical
from flujo.domain.recorded_run import RecordedRun, closures_of, contents_of, launched_by, times_in
from flujo.exceptions import ResumeConflict, RunNotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.journal import RunId
    from flujo.domain.run import RunRecord
    from flujo.domain.store import BlobStore, RunSource

_TRIES = 5
"""How often a run is read whose status changes meanwhile."""


async def recorded_family(source: RunSource, run_id: RunId) -> list[RecordedRun]:
    """Return a run, followed by the background tasks that it and they have launched.

    A task that is not there any more is left out.

    Raises:
        RunNotFound: there is no such run.
        CorruptState: a row or a content is damaged or missing.
        ResumeConflict: the run changes hands again and again while it is read.
    """
    family = [await _recorded(source, run_id)]
    for run in family:  # grows by the tasks of each
        for task in launched_by(run.run_id, run.entries):
            try:
                family.append(await _recorded(source, task))
            except RunNotFound:
                continue
    return family


async def _recorded(source: RunSource, run_id: RunId) -> RecordedRun:
    before = await source.run(run_id)
    for _ in range(_TRIES):
        run = await _read(source, before)
        after = await source.run(run_id)
        if (after.fence, after.status, after.updated_at) == (before.fence, before.status, before.updated_at):
            return run
        before = after
    raise ResumeConflict(
        f"run {run_id} changes faster than it can be read",
        hint="wait until it has ended or paused",
        run_id=run_id,
        status=before.status,
    )


async def _read(source: RunSource, record: RunRecord) -> RecordedRun:
    run_id = record.run_id
    # The questions first: an entry that is recorded meanwhile may follow an answer, but none is missing then.
    pauses, intents, acts = (
        await source.pauses(run_id),
        await source.intents(run_id),
        await source.acts(run_id),
    )
    ledger, entries = await source.ledger(run_id), await source.entries(run_id)
    blobs = await _closures(source, closures_of(record, acts))
    blobs |= await source.blobs(sorted(contents_of(entries) - blobs.keys()))
    return RecordedRun(
        record=record,
        entries=entries,
        pauses=pauses,
        intents=intents,
        acts=acts,
        holds=ledger.holds,
        times=times_in(ledger, entries),
        blobs=blobs,
    )


async def _closures(source: BlobStore, closures: Sequence[str]) -> dict[str, bytes]:
    """Return closures and what they name: files, and for a background task the closure of its parent."""
    found: dict[str, bytes] = {}
    missing = [*closures]
    while missing:
        manifests = await source.blobs(missing)
        found |= manifests
        named: set[str] = set()
        files: set[str] = set()
        for manifest in manifests.values():
            said = canonical.decode(manifest)
            named |= {said["task"]} if "task" in said else set()
            files |= set(said.get("files", {}).values())
        found |= await source.blobs(sorted(files - found.keys()))
        missing = sorted(named - found.keys())
    return found
