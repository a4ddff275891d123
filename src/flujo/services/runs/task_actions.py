"""Answers, retries and cancels runs for `TaskClient`, in this process where their pipeline is available."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from flujo.domain.commands import command
from flujo.domain.run import PauseKind
from flujo.exceptions import SettingsError
from flujo.services.given import instance, text, text_or_none
from flujo.services.project.system import SystemClock
from flujo.services.runs import blueprint_runs
from flujo.services.runs.answers import record_answer, seen_question
from flujo.services.runs.chains import find_last
from flujo.services.runs.forks import Fork, execute_fork, require_forkable
from flujo.services.runs.notices import SILENT
from flujo.services.runs.run_request import Request
from flujo.services.runs.run_services import RunServices, is_python, notifier_of
from flujo.services.runs.sending import pinned_pipeline, send_event
from flujo.services.workspace import blueprint_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from flujo.domain.access import Principal
    from flujo.domain.acts import Actor
    from flujo.domain.models import PipelineResult
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.run import Pause, RunRecord
    from flujo.domain.sent_events import Delivery
    from flujo.domain.store import StateStore
    from flujo.services.runs.notices import Notifier
    from flujo.services.runs.runner import Flujo
    from flujo.services.runs.starts import Start
    from flujo.services.workspace import Workspace


@dataclass(frozen=True, slots=True)
class TaskActions:
    """What a client can do with a run.

    Args:
        store: the store with the runs.
        workspace: the project whose blueprints can be executed; None without a project.
        runners: the runners of pipelines by name.
    """

    store: StateStore
    workspace: Workspace | None
    runners: Mapping[str, Flujo[Any, Any, Any]]

    async def settle(
        self,
        kind: PauseKind,
        run_id: Any,
        answer: Any,
        pause_id: Any,
        *,
        digest: Any = None,
        shown: Pause | None = None,
        actor: Actor,
        detach: bool,
    ) -> PipelineResult[Any, Any]:
        """Answer a question or resolve a call in doubt, and resume the run unless `detach` is set.

        The question that was `shown`, or has the `digest`, is answered, and no later one of the same step.
        """
        record = await find_last(self.store, text(run_id, "run_id"))
        pause_id = text_or_none(pause_id, "pause_id")
        if digest is not None:
            shown = await seen_question(self.store, record, pause_id, kind, text(digest, "digest"))
            pause_id = shown.pause_id
            if shown.kind is PauseKind.APPROVAL and isinstance(answer, dict):
                answer = {"digest": digest, **answer}
        runner = self._runner_of(record)
        if runner is None and self.workspace is not None:
            return await blueprint_runs.answer(
                self.workspace,
                record.run_id,
                pause_id,
                answer,
                actor=actor,
                kind=kind,
                detach=detach,
                shown=shown,
            )
        await record_answer(self.store, record, pause_id, answer, actor, kind=kind, shown=shown)
        if runner is None or detach or record.queued is not None:
            return await blueprint_runs.report_unclaimed(self.store, record)
        return await blueprint_runs.ignore_if_owned(self.store, record, runner.resume_async(record.run_id))

    async def retry(self, run_id: Any, actor: Actor) -> PipelineResult[Any, Any]:
        """Retry the failed step of a failed run, or resume a parked or interrupted one."""
        record = await find_last(self.store, text(run_id, "run_id"))
        runner = self._runner_of(record)
        if runner is not None:
            return await runner.resume_async(record.run_id, retry_failed=True, by=actor.by)
        ws = self._project("tasks retry", record)
        return await blueprint_runs.resume(ws, record.run_id, retry_failed=True, actor=actor)

    async def resume(self, run_id: Any, actor: Actor) -> PipelineResult[Any, Any]:
        """Resume a run that has not ended, whose owner has."""
        record = await find_last(self.store, text(run_id, "run_id"))
        runner = self._runner_of(record)
        if runner is not None:
            return await runner.resume_async(record.run_id, by=actor.by)
        return await blueprint_runs.resume(self._project("resume", record), record.run_id, actor=actor)

    async def fork(self, run_id: Any, fork: Fork, actor: Actor) -> PipelineResult[Any, Any]:
        """Fork a run of a blueprint, and execute the fork."""
        fork = instance(Fork, fork, "fork")
        record = await self.store.find(text(run_id, "run_id"))
        require_forkable(record)
        services = await RunServices.of_project(self._project("fork", record))
        service = await services.of_fork(record, fork.overrides)
        async with services.tasks.stay():
            return await execute_fork(self.store, record, service, fork, actor)

    async def start(self, wanted: Start, principal: Principal | None) -> RunRecord:
        """Put a run into a queue, if the principal may; return the one that has its id already."""
        if self.workspace is None:
            raise SettingsError(
                "this client has no project, so it knows no blueprints",
                hint="pass the project's `Workspace`, or begin in its folder with `TaskClient()`",
            )
        project = self.workspace.project
        blueprint = self.workspace.load(project.locate(text(wanted.blueprint, "blueprint"), project.root))
        if principal is not None:
            principal.require_new(blueprint.name, text(wanted.queue, "queue"), wanted.metadata or {})
        request = Request(wanted.input, wanted.context, wanted.run_id, wanted.metadata)
        record, _ = await blueprint_runs.submit(
            self.workspace,
            blueprint,
            request,
            queue=wanted.queue,
            priority=wanted.priority,
            delay_s=wanted.delay_s,
        )
        return record

    def _project(self, verb: str, record: RunRecord) -> Workspace:
        """Return the project whose blueprints this client can execute.

        Raises:
            SettingsError: it has none.
        """
        if self.workspace is None:
            way = command("flujo", *verb.split(), record.run_id)
            raise SettingsError(
                f"this client cannot execute run {record.run_id}, because it has no runner of pipeline "
                f"{record.pipeline!r}",
                hint=f"pass `runners=[…]`, or use `{way}` in the project of the run",
            )
        return self.workspace

    async def send(
        self,
        event: Any,
        payload: Any,
        *,
        run_id: Any,
        key: Any,
        to_all: bool,
        event_id: Any,
        actor: Actor,
    ) -> Delivery:
        """Send an event to a run or a key; see `send_event`."""
        return await send_event(
            self.store,
            event,
            payload,
            run_id=run_id,
            key=key,
            to_all=to_all,
            event_id=event_id,
            actor=actor,
            pipeline_of=self.pipeline_of,
        )

    async def pipeline_of(self, record: RunRecord) -> Pipeline | None:
        """Return the pipeline of a run; None where it is not known here."""
        runner = self._runner_of(record)
        if runner is not None:
            return runner.pipeline
        return None if self.workspace is None else await pinned_pipeline(self.workspace, self.store, record)

    async def accepted(self, record: RunRecord) -> Pipeline | None:
        """Return the pipeline with which a run was accepted, to be read; None where it is not known here."""
        runner = self._runner_of(record)
        if runner is not None:
            return runner.pipeline
        if self.workspace is None:
            return None
        return await pinned_pipeline(self.workspace, self.store, record, is_read=True)

    async def cancel(self, run_id: Any, actor: Actor) -> tuple[RunRecord, Sequence[Pause]]:
        """Cancel a run; return it as it is then, with its questions."""
        record = await blueprint_runs.cancel(
            self.store,
            text(run_id, "run_id"),
            actor,
            clock=SystemClock(),
            notifier=self._notifier_of,
            resuming=partial(self._resuming, actor),
        )
        return record, await self.store.pauses(record.run_id)

    def _resuming(self, actor: Actor, record: RunRecord) -> Awaitable[PipelineResult[Any, Any]] | None:
        """Return what resumes a run here; None for a run of a queue, or without its pipeline."""
        runner = self._runner_of(record)
        if runner is not None and record.queued is None:
            return runner.resume_async(record.run_id, by=actor.by)
        if self.workspace is None:
            return None
        return blueprint_runs.resuming_in(self.workspace, actor)(record)

    async def _notifier_of(self, record: RunRecord) -> Notifier:
        """Return what sends messages about a run; nothing does where its project is not known."""
        if (runner := self._runner_of(record)) is not None:
            return runner.notifier
        return SILENT if self.workspace is None else await notifier_of(self.workspace, self.store, record)

    def _runner_of(self, record: RunRecord) -> Flujo[Any, Any, Any] | None:
        """Return the runner that executes a run; one of a pipeline in Python executes no blueprint's run."""
        runner = self.runners.get(record.pipeline)
        if runner is None or is_python(record) or blueprint_of(runner.pipeline) is not None:
            return runner
        return None
