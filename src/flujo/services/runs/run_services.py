"""Makes the services that execute a process's runs: of the files that each run has pinned, or of Python."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flujo.blueprint.closure import Closure
from flujo.domain import canonical
from flujo.domain.paths import StepPath
from flujo.domain.queues import RunKind
from flujo.domain.run import Launches, pinned_entry, pinned_stubs
from flujo.domain.tree_checks.background import task_under_limit
from flujo.domain.usage import tightest, uncovered
from flujo.engine.background import pipeline_of
from flujo.engine.frame import RANGE_LENGTH, Plans
from flujo.exceptions import FlujoError, ForkRefused, LockMismatch, StateError, TaskUnderLimit
from flujo.governance.logs import logger
from flujo.services.checks.caching import never_cached
from flujo.services.checks.locking import require_match
from flujo.services.checks.pipeline_checks import check_pipeline
from flujo.services.checks.pseudonyms import require_pseudonym_key
from flujo.services.checks.transactions import require_transactions
from flujo.services.project.user_code import UserCode
from flujo.services.runs.background import BackgroundTasks
from flujo.services.runs.execution import Runtime, unchanged
from flujo.services.runs.notices import SILENT, Notifier
from flujo.services.runs.pipeline_registry import registered
from flujo.services.runs.queues import WorkerCheck, place_of_task, queue_table
from flujo.services.runs.run_request import is_stubbed, pinned, pinned_by_name
from flujo.services.runs.service import RunService, limits_of
from flujo.services.scoring.evaluators import pipeline_of as evaluator_pipeline
from flujo.services.scoring.shadow import PinnedEvaluator, Scoring, Shadow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from flujo.domain.context_references import StateProvider
    from flujo.domain.models import AppResources, PipelineContext
    from flujo.domain.outbox import Notify
    from flujo.domain.pipeline import BaseStep, Pipeline
    from flujo.domain.ports import Binding, Clock, Random, Sink
    from flujo.domain.queues import Parent
    from flujo.domain.run import RunRecord
    from flujo.domain.shared_budgets import BudgetRule
    from flujo.domain.store import BlobStore, StateStore
    from flujo.domain.usage import UsageLimits
    from flujo.engine.answer_cache import AnswerCache
    from flujo.services.checks.pipeline_checks import Flow
    from flujo.services.workspace import Blueprint, Workspace


log = logger("flujo.notify")


@dataclass(slots=True, kw_only=True)
class RunServices:
    """Makes one service per closure, from what all runs of this process share.

    The command line, workers and `Flujo` get every service here, so a run of a blueprint is executed alike,
    whichever of them started it.
    """

    workspace: Workspace
    store: StateStore
    clock: Clock
    random: Random
    resources: AppResources | None
    cache: AnswerCache
    providers: Mapping[str, StateProvider]
    limits: UsageLimits | None
    rules: Sequence[BudgetRule] = ()
    """The budgets that several runs share."""
    context_model: type[PipelineContext] | None = None
    """The class of the context, instead of the one that a pipeline names."""
    range_length: int = RANGE_LENGTH
    is_durable: bool = True
    """Whether the store outlives the process."""
    task_sink: Sink | None = None
    """Gets the events of background tasks."""
    tasks: BackgroundTasks = field(init=False)
    """The background tasks that this process executes."""
    _made: dict[str, RunService] = field(default_factory=dict)
    _making: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        """Make what executes background tasks."""
        self.tasks = BackgroundTasks(self.store, self.of_run, WorkerCheck(self.clock), self.task_sink)

    @classmethod
    async def of_project(cls, workspace: Workspace) -> RunServices:
        """Return the services of a process that has only the project's settings: a command or a worker.

        The workspace lets their evaluations continue for a while before it closes.
        """
        services = cls(
            workspace=workspace,
            store=await workspace.store(),
            clock=workspace.clock,
            random=workspace.random,
            resources=await workspace.resources(),
            cache=await workspace.answer_cache(),
            providers=workspace.state_providers,
            limits=workspace.project.settings.budgets.limits,
            rules=workspace.project.settings.budgets.rules,
        )
        workspace.before_close(services.tasks.aclose)
        return services

    def of_blueprint(self, blueprint: Blueprint) -> RunService:
        """Return the service of a blueprint; see `of_pipeline`."""
        output = check_pipeline(blueprint.pipeline)
        return self.of_pipeline(blueprint.pipeline, blueprint, output=output)

    def of_pipeline(
        self,
        pipeline: Pipeline,
        blueprint: Blueprint | None = None,
        *,
        output: Flow | None,
        binding: Binding | None = None,
        context_model: type[PipelineContext] | None = None,
        limits: UsageLimits | None = None,
        lock_digest: str | None = None,
    ) -> RunService:
        """Return the service of a pipeline written in Python, or of a blueprint, whose files runs pin.

        `output` is what `check_pipeline` has returned.

        Raises:
            CallableError | AgentError: it cannot be bound here.
            TransactionRefused: a tool of it cannot write to this storage of runs.
            PseudonymsNeedKeys: it tokenises personal data, and this storage of runs has no key for it.
            TaskUnderLimit: the runs have a limit, and a step in the background has no budget.
            QueueUnknown: the settings do not have the queue of a step in the background.
        """
        closure, blobs = pinned(pipeline, blueprint)
        limited = limits_of(pipeline, limits, self.limits)
        self._require_launchable(pipeline, tightest(limits, self.limits))
        bound = binding or self.workspace.bind(pipeline, context_model or self.context_model)
        place = partial(place_of_task, self.workspace.project.settings, bound) if self.is_durable else None
        launches = Launches(pipeline=pipeline.name, closure=closure, blobs=blobs, place=place)
        require_transactions(pipeline, bound, self.store)
        governance = self.workspace.project.settings.governance
        require_pseudonym_key(pipeline, bound, self.store, governance.treatment)
        for _, step, why in never_cached(pipeline, bound, self.resources):
            self.cache.report(step.name, why)
        service = RunService(
            runtime=self._runtime(
                pipeline,
                bound,
                closure,
                limits=limited,
                load_output=unchanged if output is None else output.load,
                launches=launches if _begins_runs(pipeline) else None,
            ),
            closure=closure,
            blobs=blobs,
            lock_digest=lock_digest if blueprint is None else blueprint.lock_digest,
            providers=self.providers,
            files=self.workspace.files,
        )
        self._made.setdefault(pinned_stubs(closure)[0], service)  # its forks
        return self._made.setdefault(closure, service)

    def _runtime(
        self,
        pipeline: Pipeline,
        bound: Binding,
        closure: str,
        *,
        limits: UsageLimits | None,
        load_output: Callable[[Any], Any],
        launches: Launches | None,
    ) -> Runtime:
        """Return what the executions of a pipeline's runs share: its own parts, and those of the project."""
        settings = self.workspace.project.settings
        return Runtime(
            pipeline=pipeline,
            binding=bound,
            store=self.store,
            clock=self.clock,
            random=self.random,
            closure=closure,
            resources=self.resources,
            cache=self.cache,
            limits=limits,
            rules=self.rules,
            tools=settings.governance.policy,
            pii=settings.governance.treatment,
            range_length=self.range_length,
            load_output=load_output,
            is_durable=self.is_durable,
            transcripts=settings.journal.transcripts,
            locate=UserCode(self.workspace.project.root),
            notifier=self._notifier(pipeline),
            shadow=Shadow.of(settings, pipeline) if self.is_durable else None,
            launches=launches,
            tasks=self.tasks,
            telemetry=self.workspace.telemetry,
        )

    def _require_launchable(self, pipeline: Pipeline, limits: UsageLimits | None) -> None:
        """Refuse steps in the background that no run of the pipeline could launch."""
        for path, step in launching_steps(pipeline):
            if missing := uncovered(limits, step.config.budget):
                message, hint = task_under_limit(step, path, missing)
                raise TaskUnderLimit(message, hint=hint)
            if step.config.queue is not None:
                queue_table(self.workspace.project.settings, step.config.queue)

    def _notifier(self, pipeline: Pipeline) -> Notifier:
        """Return what sends messages about the runs of a pipeline; one that is not persisted sends none."""
        if not self.is_durable:
            return SILENT
        return Notifier.of(self.workspace.project.settings, pipeline.name, pipeline.notify, self.clock)

    async def of_run(self, record: RunRecord) -> RunService:
        """Return the service of a run: of its pinned blueprint, or of a registered Python pipeline.

        Raises:
            StateError: the Python pipeline is not registered in this process.
            LockMismatch: a lock is required, and the run was started without one.
            BlueprintError | CallableError | AgentError: it cannot be bound here.
        """
        async with self._making:
            if record.closure not in self._made:
                self._made[record.closure] = await self._of_run(record)
            return self._made[record.closure]

    async def of_fork(self, record: RunRecord, overrides: Mapping[str, str]) -> RunService:
        """Return the service of a fork of a run: what the run has pinned, with other overrides of agents.

        Raises:
            ForkRefused: its pipeline is written in Python.
            SettingsError: there is no such agent.
            LockMismatch: a lock is required, and it does not hold the pipeline with the overrides.
            BlueprintError | CallableError | AgentError: it cannot be bound here.
        """
        if not overrides:
            return await self.of_run(record)
        if is_python(record):
            raise ForkRefused(
                f"pipeline {record.pipeline!r} is written in Python; its prompts and models are not pinned",
                hint="change them in the code, then fork the run without overrides",
                run_id=record.run_id,
            )
        closure = await pinned_closure(self.store, record)
        changed = replace(closure, overrides={**closure.overrides, **overrides})
        blueprint = self.workspace.load_pinned(changed)
        require_tested(self.workspace, replace(record, lock_digest=None), blueprint)
        return self._made.get(changed.digest) or self.of_blueprint(blueprint)

    async def _of_task(self, record: RunRecord, parent: Parent) -> RunService:
        """Return the service of a background task: one step of what its parent has pinned."""
        manifest = (await self.store.blobs([record.closure]))[record.closure]
        whole = canonical.decode(manifest)["task"]
        if whole not in self._made:
            self._made[whole] = await self._of_run(replace(record, closure=whole, parent=None))
        service = self._made[whole]
        found = pipeline_of(service.runtime.pipeline, parent.entry)
        if found is None:
            raise StateError(
                f"pipeline {record.pipeline!r} has no step `{parent.entry}`, which background task "
                f"{record.run_id} executes",
                hint="restore the step in the pipeline, or cancel the task",
            )
        pipeline, owner = found
        launches = service.runtime.launches
        assert launches is not None  # noqa: S101 - for the type checker: of a service made above
        runtime = replace(
            service.runtime,
            pipeline=pipeline,
            owner=owner,
            limits=limits_of(pipeline, service.runtime.limits),
            plans=Plans(),
            load_output=unchanged,
            launches=replace(launches, inside=StepPath(parent.entry.rpartition("/")[0])),
        )
        blobs = {**service.blobs, record.closure: manifest}
        return replace(service, runtime=runtime, closure=record.closure, blobs=blobs)

    async def _of_evaluation(self, record: RunRecord) -> RunService:
        """Return the service of a run that scores another one, from the evaluator that it pins."""
        manifest = (await self.store.blobs([record.closure]))[record.closure]
        return self.of_evaluator(PinnedEvaluator.load(manifest), record.pipeline)

    def of_evaluator(self, pinned_evaluator: PinnedEvaluator, name: str) -> RunService:
        """Return the service of runs that score others.

        Args:
            pinned_evaluator: what they pin.
            name: the pipeline whose outputs they score.

        Raises:
            CallableError | AgentError: it cannot be bound here.
        """
        settings = self.workspace.project.settings
        manifest = pinned_evaluator.manifest
        closure = canonical.digest(manifest)
        pipeline = evaluator_pipeline(
            pinned_evaluator.evaluator,
            name=name,
            allow_callables=settings.blueprints.allow_callables,
            timeout_s=pinned_evaluator.timeout_s,
            cost_usd=pinned_evaluator.cost_usd,
        )
        return RunService(
            runtime=Runtime(
                pipeline=pipeline,
                binding=self.workspace.bind(pipeline),
                store=self.store,
                clock=self.clock,
                random=self.random,
                closure=closure,
                resources=self.resources,
                cache=self.cache,
                limits=limits_of(pipeline, self.limits),
                # An evaluation that waited for a budget would be a question to a human about a score.
                rules=[replace(rule, on_exhausted="fail") for rule in self.rules],
                transcripts=settings.journal.transcripts,
                locate=UserCode(self.workspace.project.root),
                scoring=Scoring(pinned=pinned_evaluator, to_log=settings.evaluation.sink == "log"),
                tasks=self.tasks,
                telemetry=self.workspace.telemetry,
            ),
            closure=closure,
            blobs={closure: manifest},
            providers=self.providers,
            files=self.workspace.files,
        )

    async def _of_run(self, record: RunRecord) -> RunService:
        if record.kind is RunKind.EVAL:
            return await self._of_evaluation(record)
        if record.parent is not None:
            return await self._of_task(record, record.parent)
        if not is_python(record):
            blueprint = await pinned_blueprint(self.workspace, self.store, record)
            require_tested(self.workspace, record, blueprint)
            return self.of_blueprint(blueprint)
        found = registered(record.pipeline)
        if found is None:
            raise StateError(
                f"Python pipeline {record.pipeline!r} is not registered in this process",
                hint="`flujo worker --import MODULE`, where that module calls `flujo.register`",
            )
        return self.of_pipeline(
            found.pipeline,
            output=check_pipeline(found.pipeline, is_pinned=False),
            context_model=found.context_model,
            limits=found.usage_limits,
        )


async def notifier_of(ws: Workspace, store: BlobStore, record: RunRecord) -> Notifier:
    """Return what sends messages about a run that is ended without being executed.

    The settings decide alone when its pipeline cannot be read here: the run ends in any case.
    """
    settings = ws.project.settings
    own: Notify = ()
    if settings.notify:
        try:
            found = (
                registered(record.pipeline)
                if is_python(record)
                else await pinned_blueprint(ws, store, record)
            )
            own = () if found is None else found.pipeline.notify
        except FlujoError as error:
            log.warning("run %s: `notify` of its pipeline cannot be read: %s", record.run_id, error)
    return Notifier.of(settings, record.pipeline, own, ws.clock)


# What a run has pinned -----------------------------------------------------------------------------------


def is_python(record: RunRecord) -> bool:
    """Return whether a run has pinned only the name of a pipeline that is written in Python."""
    closure = pinned_by_name(record.pipeline)[0]
    plain = closure if record.parent is None else pinned_entry(closure, record.parent.entry)[0]
    return record.closure == plain or is_stubbed(record, closure)


async def pinned_blueprint(
    ws: Workspace, store: BlobStore, record: RunRecord, *, is_read: bool = False
) -> Blueprint:
    """Return the blueprint as it was when the run was accepted, from the blobs in the database.

    With `is_read`, the project needs neither its callables nor its servers: it is never executed.

    Raises:
        StateError: the run is of a pipeline that is written in Python.
        BlueprintError: the blueprint does not pass its checks.
    """
    if is_python(record):
        raise StateError(
            f"run {record.run_id} is of the pipeline {record.pipeline!r}, which is written in Python",
            hint="resume it where that pipeline is built: `await runner.resume_async(run_id)`",
        )
    return ws.load_pinned(await pinned_closure(store, record), is_read=is_read)


async def pinned_closure(store: BlobStore, record: RunRecord) -> Closure:
    """Return the files of a blueprint as they were when the run was accepted; of a task, its parent's."""
    manifest = b""
    pinned: Any = {"task": record.closure}
    while (closure := pinned.get("task", pinned.get("stubbed"))) is not None:
        manifest = (await store.blobs([closure]))[closure]
        pinned = canonical.decode(manifest)
    if "files" not in pinned:  # of an evaluation, whose own closure does not say so
        raise StateError(f"run {record.run_id} is about a run of a pipeline that is written in Python")
    files: Mapping[str, str] = pinned["files"]
    return Closure.load(manifest, await store.blobs(sorted(set(files.values()))))


def pinned_files(service: RunService) -> Mapping[str, bytes]:
    """Return the files that the runs of a blueprint's service pin, by their project paths."""
    launches = service.runtime.launches
    closure = service.closure if launches is None else launches.closure
    return Closure.load(service.blobs[closure], service.blobs).files


def launching_steps(pipeline: Pipeline) -> Iterator[tuple[StepPath, BaseStep]]:
    """Yield the steps that launch runs, with their paths: those in the background, and maps over workers."""
    for path, step in pipeline.walk():
        if step.config.execution_mode == "background" or step.config.is_spread:
            yield path, step


def _begins_runs(pipeline: Pipeline) -> bool:
    """Return whether a step of a pipeline launches a task, or lets a new run continue its run."""
    return any(launching_steps(pipeline)) or any(step.ends_run for _, step in pipeline.walk())


def require_tested(ws: Workspace, record: RunRecord, pinned: Blueprint) -> None:
    """Refuse a run that was started without the lock, where one is required.

    A run that a lock held when it was accepted keeps what it has pinned, whatever the lock holds by
    now: a deploy must not strand the runs that wait for a human.

    Raises:
        LockMismatch: no lock held it when it was accepted, and this one does not either.
    """
    if not ws.project.settings.lockfile.enabled:
        return
    if record.lock_digest is not None and not pinned.closure.unlocked:
        return
    try:
        require_match(ws.project, pinned.path, pinned.pipeline)
    except LockMismatch as error:
        raise LockMismatch(
            f"run {record.run_id} was started with files that do not match the lock\n{error.message}",
            hint="`flujo resume --accept-changes` resumes with the files on disk if they match the lock",
            differences=error.differences,
        ) from None
