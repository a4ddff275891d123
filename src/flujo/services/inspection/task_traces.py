"""Adds the background tasks of a run to its trace: below each step that launched one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.run import RunOrder, RunQuery
from flujo.services.inspection.trace import trace
from flujo.services.inspection.trace_tree import LaunchedTask
from flujo.state.rules import MAX_LIMIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.journal import RunId
    from flujo.domain.run import RunRecord
    from flujo.domain.store import StateStore
    from flujo.services.inspection.trace_tree import TraceNode


async def add_tasks(store: StateStore, run_id: RunId, tree: TraceNode, *, whole: bool) -> Sequence[RunRecord]:
    """Set `task` of the nodes whose steps launched one, and return the tasks, the oldest first.

    Args:
        store: has the runs.
        run_id: the run of the trace.
        tree: its trace.
        whole: whether to add the trace of each task, with those of the tasks that it has launched.
    """
    tasks = await store.runs(RunQuery(parent=run_id, order=RunOrder.OLDEST, limit=MAX_LIMIT))
    nodes = {node.path: node for node in tree.walk()} if tasks else {}
    for task in tasks:
        if task.parent is None or task.parent.path not in nodes:
            continue
        launched = LaunchedTask(task.run_id, task.status)
        if whole:
            launched.trace = await trace(store, task)
            await add_tasks(store, task.run_id, launched.trace, whole=True)
        nodes[task.parent.path].task = launched
    return tasks
