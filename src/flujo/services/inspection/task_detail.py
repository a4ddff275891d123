"""A run with its history, read from a store or from the file of an export."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, chains
from flujo.domain.run import RunStatus
from flujo.governance.events import read_error
from flujo.services.inspection.model_mismatch import drifts
from flujo.services.inspection.task_traces import add_tasks
from flujo.services.inspection.tasks import Task, task_of
from flujo.services.inspection.trace import trace
from flujo.services.inspection.transcripts import load_tracebacks, load_transcripts
from flujo.services.runs.execution import unresolved

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.acts import Act
    from flujo.domain.journal import ErrorInfo, RunId
    from flujo.domain.run import Intent, Pause, RunRecord
    from flujo.domain.sent_events import SentEvent
    from flujo.domain.store import RunSource
    from flujo.services.inspection.task_traces import LaunchedBy
    from flujo.services.inspection.trace_tree import TraceNode


@dataclass(frozen=True, slots=True)
class TaskDetail:
    """A run with its input, output, context, questions, trace and acts."""

    task: Task
    input: Any
    output: Any
    context: Any
    error: ErrorInfo | None
    pauses: tuple[Pause, ...]
    trace: TraceNode
    lock_digest: str | None = None
    """The digest of the lock that matched the pipeline when the run was accepted, or None."""
    acts: tuple[Act, ...] = ()
    """Who changed the run, in order."""
    in_doubt: tuple[Intent, ...] = ()
    """Calls without a recorded outcome; empty while the run is executed."""
    children: tuple[Task, ...] = ()
    """The background tasks that it has launched, the oldest first. The parent of a task is in `task`."""
    events: tuple[SentEvent, ...] = ()
    """Events that are kept for the run: those to it and those for its waits, the oldest first."""
    tracebacks: Mapping[str, str] = field(default_factory=dict)
    """The tracebacks of failed attempts by their digests (`ErrorInfo.traceback`), if they were read."""

    @property
    def continues(self) -> RunId | None:
        """The run that this one continues."""
        return chains.predecessor_of(self.task.run_id)

    @property
    def continued_as(self) -> RunId | None:
        """The run that continues this one."""
        return chains.continued_as(self.task.run_id, canonical.encode(self.output))

    @property
    def warnings(self) -> list[str]:
        """Warnings: where a model other than the requested one answered."""
        return drifts(self.trace)

    @property
    def states(self) -> Mapping[str, str]:
        """The state that each state machine is in, or ended in, by the machine's path."""
        return {node.path: node.state for node in self.trace.walk() if node.state}


async def read_detail(
    source: RunSource,
    record: RunRecord,
    launched_by: LaunchedBy,
    *,
    transcripts: bool = False,
    tracebacks: bool = False,
    children: bool = False,
    step: str | None = None,
) -> TaskDetail:
    """Return a run with its history, without the events that are kept for it.

    Args:
        source: has the run and its background tasks.
        record: the run.
        launched_by: returns the background tasks of a run.
        transcripts: whether to read the transcripts of attempts.
        tracebacks: whether to read the tracebacks of failed attempts.
        children: whether the trace includes those of the background tasks of the run.
        step: the path of a step; transcripts and tracebacks of other steps are not read.

    Raises:
        SettingsError: the run has no such step.
        CorruptState: an entry is damaged, or a blob is missing.
    """
    progress = await source.progress(record.run_id)
    tree = await trace(source, record)
    launched = await add_tasks(source, launched_by, record.run_id, tree, whole=children)
    part = tree if step is None else tree.at(step)
    if transcripts:
        await load_transcripts(source, part)
    return TaskDetail(
        task=task_of(record, progress.pauses, usage=progress.usage),
        input=canonical.decode(record.input),
        output=None if record.output is None else canonical.decode(record.output),
        context=canonical.decode(record.context_now or record.context),
        error=None if record.error is None else read_error(record.error, record.run_id),
        pauses=progress.pauses,
        trace=tree,
        lock_digest=record.lock_digest,
        acts=tuple(await source.acts(record.run_id)),
        in_doubt=() if record.status is RunStatus.RUNNING else await unresolved(source, record.run_id),
        children=tuple(map(task_of, launched)),
        tracebacks=await load_tracebacks(source, part) if tracebacks else {},
    )
