"""The runner: `Flujo` accepts, executes and resumes runs of one pipeline."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self

from typing_extensions import TypeVar

from flujo.domain.acts import Via
from flujo.domain.evaluations import EVALUATION_ID
from flujo.domain.forks import renew_in_children
from flujo.domain.models import Ctx, Out, PipelineResult
from flujo.domain.outbox import named_targets
from flujo.domain.queues import DEFAULT_QUEUE, TASK_ID, RunKind
from flujo.domain.run import PauseKind, RunQuery, RunStatus
from flujo.domain.usage import tightest
from flujo.engine.answer_cache import AnswerCache
from flujo.engine.frame import RANGE_LENGTH
from flujo.exceptions import FlujoError, PausedException, RunConflict, SettingsError, SyncInAsync
from flujo.governance.logs import logger
from flujo.services.binding.blob_references import checked_providers
from flujo.services.checks.locking import lock_digest_by_name
from flujo.services.checks.pipeline_checks import check_pipeline, checked_pipeline
from flujo.services.given import text, text_or_none, whole_number
from flujo.services.lifetime import ClosedAtExit, Lifetime, within
from flujo.services.project.project import find_project
from flujo.services.project.recovery_policy import RecoveryPolicy
from flujo.services.project.system import SystemClock, SystemRandom, actor
from flujo.services.recorded.replay import replay
from flujo.services.resources import checked_resources
from flujo.services.runs.answers import NO_RESULT, resolution
from flujo.services.runs.chains import find_last
from flujo.services.runs.changes import kept_note
from flujo.services.runs.deliveries import Deliveries
from flujo.services.runs.execution import result_of
from flujo.services.runs.expired_rows import ExpiredRows
from flujo.services.runs.forks import UNCHANGED, Fork, execute_fork
from flujo.services.runs.hooks import combine_hooks
from flujo.services.runs.in_flight import InFlight
from flujo.services.runs.notices import SILENT, Notifier
from flujo.services.runs.queues import WorkerCheck, place
from flujo.services.runs.recovery import Recovery
from flujo.services.runs.replays import difference_in, replayed
from flujo.services.runs.run_request import (
    Request,
    checked_context,
    context_fields,
    require_no_enforcement,
)
from flujo.services.runs.run_services import RunServices, is_python, pinned_blueprint, pinned_files
from flujo.services.runs.runner_arguments import check_arguments, checked_sink
from flujo.services.runs.service import NO_ANSWER, RunService
from flujo.services.runs.streaming import Delivery, RunStream
from flujo.services.scoring.evaluators import named_evaluators
from flujo.services.scoring.shadow import named_in_steps
from flujo.services.workspace import Workspace, blueprint_of, checked_limits
from flujo.state.memory_cache import MemoryCache
from flujo.state.memory_store import MemoryStateStore
from flujo.state.rules import MAX_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AsyncExitStack

    from flujo.domain.context_references import StateProvider
    from flujo.domain.journal import RunId
    from flujo.domain.models import AppResources, Metadata
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import Binding, CacheBackend, Clock, Random, Sink
    from flujo.domain.run import RunRecord
    from flujo.domain.store import StateStore
    from flujo.domain.usage import UsageLimits
    from flujo.services.runs.execution import Stop
    from flujo.services.runs.run_request import IfExists

In = TypeVar("In", default=Any)

log = logger("flujo.runs")


class Flujo(ClosedAtExit, Generic[In, Out, Ctx]):
    """Runs one pipeline. Build it once, share it, and close it with `aclose` or `async with`."""

    def __init__(
        self,
        pipeline: Pipeline[In, Out],
        *,
        context_model: type[Ctx] | None = None,
        initial_context_data: Mapping[str, Any] | None = None,
        resources: AppResources | None = None,
        state_providers: Mapping[str, StateProvider] | None = None,
        cache: CacheBackend | None = None,
        usage_limits: UsageLimits | None = None,
        persist_state: bool = True,
        raise_on_pause: bool = False,
        hooks: Sequence[Sink] = (),
        recovery: RecoveryPolicy | bool = True,
        store: StateStore | None = None,
        binding: Binding | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
        range_length: int = RANGE_LENGTH,
    ) -> None:
        """Create the runner; files and the database are opened at its first use.

        Args:
            pipeline: the tree. Runs of one that `read_blueprint` returned pin the files of the blueprint and
                belong to its project; others pin only its name and belong to the project of this folder.
            context_model: the class of its context. Default: the class that the pipeline names.
            initial_context_data: fields of the context at the start of every run.
            resources: passed to callables with a `resources` parameter; never journaled. Default: for a
                blueprint, `[project] resources` when this runner opens its state.
            state_providers: storages of the values behind `ContextReference`s, by the ids that the references
                name; the caller closes them. Default: `[state_providers]` of the project.
            cache: storage for the answers of cached steps. Default: `[cache]` of the project when this runner
                opens its state, otherwise the memory of this runner.
            usage_limits: the most that a run may use. `[budgets]` of the project and the pipeline's own
                `budget` apply as well; the tightest limit counts.
            persist_state: False keeps the journal in memory: nothing survives the process.
            raise_on_pause: raise `PausedException` instead of returning a paused result.
            hooks: async callables that get every event of every run, in this order, while the run
                waits. One that raises is reported to the log `flujo.hooks` and never breaks the run.
            recovery: whether this runner, from its first use until it is closed, fires the deadlines of
                questions and resumes orphaned runs of its own pipeline. True: with the project's settings.
            store: storage of runs; the caller closes it. Default: the one of the project's settings.
            binding: the bound callables and agents of the pipeline, when the caller has bound them already.
            clock: time, for tests.
            random: ids and jitter, for tests.
            range_length: how many ended items of a map share an entry; fewer than 1,000 only for tests.

        Raises:
            PipelineError: the tree has an error, or the output of a step does not fit the input of the next.
            SettingsError: an argument is of the wrong type, or a step enforces its idempotency and nothing is
                persisted.
        """
        protocols = {"store": store, "cache": cache, "binding": binding, "clock": clock, "random": random}
        check_arguments(hooks, recovery, range_length, protocols)
        self._store = store
        self._opens_state = store is None and persist_state
        self._binding: Binding | None
        self._given_binding = binding
        self.pipeline = pipeline
        self._context_data = context_fields(initial_context_data)
        self._context_model = None if context_model is None else checked_context(context_model)
        self._resources = None if resources is None else checked_resources(resources, "`resources`")
        self._providers = None if state_providers is None else checked_providers(state_providers)
        self._has_own_cache = cache is not None
        self._cache = AnswerCache(MemoryCache() if cache is None else cache)
        self._usage_limits = None if usage_limits is None else checked_limits(usage_limits, "`usage_limits`")
        self._hooks = tuple(hooks)
        self._raise_on_pause = raise_on_pause
        self._workspace: Workspace | None = None
        self._services: RunServices | None = None
        self._service: RunService | None = None
        self._lifetime = Lifetime(f"the runner of pipeline {pipeline.name!r}")
        self._in_flight = InFlight(pipeline.name)
        self._recovery_policy = recovery
        self._binding = binding
        self._clock: Clock = clock or SystemClock()
        self._random: Random = random or SystemRandom()
        self._range_length = range_length
        self._renew()
        renew_in_children(self, type(self)._renew)

    def _renew(self) -> None:
        """Forget the event loops of the parent process; called in a forked child."""
        self._guard = threading.Lock()
        self._worker_check = WorkerCheck(self._clock)
        """For each queue, when to look next whether a worker of it is alive."""
        self._streams: set[Delivery[Out, Ctx]] = set()
        self._recoveries: dict[asyncio.AbstractEventLoop, Recovery] = {}
        self._scripts: set[asyncio.AbstractEventLoop] = set()
        """The loops of calls of `run`, the last of which closes what they have opened."""
        self._is_kept = False
        """Whether it was used outside `run`: then only `aclose` closes its resources."""

    @property
    def pipeline(self) -> Pipeline[In, Out]:
        """What this runner runs. Another pipeline can be set before the first use."""
        return self._pipeline

    @pipeline.setter
    def pipeline(self, pipeline: Pipeline[In, Out]) -> None:
        checked, self._blueprint = checked_pipeline(pipeline), blueprint_of(pipeline)
        self._output = check_pipeline(checked, is_pinned=self._blueprint is not None)
        if self._store is None and not self._opens_state:
            require_no_enforcement(pipeline)
        self._pipeline = pipeline
        self._binding = None

    async def __aenter__(self) -> Self:
        self._attend()
        return self

    async def run_result_async(
        self,
        initial_input: In,
        *,
        initial_context_data: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        metadata: Metadata | None = None,
        if_exists: IfExists = "attach",
        sink: Sink | None = None,
    ) -> PipelineResult[Out, Ctx]:
        """Run the pipeline until it completes, fails, or pauses for a human.

        Args:
            initial_input: JSON data that fits the pipeline's `input_schema`.
            initial_context_data: fields of the context at the start.
            run_id: an id chosen by the caller, which makes starting idempotent.
            metadata: flat facts to find the run by.
            if_exists: what to do when `run_id` exists already with the same pipeline, input and initial
                context: resume it, or wait while another process executes it (`attach`); raise `RunConflict`
                (`fail`); resume it, or raise `ResumeConflict` while another process executes it (`resume`);
                return its state (`return`).
            sink: gets every event of the run, as it happens.

        A cancellation of this call stops the run here and releases it: recovery, in this process or another,
        resumes it. `TaskClient.cancel_task` ends a run.

        Raises:
            InputRejected: the input or the context does not fit.
            RunConflict: `run_id` is taken by another pipeline, input or context, or `if_exists` is `fail`.
            StateError: the journal could not be written; the run can be resumed.
        """
        request = Request(initial_input, initial_context_data, run_id, metadata, if_exists)
        return self._returned(await self._accept(request, sink))

    async def submit(
        self,
        initial_input: In,
        *,
        queue: str = DEFAULT_QUEUE,
        priority: int = 0,
        delay_s: float = 0.0,
        initial_context_data: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        metadata: Metadata | None = None,
    ) -> RunId:
        """Record a run in a queue and return its id; a `flujo worker` of that queue executes it.

        When no worker of the queue is alive, the log `flujo.runs` reports it, at most twice a minute; the run
        waits for one.

        Args:
            initial_input: JSON data that fits the pipeline's `input_schema`.
            queue: `default`, or the name of a table `[queues.NAME]` in the settings of the project.
            priority: from -1,000,000 to 1,000,000; a run is preferred to those of one priority less that came
                up to a minute before it.
            delay_s: how many seconds no worker takes it.
            initial_context_data: fields of the context at the start.
            run_id: an id chosen by the caller, which makes this idempotent.
            metadata: flat facts to find the run by.

        Raises:
            InputRejected: the input or the context does not fit, or has no value for `per_key` of the queue.
            QueueUnknown: the settings have no such queue.
            SettingsError: this runner does not persist its runs, or an argument is out of range.
            RunConflict: `run_id` is taken by another pipeline, input or context.
        """
        if self._store is None and not self._opens_state:
            raise SettingsError(
                "a run without persistence cannot wait for a worker",
                hint="leave `persist_state` out, or await `run_result_async`",
            )
        service = await self._open()
        context = {**self._context_data, **context_fields(initial_context_data)}
        request = Request(initial_input, context, run_id, metadata)
        settings = self._home().project.settings
        placing = partial(place, settings, queue=queue, priority=priority, delay_s=delay_s)
        record = await service.submit(request, placing)
        await self._worker_check.look(service.runtime.store, record.run_id, queue)
        return record.run_id

    def run_stream(
        self,
        initial_input: In,
        *,
        initial_context_data: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        metadata: Metadata | None = None,
        if_exists: IfExists = "attach",
        detach: bool = False,
        buffer: int = 64,
    ) -> RunStream[Out, Ctx]:
        """Run the pipeline and yield `Chunk`s of text, a `StepEnded` per step, the `PipelineResult` last.

        Use it with `async with`, so that the run ends when you stop reading:

            async with runner.run_stream("...") as stream:
                async for item in stream:
                    ...

        Args:
            initial_input: see `run_result_async`, as the other arguments that both have.
            initial_context_data: see there.
            run_id: see there.
            metadata: see there.
            if_exists: see there.
            detach: let the run continue when the stream is closed, instead of interrupting it.
            buffer: how many items may wait for the reader before the run waits as well; at least 1.

        Raises (from the stream):
            what `run_result_async` raises, except `PausedException`: a paused run ends with its result.
        """
        if whole_number(buffer, "buffer") < 1:
            raise SettingsError(f"`buffer` is {buffer}, and a stream holds at least 1 item")
        request = Request(initial_input, initial_context_data, run_id, metadata, if_exists)
        start = partial(self._accept, request)
        return RunStream(Delivery(start, buffer=buffer, detach=detach, running=self._streams))

    async def resume_async(
        self,
        run_id: str,
        answer: Any = NO_ANSWER,
        *,
        pause_id: str | None = None,
        retry_failed: bool = False,
        accept_changes: bool = False,
        by: str | None = None,
        sink: Sink | None = None,
    ) -> PipelineResult[Out, Ctx]:
        """Resume a run of this pipeline where its journal ends.

        A run of a blueprint keeps the files that it has pinned, whatever this runner has read since. When the
        files on disk differ, the log `flujo.runs` reports it.

        Args:
            run_id: an id, a unique prefix of one, or `@last`.
            answer: to the open question of a paused run; recorded before the run is resumed.
            pause_id: which question, when several are open: the path of the step that asks.
            retry_failed: whether the step at which a failed run failed gets its attempts again.
            accept_changes: whether a `granular` step continues its conversation with an agent that has
                changed; files that the run has pinned stay as they are.
            by: who answers or retries, for the run's acts. Default: the user that this process runs as.
            sink: gets every event of the run, as it happens.

        Raises:
            RunNotFound: no run, or more than one, matches `run_id`.
            RunConflict: it is a run of another pipeline, or has pinned a blueprint's files and this pipeline
                is written in Python.
            AmbiguousPause: several questions are open and `pause_id` names none.
            WrongPauseKind: the pause is a call in doubt; see `resolve_async`.
            InputRejected: the answer does not fit the question's schema.
            ResumeConflict: another process executes it, or it cannot be resumed.
        """
        with self._in_flight.executing():
            service = await self._service_for(text(run_id, "run_id"))
            result = await service.resume(
                run_id,
                answer,
                pause_id=text_or_none(pause_id, "pause_id"),
                retry_failed=retry_failed,
                accept_changes=accept_changes,
                actor=actor(by, Via.API),
                sink=self._told(sink),
            )
        return self._returned(result)

    async def resolve_async(
        self,
        run_id: str,
        outcome: str,
        *,
        result: Any = NO_RESULT,
        pause_id: str | None = None,
        by: str | None = None,
        sink: Sink | None = None,
    ) -> PipelineResult[Out, Ctx]:
        """Set the outcome of a call in doubt, and resume its run.

        Args:
            run_id: an id, a unique prefix of one, or `@last`.
            outcome: `done` (the call took effect), `retry` (call again) or `fail` (fail the step).
            result: the call's result; only with `done`.
            pause_id: the id of the doubt, if several calls are in doubt.
            by: who resolves, for the run's acts. Default: the user that this process runs as.
            sink: gets every event of the run, as it happens.

        Raises:
            RunNotFound: no run, or more than one, matches `run_id`.
            RunConflict: it is a run of another pipeline.
            AmbiguousPause: several calls are in doubt and `pause_id` names none.
            WrongPauseKind: the pause is a question; see `resume_async`.
            InputRejected: the outcome is unknown, or the result does not fit the step's schema.
            ResumeConflict: another process executes it, or it cannot be resumed.
        """
        with self._in_flight.executing():
            service = await self._service_for(text(run_id, "run_id"))
            resumed = await service.resume(
                run_id,
                resolution(text(outcome, "outcome"), result),
                pause_id=text_or_none(pause_id, "pause_id"),
                kind=PauseKind.DOUBT,
                actor=actor(by, Via.API),
                sink=self._told(sink),
            )
        return self._returned(resumed)

    async def fork_async(
        self,
        run_id: str,
        *,
        at: str,
        initial_input: Any = UNCHANGED,
        context: Mapping[str, Any] | None = None,
        answers: Mapping[str, Any] | None = None,
        prompts: Mapping[str, str] | None = None,
        models: Mapping[str, str] | None = None,
        live_effects: bool = False,
        new_run_id: str | None = None,
        by: str | None = None,
        sink: Sink | None = None,
    ) -> PipelineResult[Out, Ctx]:
        """Start a new run that has everything before a path in common with another one, and is live after it.

        Calls with an effect other than `read` are not made: the result of the parent replaces the same call
        (by path, tool and arguments), and a human decides about any other one. The parent stays as it is.

        Args:
            run_id: the parent: an id, a unique prefix of one, or `@last`.
            at: a step, iteration, item, branch, turn or tool call that the parent has reached.
            initial_input: the input, instead of that of the parent.
            context: fields of the context that have other values from `at` on.
            answers: answers to questions of the fork, by the paths of their steps.
            prompts: other instructions of agents, by their names; only of a pipeline that was read from a
                blueprint.
            models: other models of agents, by their names; as `prompts`.
            live_effects: make all calls.
            new_run_id: the id of the fork; by default a new one.
            by: who forks, for the acts of both runs. Default: the user that this process runs as.
            sink: gets every event of the fork, as it happens.

        Raises:
            RunNotFound: no run, or more than one, matches `run_id`.
            RunConflict: it is a run of another pipeline, or `new_run_id` is taken.
            ForkPointMissing: the run has not reached `at`, or there is no such path.
            ForkRefused: another process executes the run, or the changes cannot be made.
            InputRejected: the input or the context does not fit.
            SettingsError: there is no agent of a name in `prompts` or `models`.
            CorruptState: an entry or a content of the run is missing.
        """
        fork = Fork(
            at=text(at, "at"),
            input=initial_input,
            context=context_fields(context),
            answers=dict(answers or {}),
            prompts=dict(prompts or {}),
            models=dict(models or {}),
            live_effects=live_effects,
            run_id=text_or_none(new_run_id, "new_run_id"),
        )
        with self._in_flight.executing():
            service = await self._service_for(text(run_id, "run_id"))
            store = service.runtime.store
            record = await store.find(run_id)
            service.require_own(record)
            if fork.overrides and self._services is not None:
                service = await self._services.of_fork(record, fork.overrides)
            result = await execute_fork(
                store, record, service, fork, actor(by, Via.API), sink=self._told(sink)
            )
        return self._returned(result)

    async def replay_from_trace(self, run_id: str, *, until: str | None = None) -> PipelineResult[Out, Ctx]:
        """Replay a run of this pipeline from its record: no agent, tool or callable is called.

        Each decision, what each step gets and what each composite gives are computed again and compared with
        the record. A run of a blueprint is replayed with the files that it has pinned. The run is unchanged,
        whatever its status; a run that has not ended is replayed as far as it has come.

        Args:
            run_id: an id, a unique prefix of one, or `@last`.
            until: a step, after which the replay ends.

        Returns:
            The result of the run, with the steps of the replay.

        Raises:
            RunNotFound: no run, or more than one, matches `run_id`.
            RunConflict: it is a run of another pipeline.
            ReplayDiverged: the first difference: `path`, `cause`, `recorded` and `now`.
            SettingsError: the run has no step at `until`.
            CorruptState: an entry is damaged, or a blob is missing.
        """
        store = await self._source()
        record = await store.find(text(run_id, "run_id"))
        is_pinned = not is_python(record)
        if record.pipeline != self.pipeline.name or (is_pinned and self._blueprint is None):
            raise RunConflict(
                f"run {record.run_id} is of the {'blueprint' if is_pinned else 'pipeline'} "
                f"{record.pipeline!r}, not of {self.pipeline.name!r}",
                hint="replay it with the runner of its own pipeline, or with `flujo replay`",
                run_id=record.run_id,
            )
        home, pipeline, binding = self._home(), self.pipeline, self._given_binding
        if is_pinned and binding is None:
            pipeline = (await pinned_blueprint(home, store, record)).pipeline
        subject = replayed(
            home, pipeline, is_pinned=is_pinned, context_model=self._context_model, binding=binding
        )
        found = await replay(store, record.run_id, subject, until=text_or_none(until, "until"))
        if found.differences:
            raise difference_in(found)
        return found.result

    async def get_failed_background_tasks(self) -> list[PipelineResult[Any, Any]]:
        """Return the failed and parked background tasks of this pipeline's runs, the newest first.

        `run_id` of each result is the task's id, and `error` is why it failed.
        """
        store = (await self._open()).runtime.store
        query = RunQuery(
            kinds=(RunKind.TASK, RunKind.ITEM),
            pipeline=self.pipeline.name,
            statuses=(RunStatus.FAILED, RunStatus.PARKED),
            limit=MAX_LIMIT,
        )
        return [await result_of(store, record) for record in await store.runs(query)]

    async def resume_background_task(
        self, task_id: str, *, by: str | None = None, sink: Sink | None = None
    ) -> PipelineResult[Any, Any]:
        """Retry a failed background task, or resume one that is parked or was interrupted.

        The failed step gets its attempts again; completed steps are not executed again. A run that has failed
        because it awaited the task is retried by `resume_async(run_id, retry_failed=True)`.

        Args:
            task_id: the `task_id` of a launch, or a unique prefix of it.
            by: who retries, for the task's acts. Default: the user that this process runs as.
            sink: gets every event of the task, as it happens.

        Raises:
            RunNotFound: no task, or more than one, matches `task_id`.
            RunConflict: it is a run that a caller started, or belongs to another pipeline.
            ResumeConflict: another process executes it, or it has completed or was cancelled.
        """
        store = (await self._open()).runtime.store
        record = await store.find(text(task_id, "task_id"))
        if record.kind not in (RunKind.TASK, RunKind.ITEM):
            raise RunConflict(
                f"run {record.run_id} is not a background task",
                hint="`resume_async(run_id, retry_failed=True)` retries a run",
                run_id=record.run_id,
            )
        return await self.resume_async(record.run_id, retry_failed=True, by=by, sink=sink)

    async def recover_async(
        self, run_id: RunId, *, max_recoveries: int, sink: Sink | None = None
    ) -> PipelineResult[Out, Ctx]:
        """Resume an orphaned run, or park it after `max_recoveries` recoveries.

        Raises:
            ResumeConflict: another process was faster.
        """
        service = await self._service_for(text(run_id, "run_id"))
        most = whole_number(max_recoveries, "max_recoveries")
        return await service.recover(run_id, max_recoveries=most, sink=self._told(sink))

    def run(self, initial_input: In, **options: Any) -> PipelineResult[Out, Ctx]:
        """Run the pipeline from sync code, in any thread; inside async code call `run_result_async`.

        Raises:
            SyncInAsync: the calling thread has a running event loop.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self._run_and_close(initial_input, options))
        raise SyncInAsync("`Flujo.run` was called inside a running event loop")

    @property
    def notifier(self) -> Notifier:
        """What sends messages about its runs: `notify` of the pipeline and `[notify.NAME]` of the project."""
        if not self._sends_messages:
            return SILENT
        settings = self._home().project.settings
        return Notifier.of(settings, self.pipeline.name, self.pipeline.notify, self._clock)

    @property
    def _sends_messages(self) -> bool:
        return self._opens_state or self._store is not None

    async def aclose(self) -> None:
        """Close everything that this runner opened. Idempotent; concurrent calls are safe.

        Open streams are closed first; detached runs are executed to their end. Other runs in flight
        are released, so that any process may resume them, and their callers get `RunnerClosed`. A runner
        that is closed stays closed.
        """
        await self._lifetime.close(self._stop)

    async def _stop(self) -> None:
        await asyncio.gather(*(within(stream.loop, stream.finish) for stream in list(self._streams)))
        await self._in_flight.stop()
        if self._services is not None:
            await self._services.tasks.aclose()
        loops = list(self._recoveries)
        await asyncio.gather(*(within(loop, partial(self._stop_recovery, loop)) for loop in loops))

    async def _stop_recovery(self, loop: asyncio.AbstractEventLoop) -> None:
        recovery = self._recoveries.pop(loop, None)
        if recovery is not None:
            await recovery.aclose()

    async def _run_and_close(self, initial_input: In, options: Mapping[str, Any]) -> PipelineResult[Out, Ctx]:
        # Threads may call `run` at once, each in a loop of its own: the last call closes the resources.
        loop = asyncio.get_running_loop()
        with self._guard:
            self._scripts.add(loop)
        try:
            result = await self.run_result_async(initial_input, **options)
            if self._services is not None:
                await self._services.tasks.settled()
            return result
        finally:
            if self._services is not None:
                await self._services.tasks.release()
            await self._stop_recovery(loop)
            with self._guard:
                self._scripts.discard(loop)
                is_last = not (self._scripts or self._is_kept)
                exits = self._lifetime.detach() if is_last else None
                if is_last:
                    self._service = self._services = self._workspace = None
            if exits is not None:
                await exits.aclose()

    async def _accept(
        self, request: Request, sink: Sink | None, stop: Stop | None = None
    ) -> PipelineResult[Out, Ctx]:
        with self._in_flight.executing():
            service = await self._open()
            given = context_fields(request.context)
            if self._context_data:
                request = replace(request, context={**self._context_data, **given})
            return await service.accept(request, sink=self._told(sink), stop=stop)

    def _returned(self, result: PipelineResult[Out, Ctx]) -> PipelineResult[Out, Ctx]:
        """Return a result, or raise `PausedException` when the caller wants that for open questions."""
        if self._raise_on_pause and result.status is RunStatus.PAUSED:
            raise PausedException(result.pauses[0].message, run_id=result.run_id, pauses=result.pauses)
        return result

    def _told(self, sink: Sink | None) -> Sink | None:
        return combine_hooks((*self._hooks, checked_sink(sink)))

    # Opening ----------------------------------------------------------------------------------------------

    async def _open(self) -> RunService:
        """Return what executes runs, opened at the first use.

        Raises:
            RunnerClosed: the runner is closed.
        """
        self._lifetime.require_open()
        self._attend()
        if (service := self._service) is None:
            async with self._lifetime.opening() as exits:
                if (service := self._service) is None:
                    service = self._service = await self._opened(exits)
        return service

    async def _opened(self, exits: AsyncExitStack) -> RunService:
        workspace = self._home()
        exits.push_async_callback(self._forget, workspace)
        store, cache, providers = self._store, self._cache, self._providers
        if self._opens_state:
            store = await workspace.store()
            if workspace.caches_in_state and not self._has_own_cache:
                cache = await workspace.answer_cache()
            providers = workspace.state_providers if providers is None else providers
        elif store is None:
            store = await exits.enter_async_context(aclosing(MemoryStateStore(now=self._clock.now)))
        resources = self._resources
        if resources is None and self._blueprint is not None and self._opens_state:
            resources = await workspace.resources()
        if self._sends_messages:
            workspace.project.settings.require_targets(named_targets(self.pipeline.notify))
            in_steps = (name for _, name in named_in_steps(self.pipeline))
            named_evaluators(workspace.project.settings, [*self.pipeline.evaluate, *in_steps])
        self._services = RunServices(
            workspace=workspace,
            store=store,
            clock=self._clock,
            random=self._random,
            range_length=self._range_length,
            resources=resources,
            cache=cache,
            providers=providers or {},
            limits=tightest(self._usage_limits, workspace.project.settings.budgets.limits),
            rules=workspace.project.settings.budgets.rules,
            context_model=self._context_model,
            is_durable=self._opens_state or self._store is not None,
            task_sink=self._told(None),
        )
        service = self._services.of_pipeline(
            self.pipeline,
            self._blueprint,
            output=self._output,
            binding=self._binding,
            lock_digest=lock_digest_by_name(workspace.project, self.pipeline),
        )
        self._binding = service.runtime.binding
        return service

    async def _source(self) -> StateStore:
        """Return the storage of runs; to read it, nothing is bound, so no key is needed."""
        if self._service is not None or not self._opens_state:
            return (await self._open()).runtime.store
        async with self._lifetime.opening() as exits:
            workspace = self._home()
            exits.push_async_callback(self._forget, workspace)
            return await workspace.store()

    async def _service_for(self, run: str) -> RunService:
        """Return what executes a run: its pinned files, when they are not those that this runner has read.

        Raises:
            RunNotFound: no run, or more than one, matches `run`.
            BlueprintError | CallableError | AgentError | LockMismatch: its files cannot be used here.
        """
        service = await self._open()
        may_be_task = any(each.startswith(run[: len(each)]) for each in (TASK_ID, EVALUATION_ID))
        if self._services is None or (self._blueprint is None and not may_be_task):
            return service  # which refuses the run of a blueprint
        record = await find_last(service.runtime.store, run)
        if record.parent is not None and self._executes(record):
            return await self._services.of_run(record)
        if self._blueprint is None:
            return service
        if record.pipeline != self.pipeline.name or is_python(record):
            return service
        if not service.fits(record):
            service = await self._services.of_run(record)
        if note := kept_note(record.run_id, self._blueprint.root, pinned_files(service)):
            log.warning("run %s: %s", record.run_id, note)
        return service

    def _executes(self, record: RunRecord) -> bool:
        """Return whether a background task or an evaluation belongs to a run of this runner's pipeline."""
        if record.kind is RunKind.EVAL:
            return record.pipeline == self.pipeline.name
        is_own_kind = is_python(record) == (self._blueprint is None)
        return record.pipeline == self.pipeline.name and is_own_kind

    async def _forget(self, workspace: Workspace) -> None:
        if self._workspace is workspace:
            self._service = self._services = self._workspace = None
        await workspace.aclose()

    def _home(self) -> Workspace:
        """Return the project of the blueprint, or for a pipeline written in Python the one of this folder."""
        if self._workspace is None:
            read = self._blueprint
            project = find_project(Path.cwd()) if read is None else find_project(read.root, read.environment)
            self._workspace = Workspace(project)
        return self._workspace

    def _attend(self) -> None:
        """Note that this event loop uses the runner, and begin to recover runs of this pipeline in it."""
        loop = asyncio.get_running_loop()
        self._is_kept = self._is_kept or loop not in self._scripts
        if self._recovery_policy is False or loop in self._recoveries:
            return
        for closed in [each for each in list(self._recoveries) if each.is_closed()]:
            self._recoveries.pop(closed, None)
        policy = self._recovery_policy
        if policy is True:
            policy = self._home().recovery_policy if self._opens_state else RecoveryPolicy()

        async def store() -> StateStore:
            return (await self._open()).runtime.store

        async def notifier(_: RunRecord) -> Notifier:
            return self.notifier

        async def take_over(run_id: RunId, stop: Stop) -> object:
            record = await (await self._open()).runtime.store.run(run_id)
            try:
                service = await self._service_for(run_id)
                service.require_own(record)
            except FlujoError as error:
                recovery.leave(record, error)
                log.warning("run %s is left to other processes: %s [%s]", run_id, error, error.code)
                return None
            return await service.recover(
                run_id, max_recoveries=policy.max_recoveries, sink=self._told(None), stop=stop
            )

        recovery = self._recoveries[loop] = Recovery(
            store,
            policy,
            take_over,
            pipeline=self.pipeline.name,
            duties=[
                *([Deliveries(self._home(), store)] if self._sends_messages else []),
                ExpiredRows(store),
            ],
            notifier=notifier,
        )
        recovery.start()
