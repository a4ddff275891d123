"""Lists, shows, answers and cancels runs, for dashboards, webhooks and operations.

Read-only commands import this module, so code that executes runs is imported where it is called.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from flujo.domain import canonical
from flujo.domain.acts import Via
from flujo.domain.run import PauseKind, RunQuery, RunStatus
from flujo.governance.events import read_error
from flujo.services.inspection.model_mismatch import drifts
from flujo.services.inspection.trace import TraceNode, trace
from flujo.services.inspection.transcripts import load_transcripts
from flujo.services.lifetime import Lifetime
from flujo.services.project.project import find_project
from flujo.services.project.system import SystemClock, actor
from flujo.services.runs.answers import NO_RESULT, record_answer, resolution
from flujo.services.runs.execution import unresolved
from flujo.services.workspace import Workspace, blueprint_of, open_store
from flujo.settings import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.domain.acts import Act, Actor
    from flujo.domain.journal import ErrorInfo
    from flujo.domain.models import PipelineResult
    from flujo.domain.run import Intent, Pause, RunRecord
    from flujo.domain.store import StateStore
    from flujo.domain.usage import Usage
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
    """The earliest deadline of its open questions, in seconds since the epoch."""


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

    @property
    def warnings(self) -> list[str]:
        """Warnings: where a model other than the requested one answered."""
        return drifts(self.trace)

    @property
    def states(self) -> Mapping[str, str]:
        """The state that each state machine is in, or ended in, by the machine's path."""
        return {node.path: node.state for node in self.trace.walk() if node.state}


class TaskClient:
    """Lists, shows, answers and cancels runs from another process than the one that executes them."""

    def __init__(
        self,
        state: Workspace | StateStore | str | None = None,
        *,
        runners: Sequence[Flujo[Any, Any, Any]] = (),
        by: str | None = None,
    ) -> None:
        """Set the location of the runs; opens nothing yet.

        Args:
            state: a database's URI, a store, or a project's workspace; the caller closes the latter two.
                Default: the database of the project in this folder (`FLUJO_STATE_URI`, flujo.toml).
            runners: runners that resume runs of their pipelines after `resume_task`. Runs of a project's
                blueprints need no runner.
            by: the name recorded for acts of this client. Default: the user of this process.
        """
        self._by = by
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
        """Return runs, newest first; all given conditions must hold.

        Raises:
            SettingsError: a metadata key is not an identifier.
        """
        statuses = () if status is None else (RunStatus(status),)
        query = RunQuery(statuses=statuses, user_id=user_id, metadata=metadata_filter or {}, limit=limit)
        store = await self._store()
        return [_task(record) for record in await store.runs(query)]

    async def get_task(self, run_id: str, *, transcripts: bool = False) -> TaskDetail:
        """Return a run with its history.

        Args:
            run_id: the id, a unique prefix, or `@last`.
            transcripts: whether to read the transcripts of attempts.

        Raises:
            RunNotFound: the run does not exist.
        """
        store = await self._store()
        record = await store.find(run_id)
        progress = await store.progress(record.run_id)
        tree = await trace(store, record)
        if transcripts:
            await load_transcripts(store, tree)
        return TaskDetail(
            task=_task(record, progress.usage),
            input=canonical.decode(record.input),
            output=None if record.output is None else canonical.decode(record.output),
            context=canonical.decode(record.context_now or record.context),
            error=None if record.error is None else read_error(record.error),
            pauses=progress.pauses,
            trace=tree,
            lock_digest=record.lock_digest,
            acts=tuple(await store.acts(record.run_id)),
            in_doubt=() if record.status is RunStatus.RUNNING else await unresolved(store, record.run_id),
        )

    async def resume_task(
        self,
        run_id: str,
        input: Any,  # noqa: A002 - the name that the manual prints
        pause_id: str | None = None,
        *,
        detach: bool = False,
        by: str | None = None,
    ) -> PipelineResult[Any, Any]:
        """Answer a paused run's question and resume the run if its pipeline is available.

        Otherwise (a Python pipeline without its runner, a database without its project) the answer is
        recorded, and the result's `note` says how to resume the run. A call in doubt is not a question: see
        `resolve_task`.

        Args:
            run_id: an id, a unique prefix of one, or `@last`.
            input: the answer: JSON data that fits the question's `answer_schema`.
            pause_id: the path of the step that asks, if several questions are open.
            detach: only record the answer.
            by: who answers, instead of the client's `by`.

        Raises:
            RunNotFound | AmbiguousPause | WrongPauseKind | InputRejected | ResumeConflict: see
                `services.runs.answers`.
        """
        return await self._settle(PauseKind.QUESTION, run_id, input, pause_id, detach=detach, by=by)

    async def resolve_task(
        self,
        run_id: str,
        outcome: str,
        *,
        result: Any = NO_RESULT,
        pause_id: str | None = None,
        detach: bool = False,
        by: str | None = None,
    ) -> PipelineResult[Any, Any]:
        """Set the outcome of a call in doubt and resume the run, as `resume_task` does.

        Args:
            run_id: an id, a unique prefix of one, or `@last`.
            outcome: `done` (the call took effect), `retry` (call again) or `fail` (fail the step).
            result: the call's result; only with `done`.
            pause_id: the id of the doubt, if several calls are in doubt.
            detach: only record the outcome.
            by: who resolves, instead of the client's `by`.

        Raises:
            RunNotFound | AmbiguousPause | WrongPauseKind | InputRejected | ResumeConflict: see
                `services.runs.answers`.
        """
        answer = resolution(outcome, result)
        return await self._settle(PauseKind.DOUBT, run_id, answer, pause_id, detach=detach, by=by)

    async def _settle(
        self,
        kind: PauseKind,
        run_id: str,
        answer: Any,
        pause_id: str | None,
        *,
        detach: bool,
        by: str | None,
    ) -> PipelineResult[Any, Any]:
        from flujo.services.runs import blueprint_runs, run_services

        store = await self._store()
        record = await store.find(run_id)
        runner, who = self._runners.get(record.pipeline), self._actor(by)
        if (
            runner is not None
            and blueprint_of(runner.pipeline) is None
            and not run_services.is_python(record)
        ):
            runner = None  # a pipeline written in Python does not execute the run of a blueprint
        if runner is None and isinstance(self._state, Workspace):
            return await blueprint_runs.answer(
                self._state, record.run_id, pause_id, answer, actor=who, kind=kind, detach=detach
            )
        await record_answer(store, record, pause_id, answer, who, kind=kind)
        if runner is None or detach:
            return await blueprint_runs.report_unclaimed(store, record)
        return await blueprint_runs.ignore_if_owned(store, record, runner.resume_async(record.run_id))

    async def cancel_task(self, run_id: str, *, by: str | None = None) -> Task:
        """Cancel a run.

        The process that executes the run stops it; this call waits for that for up to 30 seconds. A task that
        is still `running` then is cancelled when its step ends. A run without an owner is cancelled at once.

        Args:
            run_id: an id, a unique prefix of one, or `@last`.
            by: who cancels, instead of the client's `by`.

        Raises:
            RunNotFound: the run does not exist.
            ResumeConflict: the run has already ended.
        """
        from flujo.services.runs import blueprint_runs

        store, who = await self._store(), self._actor(by)
        return _task(await blueprint_runs.cancel(store, run_id, who, clock=SystemClock()))

    def _actor(self, by: str | None) -> Actor:
        return actor(self._by if by is None else by, Via.API)

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
