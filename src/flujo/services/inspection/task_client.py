"""Lists, shows, answers and cancels runs, for dashboards, webhooks and operations.

Read-only commands import this module, so code that executes runs is imported where it is called.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from flujo.domain import chains
from flujo.domain.access import Principal, Right
from flujo.domain.acts import Via
from flujo.domain.commands import command
from flujo.domain.journal import RunId
from flujo.domain.pipeline import Pipeline
from flujo.domain.queues import DEFAULT_QUEUE
from flujo.domain.reach import EVERYWHERE
from flujo.domain.run import PauseKind, RunGroup, RunStatus
from flujo.domain.wording import repr_short
from flujo.exceptions import SettingsError, WaitTimedOut
from flujo.services.binding.blob_references import RunBlobs
from flujo.services.given import (
    capable,
    choice,
    seconds,
    text,
    text_or_none,
    whole_number,
)
from flujo.services.inspection.blob_client import BlobClient
from flujo.services.inspection.following import Reader, follow
from flujo.services.inspection.outbox_client import OutboxClient
from flujo.services.inspection.question_client import QuestionClient
from flujo.services.inspection.stats import read_stats, stats_query
from flujo.services.inspection.task_detail import read_detail
from flujo.services.inspection.task_traces import launched_by
from flujo.services.inspection.tasks import Task, TaskConditions, listed_tasks, task_of, task_query
from flujo.services.lifetime import ClosedAtExit, Lifetime
from flujo.services.project.project import find_project
from flujo.services.project.system import SystemClock, SystemRandom, actor
from flujo.services.runs.answers import NO_RESULT, resolution
from flujo.services.runs.chains import find_last, last_of
from flujo.services.runs.execution import result_of
from flujo.services.runs.starts import Start, id_of_key, with_user
from flujo.services.scoring.ratings import rate
from flujo.services.workspace import Workspace, open_store
from flujo.settings import load

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence

    from flujo.domain.acts import Actor
    from flujo.domain.evaluations import Evaluation
    from flujo.domain.models import Metadata, PipelineResult
    from flujo.domain.queues import QueueState, RunKind, WorkerRecord
    from flujo.domain.reach import Reach
    from flujo.domain.run import RunRecord
    from flujo.domain.sent_events import Delivery
    from flujo.domain.store import StateStore
    from flujo.services.inspection.following import LogLine
    from flujo.services.inspection.stats import Stats
    from flujo.services.inspection.task_detail import TaskDetail
    from flujo.services.inspection.tasks import Moment
    from flujo.services.runs.forks import Fork
    from flujo.services.runs.runner import Flujo
    from flujo.services.runs.task_actions import TaskActions

_CLOCK = SystemClock()
_BY_AND_PRINCIPAL = "`by` and `principal` exclude each other"
_AT_ONCE_S, _SOON_S, _LATER_S = 0.005, 0.05, 1.0
"""How long `wait` rests between two looks at a run: after the end of a wait, at first, and at most."""


class TaskClient(QuestionClient, OutboxClient, BlobClient, ClosedAtExit):
    """Lists, shows, answers and cancels runs from another process than the one that executes them."""

    def __init__(
        self,
        state: Workspace | StateStore | str | None = None,
        *,
        runners: Sequence[Flujo[Any, Any, Any]] = (),
        by: str | None = None,
        principal: Principal | None = None,
    ) -> None:
        """Set the location of the runs; opens nothing yet.

        Args:
            state: a database's URI, a store, or a project's workspace; the caller closes the latter two.
                Default: the database of the project in this folder (`FLUJO_STATE_URI`, flujo.toml).
            runners: runners that resume runs of their pipelines after `resume_task`. Runs of a project's
                blueprints need no runner.
            by: the name recorded for acts of this client. Default: the user of this process.
            principal: whose rights the client has, and whose name is recorded for its acts, instead of `by`.
                Default: every right. A call without the right raises `AccessDenied`, and `RunNotFound` for a
                run out of reach.
        """
        self._by, self._principal = text_or_none(by, "by"), principal
        if not isinstance(principal, Principal | None):
            raise SettingsError(f"`principal` is {repr_short(principal)}", hint="pass a `Principal`")
        if principal is not None and by is not None:
            raise SettingsError(
                "`by` and `principal` exclude each other", hint="a principal acts by its name"
            )
        self._runners = {runner.pipeline.name: runner for runner in _checked_runners(runners)}
        if state is not None and not isinstance(state, str | Workspace):
            capable(state, ("runs", "find", "entries", "pauses", "answer"), "state", "StateStore")
        self._state = state
        self._lifetime = Lifetime("this TaskClient")

    async def aclose(self) -> None:
        """Close what this client opened; every later call raises `RunnerClosed`. Idempotent."""
        await self._lifetime.close()

    async def list_tasks(
        self,
        status: str | RunStatus | Sequence[str] | None = None,
        metadata_filter: Mapping[str, Any] | None = None,
        *,
        user_id: str | None = None,
        blueprint: str | None = None,
        queue: str | None = None,
        pause: str | None = None,
        kind: str | RunKind | Sequence[str] | None = None,
        parent: str | None = None,
        chain: str | None = None,
        since: Moment | None = None,
        until: Moment | None = None,
        order: str = "newest",
        limit: int = 100,
        cursor: str | None = None,
    ) -> list[Task]:
        """Return a page of runs; all given conditions must hold.

        Runs that begin between two pages neither repeat nor hide a run of the list.

        Args:
            status: a status, or several of which one must apply. `orphaned` is a running run without a living
                process, `answered` a paused run without an open question, `in_doubt` one whose call is.
            metadata_filter: conditions by key: an equal value, a list of values of which one is equal,
                comparisons such as `{">=": 100}`, or a mapping of conditions on nested keys.
            user_id: the user of the run.
            blueprint: the name of its blueprint or pipeline.
            queue: the queue that it was submitted to, whether it still waits there or not.
            pause: the id of a question that is open.
            kind: `run`, `task` (launched by a step in the background), or both in a list. Default: `run`, and
                with `parent` both.
            parent: the run that has launched it: an id, a unique prefix of one, or `@last`.
            chain: any run of its chain, in the same words: lists the runs that continue one another.
            since: the earliest start, or with the order `updated` the earliest last change: seconds since the
                epoch, a `datetime` with a time zone, or a `timedelta` for how long ago.
            until: the time before which it must be.
            order: `newest` or `oldest` by start, or `updated`: by last change, the newest first.
            limit: the maximum number of runs in a page, up to 10,000.
            cursor: the `cursor` of the last run of the page before.

        Raises:
            SettingsError: an argument has the wrong type or an unknown value.
            RunNotFound: there is no run `parent` or `chain`.
        """
        reach, store = self._reach(), await self._store()
        query = task_query(
            status,
            metadata_filter,
            clock=_CLOCK,
            user_id=user_id,
            blueprint=blueprint,
            queue=queue,
            pause=pause,
            kind=kind,
            parent=await self._found(parent, "parent"),
            chain=await self._found(chain, "chain"),
            reach=reach,
            since=since,
            until=until,
            order=order,
            limit=limit,
            cursor=cursor,
        )
        return await listed_tasks(store, query)

    async def count(
        self, group_by: str = "status", **conditions: Unpack[TaskConditions]
    ) -> Mapping[str | None, int]:
        """Return how many runs there are by `status`, `blueprint` or `user`.

        The conditions are those of `list_tasks`.

        Raises:
            SettingsError: see `list_tasks`.
        """
        by, reach = choice(RunGroup, group_by, "group_by"), self._reach()
        if "parent" in conditions:
            conditions["parent"] = await self._found(conditions["parent"], "parent")
        if "chain" in conditions:
            conditions["chain"] = await self._found(conditions["chain"], "chain")
        store = await self._store()
        return await store.count_runs(task_query(clock=_CLOCK, reach=reach, **conditions), by)

    async def queues(self) -> list[QueueState]:
        """Return the queues that have runs which have not ended: how many wait, are executed, are parked."""
        self._require_everywhere(Right.READ)
        return await (await self._store()).queue_states()

    async def workers(self) -> list[WorkerRecord]:
        """Return the workers that are alive, with the runs that they execute."""
        self._require_everywhere(Right.READ)
        return await (await self._store()).workers()

    async def stats(
        self,
        by: str = "blueprint",
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        every: str | None = None,
        blueprint: str | None = None,
    ) -> Stats:
        """Return how many runs there were over time, how they ended, what they used, how long they took.

        With `by="agent"` or `by="model"` the figures are of model calls: attempts of steps that used a model.
        A run, with its model calls, belongs to the time of its start. The database adds the figures up.

        Args:
            by: `blueprint`, `agent` or `model`.
            since: the earliest start; as in `list_tasks`. Default: 7 days ago.
            until: the time before which it must be. Default: the end of the current period.
            every: the length of a period, `hour` or `day` in UTC; the first one is whole. Default: `hour` for
                up to 3 days, otherwise `day`.
            blueprint: only runs of this blueprint.

        Raises:
            SettingsError: an argument has the wrong type or an unknown value, or there are too many periods.
        """
        reach = self._reach()
        query = stats_query(
            by, since=since, until=until, every=every, blueprint=blueprint, reach=reach, clock=_CLOCK
        )
        return await read_stats(await self._store(), query)

    async def get_task(
        self,
        run_id: str,
        *,
        transcripts: bool = False,
        tracebacks: bool = False,
        children: bool = False,
        step: str | None = None,
    ) -> TaskDetail:
        """Return a run with its history.

        Args:
            run_id: the id, a unique prefix, or `@last`.
            transcripts: whether to read the transcripts of attempts.
            tracebacks: whether to read the tracebacks of failed attempts.
            children: whether the trace includes those of the background tasks of the run.
            step: the path of a step; transcripts and tracebacks of other steps are not read.

        Raises:
            RunNotFound: the run does not exist.
            SettingsError: the run has no such step.
        """
        only, store = text_or_none(step, "step"), await self._store()
        record = await store.find(await self._allowed(Right.READ, run_id))
        detail = await read_detail(
            store,
            record,
            partial(launched_by, store),
            transcripts=transcripts,
            tracebacks=tracebacks,
            children=children,
            step=only,
        )
        return replace(detail, events=tuple(await store.kept_events(record.run_id)))

    async def accepted_pipeline(self, run_id: str) -> Pipeline | None:
        """Return the pipeline with which a run was accepted, as a tree to be read.

        None when it is written in Python and this client has no runner of it, or when it cannot be read here.

        Args:
            run_id: the id, a unique prefix, or `@last`.

        Raises:
            RunNotFound: the run does not exist.
        """
        store = await self._store()
        record = await store.find(await self._allowed(Right.READ, run_id))
        return await (await self._actions()).accepted(record)

    async def get_log(self, run_id: str, *, after: int = 0) -> list[LogLine]:
        """Return the log of a run, line by line, in the order of its journal.

        Args:
            run_id: the id, a unique prefix, or `@last`.
            after: the offset of a line. Later ones are returned, and again the open questions and the status.

        Raises:
            RunNotFound: the run does not exist.
            SettingsError: `after` is not a whole number from 0.
        """
        offset, store = _offset(after), await self._store()
        record = await store.find(await self._allowed(Right.READ, run_id))
        return await Reader(store, record.run_id, offset).look()

    async def follow(
        self, run_id: str, *, after: int = 0, after_number: int = 0
    ) -> AsyncGenerator[LogLine, None]:
        """Yield the lines of `get_log`, and later ones as they are committed, until the run ends.

        Provisional lines stand between them, from about a second after the first one on: steps that begin,
        what code of the run logs, and text of models as it arrives. On a read-only database there are none.

        It looks at the database up to 4 times a second, and stops nothing when it is closed. A paused or
        interrupted run is followed until it has continued and ended. When the database goes away, it
        continues once that answers.

        Args:
            run_id: the id, a unique prefix, or `@last`.
            after: the offset of the last line that is known.
            after_number: the number of the last provisional line that is known.

        Raises:
            RunNotFound: the run does not exist, or was purged meanwhile.
            SettingsError: `after` or `after_number` is not a whole number from 0.
        """
        offset, number = _offset(after), _offset(after_number, "after_number")
        store = await self._store()
        record = await store.find(await self._allowed(Right.READ, run_id))
        following = follow(store, record.run_id, after=offset, after_number=number)
        async with aclosing(following) as lines:
            async for line in lines:
                yield line

    async def start_task(
        self,
        blueprint: str,
        input: Any = None,  # noqa: A002 - as `resume_task`
        *,
        context: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        metadata: Metadata | None = None,
        queue: str = DEFAULT_QUEUE,
        priority: int = 0,
        delay_s: float = 0.0,
        idempotency_key: str | None = None,
    ) -> Task:
        """Put a run of a blueprint of the project into a queue, where a worker takes it.

        Args:
            blueprint: its name, or its path in the project.
            input: JSON data that fits its `input_schema`.
            context: fields of the context at the start.
            user_id: the user of the run.
            metadata: flat facts to find the run by.
            queue: the queue.
            priority: from -1,000,000 to 1,000,000; a run with a higher one begins first.
            delay_s: after how many seconds it may begin.
            idempotency_key: the caller's own key of this start. A second start with it is the same run.

        Raises:
            AccessDenied: the principal may not start this run.
            SettingsError: there is no such blueprint, an argument cannot be used, or this client has no
                project.
            BlueprintError: the blueprint does not pass its checks.
            InputRejected: the input or the context does not fit.
            RunConflict: the run of this key has another pipeline, input or context.
        """
        if self._principal is not None:
            self._principal.require(Right.OPERATE)
        key = text_or_none(idempotency_key, "idempotency_key")
        actions, caller = await self._actions(), self._actor(None).by
        wanted = Start(
            blueprint=text(blueprint, "blueprint"),
            input=input,
            context=with_user(context, user_id),
            metadata=metadata,
            run_id=None if key is None else id_of_key(caller, key),
            queue=text(queue, "queue"),
            priority=whole_number(priority, "priority"),
            delay_s=seconds(delay_s, "delay_s"),
        )
        record = await actions.start(wanted, self._principal)
        return task_of(record, await (await self._store()).pauses(record.run_id))

    async def resume_task(
        self,
        run_id: str,
        input: Any,  # noqa: A002 - the name that the manual prints
        pause_id: str | None = None,
        *,
        digest: str | None = None,
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
            digest: the `Question.digest` of the question that is answered. An open question with another one,
                which the author of the answer has not seen, is not answered.
            detach: only record the answer.
            by: who answers, instead of the client's `by`.

        Raises:
            RunNotFound | AmbiguousPause | WrongPauseKind | InputRejected | ResumeConflict: see
                `services.runs.answers`.
        """
        run_id = await self._allowed(Right.ANSWER, run_id)
        actions, who = await self._actions(), self._actor(by)
        return await actions.settle(
            PauseKind.QUESTION, run_id, input, pause_id, digest=digest, actor=who, detach=detach
        )

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
        run_id = await self._allowed(Right.ANSWER, run_id)
        actions, who = await self._actions(), self._actor(by)
        return await actions.settle(PauseKind.DOUBT, run_id, answer, pause_id, actor=who, detach=detach)

    async def send_event(
        self,
        event: str,
        payload: Any = None,
        *,
        run_id: str | None = None,
        key: str | None = None,
        all: bool = False,  # noqa: A002 - the name that the command line has
        event_id: str | None = None,
        by: str | None = None,
    ) -> Delivery:
        """Send an event to a run, or to the run that has waited longest for its name and key.

        A run that waits for it continues in any open runner of its pipeline or a worker. Otherwise the event
        is kept for 7 days. A second event with the same id and content does nothing.

        Args:
            event: the name of the event.
            payload: JSON data.
            run_id: the run: an id, a unique prefix of one, or `@last`.
            key: the key of the wait, instead of a run.
            all: whether every run takes it that waits for this name and key now; it is not kept.
            event_id: an id of the sender's, such as that of a webhook. Default: a new one.
            by: who sends it, instead of the client's `by`.

        Returns:
            The id of the event, and which waits have taken it.

        Raises:
            SettingsError: neither a run nor a key is given, or both; or an argument has a wrong form.
            RunNotFound: the run does not exist.
            EventRefused: the run has ended, or no step of it waits for this event.
            EventConflict: the id is taken by another event.
            InputRejected: the payload does not fit what the run waits for.
        """
        if run_id is None:
            self._require_everywhere(Right.OPERATE)
        else:
            run_id = await self._allowed(Right.OPERATE, run_id)
        actions, who = await self._actions(), self._actor(by)
        return await actions.send(
            event, payload, run_id=run_id, key=key, to_all=all, event_id=event_id, actor=who
        )

    async def rate(
        self,
        run_id: str,
        score: float,
        *,
        path: str | None = None,
        name: str | None = None,
        reason: str | None = None,
        by: str | None = None,
    ) -> Evaluation:
        """Record the score that a person gives to the output of a run or of a step, and return it.

        Args:
            run_id: an id, a unique prefix of one, or `@last`.
            score: from 0, the worst, to 1.
            path: the step whose output is rated; None for the output of the run.
            name: the `evaluator` of the evaluation. Default: `rating`.
            reason: why.
            by: who rates, instead of the client's `by`.

        Raises:
            RunNotFound: the run does not exist.
            RatingRefused: the score is not from 0 to 1, or the run has recorded nothing at `path`.
        """
        run_id = await self._allowed(Right.ANSWER, run_id)
        store, who = await self._store(), self._actor(by)
        return await rate(
            store, run_id, score, path=path, name=name, reason=reason, actor=who, random=SystemRandom()
        )

    async def cancel_task(self, run_id: str, *, by: str | None = None) -> Task:
        """Cancel a run.

        The process that executes the run stops it; this call waits for that for up to 30 seconds. A task that
        is still `running` then is cancelled when its step ends. A run without an owner is cancelled at once.
        If it has begun with `finally`, this call executes that where it has the pipeline; otherwise the
        process that resumes the run does.

        Args:
            run_id: an id, a unique prefix of one, or `@last`.
            by: who cancels, instead of the client's `by`.

        Raises:
            RunNotFound: the run does not exist.
            ResumeConflict: the run has already ended.
        """
        run_id = await self._allowed(Right.OPERATE, run_id)
        actions, who = await self._actions(), self._actor(by)
        record, pauses = await actions.cancel(run_id, who)
        return task_of(record, pauses)

    async def retry_task(self, run_id: str, *, by: str | None = None) -> PipelineResult[Any, Any]:
        """Retry the failed step of a failed run, or resume a parked or interrupted one.

        Args:
            run_id: an id, a unique prefix of one, or `@last`.
            by: who retries, instead of the client's `by`.

        Raises:
            RunNotFound: the run does not exist.
            ResumeConflict: another process executes it, or it has ended.
            SettingsError: this client has neither the project nor a runner of the run's pipeline.
        """
        run_id = await self._allowed(Right.OPERATE, run_id)
        actions, who = await self._actions(), self._actor(by)
        return await actions.retry(run_id, who)

    async def continue_task(self, run_id: str, *, by: str | None = None) -> PipelineResult[Any, Any]:
        """Resume a parked or interrupted run, or one whose process has ended.

        Args:
            run_id: an id, a unique prefix of one, or `@last`.
            by: who resumes, instead of the client's `by`.

        Raises:
            RunNotFound: the run does not exist.
            ResumeConflict: another process executes it, or it has ended or failed.
            SettingsError: this client has neither the project nor a runner of the run's pipeline.
        """
        run_id = await self._allowed(Right.OPERATE, run_id)
        actions, who = await self._actions(), self._actor(by)
        return await actions.resume(run_id, who)

    async def fork_task(self, run_id: str, fork: Fork, *, by: str | None = None) -> PipelineResult[Any, Any]:
        """Run a blueprint's run again from a step, with other values, and execute that fork.

        Args:
            run_id: an id, a unique prefix of one, or `@last`.
            fork: the step, and what is different.
            by: who forks, instead of the client's `by`.

        Raises:
            RunNotFound: the run does not exist.
            ForkPointMissing | ForkRefused | InputRejected: see `Flujo.fork_async`.
            SettingsError: this client has no project, or an argument cannot be used.
        """
        run_id = await self._allowed(Right.OPERATE, run_id)
        actions, who = await self._actions(), self._actor(by)
        return await actions.fork(run_id, fork, who)

    async def export_task(self, run_id: str) -> tuple[str, bytes]:
        """Return a run as one file, as `flujo export` writes it, behind the whole id of the run.

        Args:
            run_id: an id, a unique prefix of one, or `@last`.

        Raises:
            RunNotFound: the run does not exist.
            CorruptState | ResumeConflict | SecretInValue: see `services.replay.export.export_run`.
        """
        from flujo.services.replay.export import export_run

        store = await self._store()
        record = await store.find(await self._allowed(Right.READ, run_id))
        return record.run_id, await export_run(store, record.run_id)

    async def wait(
        self,
        run_id: str,
        timeout: float | None = None,  # noqa: ASYNC109 - its error names the run
    ) -> PipelineResult[Any, Any]:
        """Wait until a run ends, asks a human, or needs one to resume it, and return its result.

        A run that waits for a time or an event is waited for too, and of a run that others continue, the last
        one is. Another process executes the run: this client only reads it.

        Args:
            run_id: an id, a unique prefix of one, or `@last`.
            timeout: the maximum number of seconds; None for no limit.

        Raises:
            RunNotFound: the run does not exist.
            WaitTimedOut: the run has not ended in time. It is not stopped.
        """
        limit = None if timeout is None else seconds(timeout, "timeout")
        store = await self._store()
        record = await find_last(store, await self._allowed(Right.READ, run_id))
        chain, woken = chains.first_of(record.run_id), asyncio.Event()
        stop = store.on_settled(lambda each: woken.set() if chains.first_of(each) == chain else None)
        try:
            return await self._ended(store, record, limit, woken)
        finally:
            stop()

    async def _ended(
        self, store: StateStore, record: RunRecord, limit: float | None, woken: asyncio.Event
    ) -> PipelineResult[Any, Any]:
        """Read a run until no process moves it; sooner again once one of its waits is settled."""
        began, rest_s = _CLOCK.monotonic(), _SOON_S
        while await self._moves(store, record):
            left = inf if limit is None else began + limit - _CLOCK.monotonic()
            if left <= 0:
                raise WaitTimedOut(
                    f"run {record.run_id} is still {record.status} after {limit:g} s",
                    hint=f"wait longer; `{command('flujo', 'trace', record.run_id)}` shows what the run does",
                    run_id=record.run_id,
                    status=record.status,
                )
            try:
                async with asyncio.timeout(min(rest_s, left)):
                    await woken.wait()
                rest_s = _AT_ONCE_S
            except TimeoutError:
                rest_s = min(rest_s * 2, _LATER_S)
            woken.clear()
            record = await last_of(store, await store.run(record.run_id))
        return await result_of(store, record)

    async def _moves(self, store: StateStore, record: RunRecord) -> bool:
        """Return whether a process executes the run, or may resume it by itself."""
        if record.status is RunStatus.PAUSED:
            return not any(pause.is_open for pause in await store.pauses(record.run_id))
        return record.status in (RunStatus.ACCEPTED, RunStatus.RUNNING, RunStatus.WAITING)

    async def _actions(self) -> TaskActions:
        from flujo.services.runs.task_actions import TaskActions

        store = await self._store()
        workspace = self._state if isinstance(self._state, Workspace) else None
        return TaskActions(store, workspace, self._runners)

    async def _blobs(self) -> RunBlobs:
        await self._store()
        if not isinstance(self._state, Workspace):
            raise SettingsError("this client has no project, so it has no state providers")
        return RunBlobs(self._state.state_providers, self._state.files, asyncio.get_running_loop())

    async def _allowed(self, right: Right, run_id: Any, name: str = "run_id") -> str:
        """Return the run that a caller means, if the principal has a right on it.

        A principal that is limited to some runs gives whole ids: the error for a prefix lists others.
        """
        words = text(run_id, name)
        if self._principal is None:
            return words
        store = await self._store()
        record = await (store.run(RunId(words)) if self._principal.reach else store.find(words))
        self._principal.require(right, record)
        return record.run_id

    async def _found(self, run: Any, name: str) -> str | None:
        """Return the id of the run that a caller means with an argument."""
        if run is None:
            return None
        return (await (await self._store()).find(await self._allowed(Right.READ, run, name))).run_id

    def _reach(self) -> Reach:
        """Return the runs that a list may have."""
        if self._principal is None:
            return EVERYWHERE
        self._principal.require(Right.READ)
        return self._principal.reach

    def _require_everywhere(self, right: Right) -> None:
        if self._principal is not None:
            self._principal.require_everywhere(right)

    def _actor(self, by: str | None) -> Actor:
        if self._principal is not None:
            if by is not None:
                raise SettingsError(_BY_AND_PRINCIPAL, hint="a principal acts by its name")
            return self._principal.actor
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


def _offset(after: Any, name: str = "after") -> int:
    """Return the offset or number after which a caller wants the lines of a log."""
    if (number := whole_number(after, name)) < 0:
        of = "offset" if name == "after" else "number"
        raise SettingsError(f"`{name}` is {number}", hint=f"pass the `{of}` of a line, or 0 for all of them")
    return number


def _checked_runners(runners: Any) -> Sequence[Flujo[Any, Any, Any]]:
    if not isinstance(runners, list | tuple):
        raise SettingsError(f"`runners` is {repr_short(runners)}", hint="pass a list: `runners=[runner]`")
    for runner in runners:
        if not isinstance(getattr(runner, "pipeline", None), Pipeline):
            raise SettingsError(f"`runners` has {repr_short(runner)}, not a `Flujo`", hint="pass `Flujo(…)`")
    return runners
