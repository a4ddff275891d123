"""Adds the background tasks of a run to its trace: below each step that launched one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from flujo.domain.journal import RunId
from flujo.domain.queues import RunKind
from flujo.domain.run import RunOrder, RunQuery, RunRecord
from flujo.services.inspection.trace import trace
from flujo.services.inspection.trace_tree import LaunchedTask
from flujo.state.rules import MAX_LIMIT

if TYPE_CHECKING:
    from flujo.domain.store import RunSource, StateStore
    from flujo.services.inspection.trace_tree import TraceNode

LaunchedBy: TypeAlias = Callable[[RunId], Awaitable[Sequence[RunRecord]]]
"""Returns the background tasks of a run, the oldest first."""


async def launched_by(store: StateStore, run_id: RunId) -> Sequence[RunRecord]:
    """Return the background tasks of a run of a store, the oldest first; not its evaluations."""
    query = RunQuery(
        parent=run_id, kinds=(RunKind.TASK, RunKind.ITEM), order=RunOrder.OLDEST, limit=MAX_LIMIT
    )
    return await store.runs(query)


async def add_tasks(
    source: RunSource, launched_by: LaunchedBy, run_id: RunId, tree: TraceNode, *, whole: bool
) -> Sequence[RunRecord]:
    """Set `task` of the nodes whose steps launched one, and return the tasks, the oldest first.

    Args:
        source: has the runs.
        launched_by: returns the tasks of a run.
        run_id: the run of the trace.
        tree: its trace.
        whole: whether to add the trace of each task, with those of the tasks that it has launched.
    """
    tasks = await launched_by(run_id)
    nodes = {node.path: node for node in tree.walk()} if tasks else {}
    for task in tasks:
        if task.parent is None or task.parent.path not in nodes:
            continue
        launched = LaunchedTask(task.run_id, task.status)
        if whole:
            launched.trace = await trace(source, task)
            await add_tasks(source, launched_by, task.run_id, launched.trace, whole=True)
        nodes[task.parent.path].task = launched
    return tasks
