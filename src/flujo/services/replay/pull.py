"""Copies a run from another database, or from the file of an export, into the database of a project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flujo.exceptions import ExportMasked
from flujo.services.replay.recording import recorded_family
from flujo.services.replay.run_file import RunFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.acts import Actor
    from flujo.domain.journal import RunId
    from flujo.domain.recorded_run import RecordedRun
    from flujo.domain.run import RunRecord
    from flujo.domain.store import RunSource, StateStore


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull has done."""

    record: RunRecord
    """The run as it is here."""
    was: RunRecord
    """The run as it is there."""
    runs: Sequence[RunId]
    """The run and its background tasks, in the order in which they were launched."""
    new: Sequence[RunId]
    """Those of them that were not here before."""


async def pull(source: RunSource, run_id: RunId, store: StateStore, *, actor: Actor, origin: str) -> Pulled:
    """Copy a run and its background tasks into `store`, in one commit.

    No process executes the copies by itself: what has not ended is `interrupted` here. The source is only
    read. A run that is here already with the same content stays unchanged.

    Args:
        source: another state store, or a `RunFile`.
        run_id: the whole id of the run.
        store: where the run goes.
        actor: who pulls.
        origin: where it comes from; see `shown_origin`.

    Raises:
        RunNotFound: the source has no such run.
        CorruptState: a row or a content of the source is damaged or missing.
        RunConflict: another run has one of the ids here.
        ExportMasked: a secret is masked in a content of the file.
    """
    family = await recorded_family(source, run_id)
    if isinstance(source, RunFile):
        _require_whole(source, family)
    new = await store.import_runs(family, actor=actor, origin=origin)
    return Pulled(await store.run(run_id), family[0].record, [run.run_id for run in family], new)


def _require_whole(file: RunFile, family: Sequence[RecordedRun]) -> None:
    for run in family:
        if masked := sorted(file.masked & run.blobs.keys()):
            raise ExportMasked(
                f"run {run.run_id}: a secret is masked in content {masked[0]}", run_id=run.run_id
            )


def shown_origin(given: str) -> str:
    """Return the host and the database of a URI, or the name of a file: no user, no password, no options."""
    if "://" not in given:
        return Path(given).name
    parts = urlsplit(given)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"
