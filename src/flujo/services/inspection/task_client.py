"""Tasks: what other systems (a dashboard, a webhook, operations) see of runs, and how they answer them."""

from __future__ import annotations

import difflib
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from flujo.domain import canonical, paths
from flujo.domain.journal import CACHE_MISS, ROOT, Entry, EntryKind, EntryStatus, ErrorInfo, StepPath, parent
from flujo.domain.run import RunQuery, RunStatus
from flujo.domain.usage import NOTHING, Usage
from flujo.exceptions import SettingsError
from flujo.services.inspection.model_mismatch import drifts
from flujo.services.inspection.state_machine_status import current_states
from flujo.services.lifetime import Lifetime
from flujo.services.project.project import find_project
from flujo.services.runs.answers import record_answer
from flujo.services.workspace import Workspace, open_store
from flujo.settings import load

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flujo.domain.models import PipelineResult
    from flujo.domain.run import Pause, RunRecord
    from flujo.domain.store import JournalSource, StateStore
    from flujo.services.runs.runner import Flujo


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
    """Until when its open questions can be answered, the earliest; seconds since the epoch."""


@dataclass(slots=True)
class TraceNode:
    """A step of a run, with what happened in it and the steps inside it."""

    path: StepPath
    kind: str = ""
    status: str = "running"
    attempts: int = 0
    decision: Any = None
    """Which way it went: a branch's name, whether a loop ended."""
    state: str | None = None
    """Of a state machine: the state that it is in, or ended in."""
    input: Any = None
    output: Any = None
    error: ErrorInfo | None = None
    usage: Usage = NOTHING
    unconfirmed: Usage = NOTHING
    """What may have been used in addition, at most: requests of which nobody knows whether they were made."""
    seconds: float = 0.0
    model: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    fell_back: ErrorInfo | None = None
    """Why a fallback took over: the error of the step's own last attempt."""
    answered: list[tuple[str, str]] = field(default_factory=list)
    """Of each request to an agent: the model that was asked for, and the id of the one that answered."""
    children: list[TraceNode] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return paths.name(self.path)

    def at(self, path: str) -> TraceNode:
        """Return the node of the step at `path`; counts may be written `loop[2]/x` or `loop.2/x`.

        Raises:
            SettingsError: the run has been through no such step; the hint says which are close.
        """
        nodes = {node.path: node for node in self.walk()}
        if (found := paths.find(path, nodes)) is not None:
            return nodes[found]
        close = difflib.get_close_matches(paths.from_command_line(path), map(paths.shown, nodes), 3, 0.5)
        raise SettingsError(
            f"this run has been through no step {path!r}",
            hint=f"did you mean {' or '.join(f'`{each}`' for each in close)}?"
            if close
            else "`flujo trace RUN` shows every step by its path",
        )

    def walk(self) -> Iterator[TraceNode]:
        """Yield this node and everything inside it, outer ones first."""
        yield self
        for inner in self.children:
            yield from inner.walk()

    def total(self) -> Usage:
        """Return the usage of this node and everything inside it."""
        total = self.usage
        for inner in self.children:
            total += inner.total()
        return total


@dataclass(frozen=True, slots=True)
class TaskDetail:
    """A run with everything that is known of it."""

    task: Task
    input: Any
    output: Any
    context: Any
    error: ErrorInfo | None
    pauses: tuple[Pause, ...]
    trace: TraceNode
    lock_digest: str | None = None
    """The digest of the lock that held the pipeline when the run was accepted; None when none did."""

    @property
    def warnings(self) -> list[str]:
        """What else somebody should know: where another model answered than was asked for."""
        return drifts(self.trace)

    @property
    def states(self) -> Mapping[str, str]:
        """The state that each state machine is in, or ended in, by the machine's path."""
        return {node.path: node.state for node in self.trace.walk() if node.state}


class TaskClient:
    """Lists, shows and answers runs, from outside the program that executes them."""

    def __init__(
        self,
        state: Workspace | StateStore | str | None = None,
        *,
        runners: Sequence[Flujo[Any, Any, Any]] = (),
    ) -> None:
        """Take where the runs are; nothing is opened yet.

        Args:
            state: a database's URI, a store, or a project's workspace; the caller closes the latter two.
                Default: the database of the project in this folder (`FLUJO_STATE_URI`, flujo.toml).
            runners: go on with runs of their pipelines when `resume_task` answers one. Runs of a project's
                blueprints are gone on with through the workspace, without a runner.
        """
        self._runners = {runner.pipeline.name: runner for runner in runners}
        self._state = state
        self._lifetime = Lifetime("this TaskClient")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close what this client opened; every later call raises `RunnerClosed`. Idempotent."""
        await self._lifetime.close()

    async def list_tasks(
        self,
        status: str | RunStatus | None = None,
        metadata_filter: Mapping[str, Any] | None = None,
        *,
        user_id: str | None = None,
        limit: int = 100,
    ) -> list[Task]:
        """Return runs, newest first; every condition that is given must hold.

        Raises:
            SettingsError: a metadata key that is no identifier.
        """
        statuses = () if status is None else (RunStatus(status),)
        query = RunQuery(statuses=statuses, user_id=user_id, metadata=metadata_filter or {}, limit=limit)
        store = await self._store()
        return [_task(record) for record in await store.runs(query)]

    async def get_task(self, run_id: str) -> TaskDetail:
        """Return a run with its history; `run_id` may be a unique prefix or `@last`.

        Raises:
            RunNotFound: there is none.
        """
        store = await self._store()
        record = await store.find(run_id)
        progress = await store.progress(record.run_id)
        return TaskDetail(
            task=_task(record, progress.usage),
            input=canonical.decode(record.input),
            output=None if record.output is None else canonical.decode(record.output),
            context=canonical.decode(record.context_now or record.context),
            error=None if record.error is None else ErrorInfo.from_json(canonical.decode(record.error)),
            pauses=progress.pauses,
            trace=await trace(store, record),
            lock_digest=record.lock_digest,
        )

    async def resume_task(
        self,
        run_id: str,
        input: Any,  # noqa: A002 - the name that the manual prints
        pause_id: str | None = None,
        *,
        detach: bool = False,
    ) -> PipelineResult[Any, Any]:
        """Answer a paused run's question and go on with the run, where its pipeline is to be had.

        Otherwise (a pipeline written in Python without its runner here, a database without its project) the
        answer is recorded all the same, and the result's `note` says who can go on.

        Args:
            run_id: an id, a unique prefix of one, or `@last`.
            input: the answer, JSON data that fits the question's `answer_schema`.
            pause_id: which question, when several are open: the path of the step that asks.
            detach: only record the answer.

        Raises:
            RunNotFound | AmbiguousPause | InputRejected | ResumeConflict: see `services.runs.answer`.
        """
        from flujo.services.runs import blueprint_runs

        store = await self._store()
        record = await store.find(run_id)
        runner = self._runners.get(record.pipeline)
        if runner is None and isinstance(self._state, Workspace):
            return await blueprint_runs.answer(self._state, record.run_id, pause_id, input, detach=detach)
        await record_answer(store, record, pause_id, input)
        if runner is None or detach:
            return await blueprint_runs.report_unclaimed(store, record)
        return await blueprint_runs.ignore_if_owned(store, record, runner.resume_async(record.run_id))

    async def cancel_task(self, run_id: str) -> Task:
        """End a run for good, whoever executes it: a living owner's next write is refused.

        Raises:
            RunNotFound: there is none.
            ResumeConflict: it has ended already.
        """
        from flujo.services.runs import blueprint_runs

        return _task(await blueprint_runs.cancel(await self._store(), run_id))

    async def _store(self) -> StateStore:
        self._lifetime.require_open()
        if self._state is None or isinstance(self._state, str):
            async with self._lifetime.opening() as exits:
                if self._state is None:
                    self._state = await exits.enter_async_context(Workspace(find_project(Path.cwd())))
                elif isinstance(self._state, str):
                    self._state = await exits.enter_async_context(
                        aclosing(await open_store(self._state, load()))
                    )
        return await self._state.store() if isinstance(self._state, Workspace) else self._state


async def trace(store: JournalSource, record: RunRecord) -> TraceNode:
    """Return the tree of what happened in a run, from its journal and its questions."""
    root = TraceNode(ROOT, kind="run", status=record.status)
    nodes: dict[StepPath, TraceNode] = {ROOT: root}
    entries, pauses = await store.entries(record.run_id), await store.pauses(record.run_id)
    for entry in entries:
        if entry.kind is EntryKind.DECISION and entry.fingerprint == CACHE_MISS:
            continue  # that a step was run is what its own entry says
        _record(_node(nodes, entry.path), entry)
    for pause in pauses:
        node = _node(nodes, pause.pause_id)
        node.kind = node.kind or "hitl"
        node.input = node.input if node.input is not None else pause.message
        if pause.is_open:
            node.status = "paused"
    for path, state in current_states(entries, pauses).items():
        machine = _node(nodes, path)
        machine.kind, machine.state = "state_machine", state
    if record.error is not None:
        _fail(nodes, ErrorInfo.from_json(canonical.decode(record.error)))
    ledger = await store.ledger(record.run_id)
    for hold in ledger.holds:
        _node(nodes, hold.path).unconfirmed += hold.usage
    root.unconfirmed = ledger.unconfirmed
    for node in nodes.values():
        node.children.sort(key=_count)
    _infer(root)
    root.status = record.status
    root.seconds = max(0.0, record.updated_at - record.created_at)
    return root


def _count(node: TraceNode) -> int:
    """Return the count of an item or a turn: they stand in the input's order, whoever was done first."""
    count = paths.last_count(node.path)
    return -1 if count is None else count


def _node(nodes: dict[StepPath, TraceNode], path: StepPath) -> TraceNode:
    if path not in nodes:
        nodes[path] = TraceNode(path)
        _node(nodes, parent(path)).children.append(nodes[path])
    return nodes[path]


def _fail(nodes: dict[StepPath, TraceNode], error: ErrorInfo) -> None:
    """Show at its step what a run failed with: that of a composite is nowhere else."""
    node = _node(nodes, StepPath(error.path))
    if error.path and node.error is None:
        node.status, node.error = "failed", error


def _record(node: TraceNode, entry: Entry) -> None:
    detail = canonical.decode(entry.detail) if entry.detail else {}
    if "asked" in detail:
        node.answered.append((detail["asked"], detail["model"]))
    if entry.kind is EntryKind.DECISION:
        if entry.attempt <= 1:
            node.decision = canonical.decode(entry.output or b"null")
        return
    node.kind = entry.fingerprint or node.kind
    node.status = entry.status
    node.attempts = max(node.attempts, entry.attempt)
    node.usage += entry.usage
    node.seconds += max(0.0, entry.ended_at - entry.started_at)
    node.detail = detail
    node.model = detail.get("model", node.model)
    if entry.input is not None:
        node.input = canonical.decode(entry.input)
    if entry.output is not None:
        node.output = canonical.decode(entry.output)
    completed = entry.status is EntryStatus.COMPLETED
    if detail.get("fell_back"):
        node.fell_back = node.error
    node.error = None if completed or not entry.error else ErrorInfo.from_json(canonical.decode(entry.error))


def _infer(node: TraceNode) -> None:
    """Give a composite that has no entry of its own the state and the seconds of what is inside it."""
    for inner in node.children:
        _infer(inner)
    if node.children:
        node.seconds = node.seconds or sum(inner.seconds for inner in node.children)
        states = {inner.status for inner in node.children}
        if node.status == "running":
            node.status = next((each for each in ("paused", "failed") if each in states), "running")
        if node.kind == "" and node.status == "running" and states == {"completed"}:
            node.status = "completed"


def _task(record: RunRecord, usage: Usage | None = None) -> Task:
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
    )
