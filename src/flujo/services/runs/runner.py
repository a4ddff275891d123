"""The runner: `Flujo` accepts runs of one pipeline, executes them, and goes on with them."""

from __future__ import annotations

import asyncio
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Self

from typing_extensions import TypeVar

from flujo.domain.models import Ctx, Out, PipelineResult
from flujo.domain.run import RunStatus
from flujo.domain.usage import UsageLimits, tightest
from flujo.engine.step_cache import AnswerCache
from flujo.exceptions import (
    PausedException,
    RunConflict,
    RunnerClosed,
    SettingsError,
    SyncInAsync,
)
from flujo.services.binding.blob_references import bind_blobs, checked_providers
from flujo.services.checks.locking import lock_digest_by_name
from flujo.services.checks.pipeline_checks import check_pipeline
from flujo.services.project.project import find_project
from flujo.services.runs.answers import record_answer
from flujo.services.runs.claiming import RunDriver
from flujo.services.runs.execution import Execution, unchanged
from flujo.services.runs.hooks import combine_hooks
from flujo.services.runs.in_flight import InFlight
from flujo.services.runs.recovery import Recovery, RecoveryPolicy
from flujo.services.runs.run_request import (
    Request,
    checked_context,
    context_fields,
    pinned,
    require_no_enforcement,
)
from flujo.services.runs.streaming import Delivery, RunStream
from flujo.services.workspace import SystemClock, SystemRandom, Workspace, checked_limits, checked_resources
from flujo.state.memory_cache import MemoryCache

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.domain.context_references import StateProvider
    from flujo.domain.journal import RunId
    from flujo.domain.models import AppResources, Metadata
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import Binding, CacheBackend, Clock, Random, Sink, StateStore
    from flujo.services.project.project import Project
    from flujo.services.runs.claiming import IfExists
    from flujo.services.workspace import Blueprint
    from flujo.state.memory_store import MemoryStateStore

In = TypeVar("In", default=Any)

NO_ANSWER: Any = object()
"""Says that `resume_async` is given no answer: None is one."""


class Flujo(Generic[In, Out, Ctx]):
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
        blueprint: Blueprint | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        """Take the pipeline and what it runs with; nothing is opened yet.

        Args:
            pipeline: the tree.
            context_model: the class of its context, instead of the one that the tree names.
            initial_context_data: fields that every run starts with.
            resources: handed to callables that ask for `resources`; never journaled.
            state_providers: where the values behind `ContextReference`s are kept, by the ids that the
                references name. They stay the caller's to close. Default: what `[state_providers]` says.
            cache: where answers of cached steps are kept. Default: what `[cache]` of the project says when
                this runner opens its state, otherwise the memory of this runner.
            usage_limits: what a run may use at most. What `[budgets]` of the project and the pipeline's own
                `budget` say holds as well: the tightest counts.
            persist_state: False keeps the journal in memory: nothing survives the process.
            raise_on_pause: raise `PausedException` instead of returning a paused result.
            hooks: async callables that are told every event of every run, in this order, while the run
                waits. One that raises is reported to the log `flujo.hooks` and never breaks the run.
            recovery: whether this runner, from its first use until it is closed, fires the deadlines of
                questions and goes on with runs of its own pipeline that nobody attends to. True: as the
                settings say.
            store: where runs are kept; the caller closes it. Default: what the project's settings say.
            binding: the tree made runnable, when the caller has made it so already.
            blueprint: where the tree came from, so that runs pin its files.
            clock: time, for tests.
            random: ids and jitter, for tests.

        Raises:
            PipelineError: the pipeline does not hold together: a name, or two steps that do not fit.
            NotAvailableYet: it has a step that this version does not execute.
            SettingsError: `context_model` is no `PipelineContext`, `resources` are no `AppResources`, one of
                `state_providers` is no `StateProvider`, `usage_limits` are no `UsageLimits`, or a step
                enforces its idempotency and nothing is persisted.
        """
        self.pipeline = pipeline
        self._gives = check_pipeline(pipeline)
        if not persist_state and store is None:
            require_no_enforcement(pipeline)
        self._context_data = context_fields(initial_context_data)
        self._context_model = None if context_model is None else checked_context(context_model)
        self._resources = None if resources is None else checked_resources(resources, "`resources`")
        self._providers = None if state_providers is None else checked_providers(state_providers)
        self._given_cache = cache
        self._cache: AnswerCache | None = None
        self._usage_limits = None if usage_limits is None else checked_limits(usage_limits, "`usage_limits`")
        self._hooks = tuple(hooks)
        self._persist = persist_state
        self._raise_on_pause = raise_on_pause
        self._given_store = store
        self._own: MemoryStateStore | Workspace | None = None
        self._streams: set[Delivery[Out, Ctx]] = set()
        self._in_flight = InFlight(pipeline.name)
        self._closing: asyncio.Future[None] | None = None
        self._recovery_policy = recovery
        self._recovery: Recovery | None = None
        self._binding = binding
        self._blueprint = blueprint
        self._clock: Clock = clock or SystemClock()
        self._random: Random = random or SystemRandom()

    async def __aenter__(self) -> Self:
        self._attend()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

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
        """Run the pipeline to its end, its failure, or a human.

        Args:
            initial_input: JSON data that fits the pipeline's `input_schema`.
            initial_context_data: fields of the context at the start.
            run_id: an id of the caller's own, which makes starting idempotent.
            metadata: flat facts to find the run by.
            if_exists: when `run_id` is there already with the same pipeline and input: wait for it or go on
                with it (`attach`), refuse (`fail`), go on with it only (`resume`), or say how it stands
                (`return`).
            sink: is told what happens, as it happens.

        Raises:
            InputRejected: the input or the context does not fit.
            RunConflict: `run_id` is taken by another pipeline or input, or `if_exists` is `fail`.
            StateError: the journal could not be written; the run can be resumed.
        """
        accepting = self._accepted(
            initial_input,
            initial_context_data,
            run_id=run_id,
            metadata=metadata,
            if_exists=if_exists,
            sink=sink,
        )
        return self._handed_out(await accepting)

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
        """Run the pipeline and tell: `Chunk`s of text, a `StepEnded` per step, the `PipelineResult` last.

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
            detach: let the run go on when the stream is closed, instead of interrupting it.
            buffer: how many items may wait for the reader before the run waits as well; at least 1.

        Raises (from the stream):
            what `run_result_async` raises, except `PausedException`: a paused run ends with its result.
        """

        async def start(sink: Sink) -> PipelineResult[Out, Ctx]:
            accepting = self._accepted(
                initial_input,
                initial_context_data,
                run_id=run_id,
                metadata=metadata,
                if_exists=if_exists,
                sink=sink,
            )
            return await accepting

        if buffer < 1:
            raise SettingsError(f"`buffer` is {buffer}, and a stream holds at least 1 item")
        return RunStream(Delivery(start, buffer=buffer, detach=detach, running=self._streams))

    async def resume_async(
        self,
        run_id: str,
        answer: Any = NO_ANSWER,
        *,
        pause_id: str | None = None,
        retry_failed: bool = False,
        sink: Sink | None = None,
    ) -> PipelineResult[Out, Ctx]:
        """Go on with a run of this pipeline where its journal ends.

        Args:
            run_id: an id, a unique prefix of one, or `@last`.
            answer: to the question that a paused run asks; recorded before the run goes on.
            pause_id: which question, when several are open: the path of the step that asks.
            retry_failed: whether the step at which a failed run failed gets its attempts again.
            sink: is told what happens, as it happens.

        Raises:
            RunNotFound: no run, or several, are meant.
            RunConflict: it is a run of another pipeline.
            AmbiguousPause | InputRejected: the answer belongs to no one question, or does not fit it.
            ResumeConflict: somebody else is executing it, or there is nothing to go on with.
        """
        with self._in_flight.executing(), bind_blobs(self._state_providers()):
            store = await self._store()
            record = await store.find(run_id)
            if record.pipeline != self.pipeline.name:
                raise RunConflict(
                    f"run {record.run_id} is of pipeline {record.pipeline!r}, and this runner runs "
                    f"{self.pipeline.name!r}",
                    hint="go on with it through the runner of its own pipeline",
                    run_id=record.run_id,
                )
            if answer is not NO_ANSWER:
                await record_answer(store, record, pause_id, answer)
            binding = self._bound()
            await binding.prepare()
            drive = RunDriver(await self._execution(store, binding, sink, retry_failed=retry_failed))
            return self._handed_out(await drive.resume(record, answered=answer is not NO_ANSWER))

    async def recover_async(
        self, run_id: RunId, *, max_recoveries: int, sink: Sink | None = None
    ) -> PipelineResult[Out, Ctx]:
        """Go on with a run that nobody attends to, or park it when it has lost its process too often.

        Raises:
            ResumeConflict: somebody else was faster.
        """
        store, binding = await self._store(), self._bound()
        await binding.prepare()
        with bind_blobs(self._state_providers()):
            return await RunDriver(await self._execution(store, binding, sink)).recover(
                run_id, max_recoveries
            )

    def run(self, initial_input: In, **options: Any) -> PipelineResult[Out, Ctx]:
        """Run the pipeline from a script; inside async code call `run_result_async`.

        Raises:
            SyncInAsync: an event loop is running here.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self._run_and_close(initial_input, options))
        raise SyncInAsync("`Flujo.run` was called inside a running event loop")

    async def aclose(self) -> None:
        """Close what this runner opened, once, however often and from wherever it is called.

        Streams that are still open are closed first; detached runs come to their end. Other runs in flight
        are interrupted (they can be resumed), and whoever waits for one gets `RunnerClosed`. A runner that
        is closed stays closed.
        """
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        await asyncio.gather(*(stream.finish() for stream in self._streams))
        await self._in_flight.stop()
        await self._release()

    async def _release(self) -> None:
        recovery, self._recovery = self._recovery, None
        if recovery is not None:
            await recovery.aclose()
        own, self._own = self._own, None
        if isinstance(own, Workspace) and own.caches_in_state:
            self._cache = None
        if own is not None:
            await own.aclose()

    async def _run_and_close(self, initial_input: In, options: Mapping[str, Any]) -> PipelineResult[Out, Ctx]:
        # A script may call `run` again: what was opened belongs to this event loop, the runner does not.
        try:
            return await self.run_result_async(initial_input, **options)
        finally:
            await self._release()

    async def _accepted(
        self,
        initial_input: In,
        context_data: Mapping[str, Any] | None,
        *,
        run_id: str | None,
        metadata: Metadata | None,
        if_exists: IfExists,
        sink: Sink | None,
    ) -> PipelineResult[Out, Ctx]:
        """Accept a run, or find the one that has its id, and execute it."""
        with self._in_flight.executing(), bind_blobs(self._state_providers()):
            store = await self._store()
            binding = self._bound()
            await binding.prepare()
            closure, blobs = pinned(self.pipeline, self._blueprint)
            new = await Request(
                input=initial_input,
                context={**self._context_data, **context_fields(context_data)},
                run_id=run_id,
                metadata=metadata,
            ).new_run(self.pipeline, binding, closure, self._random, self._lock_digest)
            return await RunDriver(await self._execution(store, binding, sink)).accept(new, blobs, if_exists)

    def _handed_out(self, result: PipelineResult[Out, Ctx]) -> PipelineResult[Out, Ctx]:
        """Return a result, or raise the question that it is when that was asked for."""
        if self._raise_on_pause and result.status is RunStatus.PAUSED:
            raise PausedException(result.pauses[0].message, run_id=result.run_id, pauses=result.pauses)
        return result

    async def _execution(
        self, store: StateStore, binding: Binding, sink: Sink | None, *, retry_failed: bool = False
    ) -> Execution:
        return Execution(
            pipeline=self.pipeline,
            binding=binding,
            store=store,
            clock=self._clock,
            random=self._random,
            resources=self._resources,
            cache=await self._answers(),
            sink=combine_hooks((*self._hooks, sink)),
            retry_failed=retry_failed,
            limits=self._limits,
            gives=unchanged if self._gives is None else self._gives.load,
        )

    @cached_property
    def _limits(self) -> UsageLimits | None:
        """Return what a run may use beside what its pipeline says; None when nothing is limited at all."""
        project = None if self._blueprint is not None else self._project.settings.budgets.limits
        limits = tightest(self._usage_limits, project)
        return UsageLimits() if limits is None and self.pipeline.is_limited else limits

    @cached_property
    def _lock_digest(self) -> str | None:
        """Return the digest of the lock that holds this pipeline as it is."""
        if self._blueprint is not None:
            return self._blueprint.lock_digest
        return lock_digest_by_name(self._project, self.pipeline)

    @cached_property
    def _project(self) -> Project:
        """Return the project that a pipeline written in Python is run in."""
        return find_project(Path.cwd())

    def _bound(self) -> Binding:
        if self._binding is None:
            from flujo.services.binding.binding import PipelineBinding
            from flujo.services.project.project import find_project
            from flujo.services.workspace import agent_settings, importable

            project = find_project(Path.cwd())
            importable(project.root)
            bound = PipelineBinding(
                allow_callables=project.settings.blueprints.allow_callables,
                agent_settings=agent_settings(project.settings),
                context_model=self._context_model,
            )
            bound.bind(self.pipeline)
            self._binding = bound
        return self._binding

    async def _answers(self) -> AnswerCache:
        if self._cache is None:
            backend = self._given_cache
            if backend is None and isinstance(self._own, Workspace):
                backend = await self._own.cache()
            self._cache = AnswerCache(MemoryCache() if backend is None else backend)
        return self._cache

    async def _store(self) -> StateStore:
        if self._closing is not None:
            raise RunnerClosed(f"the runner of pipeline {self.pipeline.name!r} is closed")
        self._attend()
        if self._given_store is not None:
            return self._given_store
        if self._own is None:
            self._own = self._opened()
        return await self._own.store() if isinstance(self._own, Workspace) else self._own

    def _attend(self) -> None:
        """Begin to look after runs of this pipeline that nobody attends to."""
        if self._recovery_policy is False or self._recovery is not None:
            return
        policy = self._policy() if self._recovery_policy is True else self._recovery_policy

        async def take_over(run_id: RunId) -> None:
            await self.recover_async(run_id, max_recoveries=policy.max_recoveries)

        closure, _ = pinned(self.pipeline, self._blueprint)
        self._recovery = Recovery(self._store, policy, take_over, closures=(closure,))
        self._recovery.start()

    def _policy(self) -> RecoveryPolicy:
        """Return what the settings of the project say, where this runner works in one."""
        workspace = self._workspace()
        return RecoveryPolicy() if workspace is None else workspace.recovery_policy

    def _state_providers(self) -> Mapping[str, StateProvider]:
        if self._providers is not None:
            return self._providers
        workspace = self._workspace()
        return {} if workspace is None else workspace.state_providers

    def _workspace(self) -> Workspace | None:
        """Return the project whose database keeps the runs; None where the caller said what does."""
        if self._given_store is not None:
            return None
        if self._own is None:
            self._own = self._opened()
        return self._own if isinstance(self._own, Workspace) else None

    def _opened(self) -> MemoryStateStore | Workspace:
        if not self._persist:
            from flujo.state.memory_store import MemoryStateStore

            return MemoryStateStore()
        return Workspace(find_project(Path.cwd()))
