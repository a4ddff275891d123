"""The history of a run from the file of an export, without a database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from flujo.domain import canonical
from flujo.domain.run import RunStatus
from flujo.governance.events import read_error
from flujo.services.inspection.task_client import TaskDetail
from flujo.services.inspection.tasks import task_of
from flujo.services.inspection.trace import LaunchedTask, trace
from flujo.services.inspection.transcripts import load_transcripts
from flujo.services.replay.export import SUFFIX
from flujo.services.replay.run_file import RunFile
from flujo.services.runs.execution import unresolved

if TYPE_CHECKING:
    from flujo.domain.journal import RunId
    from flujo.services.inspection.trace import TraceNode


def is_file(run: str) -> bool:
    """Return whether a user means the file of an export and not the id of a run, which has no `/`."""
    return run.endswith(SUFFIX) or os.sep in run


async def get_exported(path: str, *, transcripts: bool = False, children: bool = False) -> TaskDetail:
    """Return the exported run with its history, as `TaskClient.get_task` does.

    Raises:
        ExportDamaged | ExportTooNew: the file cannot be used.
    """
    file = RunFile.open(Path(path))
    record = await file.run(file.run_id)
    progress = await file.progress(record.run_id)
    tree = await trace(file, record)
    await _add_tasks(file, record.run_id, tree, whole=children)
    if transcripts:
        await load_transcripts(file, tree)
    return TaskDetail(
        task=task_of(record, progress.pauses, usage=progress.usage),
        input=canonical.decode(record.input),
        output=None if record.output is None else canonical.decode(record.output),
        context=canonical.decode(record.context_now or record.context),
        error=None if record.error is None else read_error(record.error),
        pauses=progress.pauses,
        trace=tree,
        lock_digest=record.lock_digest,
        acts=tuple(await file.acts(record.run_id)),
        in_doubt=() if record.status is RunStatus.RUNNING else await unresolved(file, record.run_id),
        children=tuple(
            task_of(each.record) for each in file.runs.values() if _is_launched(file, each.run_id)
        ),
    )


async def _add_tasks(file: RunFile, run_id: RunId, tree: TraceNode, *, whole: bool) -> None:
    """Set `task` of the nodes whose steps launched one."""
    nodes = {node.path: node for node in tree.walk()}
    for run in file.runs.values():
        origin = run.record.parent
        if origin is None or origin.run_id != run_id or origin.path not in nodes:
            continue
        launched = LaunchedTask(run.run_id, run.record.status)
        if whole:
            launched.trace = await trace(file, run.record)
            await _add_tasks(file, run.run_id, launched.trace, whole=True)
        nodes[origin.path].task = launched


def _is_launched(file: RunFile, run_id: RunId) -> bool:
    """Return whether the exported run has launched this one."""
    origin = file.runs[run_id].record.parent
    return origin is not None and origin.run_id == file.run_id
