"""The history of a run from the file of an export, without a database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flujo.services.inspection.task_detail import read_detail
from flujo.services.replay.run_file import RunFile

if TYPE_CHECKING:
    from flujo.services.inspection.task_detail import TaskDetail


async def get_exported(
    path: str,
    *,
    transcripts: bool = False,
    tracebacks: bool = False,
    children: bool = False,
    step: str | None = None,
) -> TaskDetail:
    """Return the exported run with its history, as `TaskClient.get_task` does.

    Raises:
        ExportDamaged | ExportTooNew: the file cannot be used.
        SettingsError: the run has no such step.
    """
    file = RunFile.open(Path(path))
    return await read_detail(
        file,
        await file.run(file.run_id),
        file.launched_by,
        transcripts=transcripts,
        tracebacks=tracebacks,
        children=children,
        step=step,
    )
