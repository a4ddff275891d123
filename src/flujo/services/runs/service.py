"""The runs of one pipeline: accept them, claim them, resume them, recover them."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.acts import Act, Actor, Verb
from flujo.domain.commands import command
from flujo.domain.fast_dataclass import record
from flujo.domain.journal import RunId
from flujo.domain.models import PipelineResult
from flujo.domain.paths import ROOT
from flujo.domain.run import AT_A_PAUSE, Move, PauseKind, Progress, RunStatus, Write, pinned_stubs
from flujo.domain.run_forks import Forked, waiting_answer
from flujo.domain.usage import UsageLimits, tightest
from flujo.engine.error_info import error_info
from flujo.exceptions import Fenced, ResumeConflict, RunConflict, RunParked, StateError
from flujo.governance.logs import logger
from flujo.services.binding.blob_references import bind_blobs
from flujo.services.runs.answers import checked, record_answer
from flujo.services.runs.chains import last_of
from flujo.services.runs.execution import Execution, Stop, settled, standing
from flujo.services.runs.raised_budgets import set_act
from flujo.services.runs.run_request import NEAR_S, fits, pinned_by_name
from flujo.services.runs.waits import expire, wait_ends
from flujo.settings import guard_environment
from flujo.state.rules import way_to

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from flujo.domain.context_references import StateProvider
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import Binding, Sink
    from flujo.domain.queues import Queued
    from flujo.domain.run import GivenAnswer, NewRun, RunRecord
    from flujo.services.project.files import ProjectFiles
    from flujo.services.runs.execution import Runtime
    from flujo.services.runs.raised_budgets import Raised
    from flujo.services.runs.run_request import IfExists, Request

Result = PipelineResult[Any, Any]

CONTINUABLE = (RunStatus.ACCEPTED, RunStatus.RUNNING, *AT_A_PAUSE, RunStatus.INTERRUPTED)
"""The states of a run that has not ended."""

RESUMABLE = (*CONTINUABLE, RunStatus.PARKED)
"""The states from which a resume continues a run; a failed run needs `retry_failed`."""

RECOVERABLE = (RunStatus.ACCEPTED, RunStatus.RUNNING, *AT_A_PAUSE)
"""The states from which recovery continues a run; one at a pause only once the pause is settled."""

NO_ANSWER: Any = object()
"""Stands for a resume without an answer: None is an answer."""

_POLL_S = 0.25


def require_unhandled(record: RunRecord) -> None:
    """Require that no `on_failure` or `finally` of a failed run has been executed.

    Raises:
        ResumeConflict: it has: its steps may have undone what the steps of the run did.
    """
    if record.is_handled:
        fork = command("flujo", "fork", record.run_id, "--at", "PATH", "--live-effects")
        raise ResumeConflict(
            f"run {record.run_id} has failed and its clean-up has ended, so no step is tried again",
            hint=f"`{fork}` begins a new run at a step",
            status=record.status,
        )


"""How often an attached run is read."""

_TRY_S = 5.0
"""How often it is claimed although its lease lasts: only a claim detects that the owner's process is dead."""

log = logger("flujo.recovery")


@record(frozen=True, slots=True, kw_only=True)
class RunService:
    """Accepts, resumes and recovers runs of one pipeline, and executes them to where they end, fail or wait.

    `Flujo`, the command line and workers all execute runs through one.
    """

    runtime: Runtime
    closure: str
    """The digest of what its runs are pinned to."""
    blobs: Mapping[str, bytes]
    """The content of the closure, stored with each run."""
    lock_digest: str | None = None
    """The digest of the lock that holds the pipeline as it is."""
    providers: Mapping[str, StateProvider]
    """Where the values behind context references are stored."""
    files: ProjectFiles
    """The files that steps may send to models."""

    async def accept(self, request: Request, *, sink: Sink | None = None, stop: Stop | None = None) -> Result:
        """Record a run and execute it; a run that has its id already is treated as `if_exists` says.

        Raises:
            InputRejected: the input or the context does not fit.
            RunConflict: the id is taken by another pipeline, input or context, or `if_exists` is `fail`.
        """
        runtime = self.runtime
        execution = _execution(runtime, sink, stop, longest_wait_s=request.longest_wait_s)
        with bind_blobs(self.providers, self.files):
            await runtime.binding.prepare()
            new = await request.new_run(
                runtime.pipeline, runtime.binding, self.closure, runtime.random, self.lock_digest
            )
            try:
                record = await self._accepted(execution, new)
            except ResumeConflict as conflict:
                return await _existing(execution, conflict.record, request.if_exists)
            return await _executed(execution, record)

    async def begin(
        self,
        new: NewRun,
        contents: Mapping[str, bytes],
        *,
        sink: Sink | None = None,
        stop: Stop | None = None,
    ) -> Result:
        """Record a new run with the contents that its entries name, and execute it.

        Raises:
            RunConflict: its id is taken.
        """
        runtime = self.runtime
        execution = _execution(runtime, sink, stop)
        blobs = {**self.blobs, **contents}
        if new.closure != self.closure:
            digest, manifest = pinned_stubs(self.closure)
            blobs[digest] = manifest
        with bind_blobs(self.providers, self.files):
            await runtime.binding.prepare()
            try:
                record = await _claimed(execution, runtime.store.accept(new, blobs))
            except ResumeConflict as conflict:
                raise exists_already(conflict.record) from None
            # A fork without copied entries is new, so its acts are not read with its progress.
            start = None if new.entries else Progress(acts=new.acts)
            return await _executed(execution, record, start)

    async def new_run(self, request: Request) -> NewRun:
        """Return the run that a request asks for; nothing is recorded.

        Raises:
            InputRejected: the input or the context does not fit.
        """
        runtime = self.runtime
        with bind_blobs(self.providers, self.files):
            await runtime.binding.prepare()
            return await request.new_run(
                runtime.pipeline, runtime.binding, self.closure, runtime.random, self.lock_digest
            )

    async def submit(self, request: Request, place: Callable[[Binding, bytes], Queued]) -> RunRecord:
        """Record a run in a queue, where a worker takes it; one that has its id already is returned.

        Args:
            request: the run.
            place: returns its place in a queue from its input, which is canonical JSON.

        Raises:
            InputRejected: the input or the context does not fit.
            RunConflict: the id is taken by another pipeline, input or context, or `if_exists` is `fail`.
        """
        runtime = self.runtime
        with bind_blobs(self.providers, self.files):
            new = await request.new_run(
                runtime.pipeline, runtime.binding, self.closure, runtime.random, self.lock_digest
            )
            queued = place(runtime.binding, new.input)
            try:
                return await runtime.store.accept(replace(new, queued=queued), self.blobs, claim=False)
            except ResumeConflict as conflict:
                there: RunRecord = conflict.record
                if request.if_exists == "fail":
                    raise exists_already(there) from None
                return there

    async def execute(
        self, record: RunRecord, *, max_recoveries: int, sink: Sink | None = None, stop: Stop | None = None
    ) -> RunStatus:
        """Execute a run that was claimed from its queue until it ends or pauses, and return its status.

        Once the pause is settled the run is claimed from its queue again, so it holds no place meanwhile.
        """
        execution = _execution(self.runtime, sink, stop, longest_wait_s=0)
        with bind_blobs(self.providers, self.files):
            try:
                is_parked = await self._park(record, max_recoveries)
            except StateError as error:
                if not isinstance(error, Fenced):
                    self.runtime.store.let_go(record.run_id)
                raise
            if is_parked:
                return RunStatus.PARKED
            result = (await execution.run(record)).result
            return result.status

    async def _accepted(self, execution: Execution, new: NewRun) -> RunRecord:
        store = self.runtime.store
        try:
            return await _claimed(execution, store.accept(new, self.blobs))
        except RunConflict:
            # `Flujo` once pinned only the name of a blueprint, and the id may be that of such a run.
            closure, blobs = pinned_by_name(new.pipeline)
            if new.closure == closure or (await store.run(new.run_id)).closure != closure:
                raise
            return await _claimed(execution, store.accept(replace(new, closure=closure), blobs))

    async def resume(
        self,
        run: str,
        answer: Any = NO_ANSWER,
        *,
        pause_id: str | None = None,
        kind: PauseKind = PauseKind.QUESTION,
        retry_failed: bool = False,
        accept_changes: bool = False,
        raised: Raised | None = None,
        longest_wait_s: float = NEAR_S,
        actor: Actor,
        sink: Sink | None = None,
        stop: Stop | None = None,
    ) -> Result:
        """Continue a run where its journal ends, after recording an answer of `actor` if there is one.

        `raised` are limits that `actor` sets for it; they are recorded with the claim.

        When another process is faster to continue an answered run, this waits for the end of it.

        Raises:
            RunNotFound: no run, or several, are meant.
            RunConflict: it is a run of another pipeline, or of other files of this one.
            AmbiguousPause | WrongPauseKind | InputRejected: the answer belongs to no one question of this
                kind, or does not fit it.
            ResumeConflict: another process executes it, or it cannot be continued.
        """
        store = self.runtime.store
        execution = _execution(
            self.runtime,
            sink,
            stop,
            retry_failed=retry_failed,
            accept_changes=accept_changes,
            longest_wait_s=longest_wait_s,
        )
        with bind_blobs(self.providers, self.files):
            record, progress = await self._continuable(run, is_answered=answer is not NO_ANSWER)
            given = None
            if answer is not NO_ANSWER:
                pauses = await store.pauses(record.run_id) if progress is None else progress.pauses
                given = checked(record, pauses, pause_id, answer, actor, kind=kind)
            await self._prepared(record.run_id, given)
            if record.deadline_at is not None:
                await expire(store, record.run_id, given)
            failed = (RunStatus.FAILED,) if retry_failed else ()
            act = retry_act(record, actor) if retry_failed else None
            if raised:
                act = set_act(raised, record, actor)
            claiming = store.claim(record.run_id, statuses=(*RESUMABLE, *failed), act=act, answer=given)
            try:
                claimed = await _claimed(execution, claiming)
            except ResumeConflict as conflict:
                if given is None or conflict.won is not None:
                    raise
                return await _existing(execution, await store.run(record.run_id), "attach")
            # The claim has set limits: they are read again.
            start = None if raised else _start(record, progress, claimed)
            return await _executed(execution, claimed, start)

    async def _continuable(self, run: str, *, is_answered: bool) -> tuple[RunRecord, Progress | None]:
        """Return the last run of a chain, and its progress if an answer needed one to be read with it."""
        store, progress = self.runtime.store, None
        if is_answered:
            record, progress = await store.find_with_progress(run)
        else:
            record = await store.find(run)
        if (last := await last_of(store, record)) is not record:
            record, progress = last, None
        self.require_own(record)
        require_unhandled(record)
        return record, progress

    async def _prepared(self, run_id: RunId, given: GivenAnswer | None) -> None:
        """Prepare what the run needs here; if that fails, record the answer for another process."""
        try:
            await self.runtime.binding.prepare()
        except BaseException:
            if given is not None:
                store = self.runtime.store
                await settled(
                    store.answer(run_id, given.pause_id, given.value, actor=given.actor, seen=given.seen)
                )
            raise

    async def recover(
        self, run_id: RunId, *, max_recoveries: int, sink: Sink | None = None, stop: Stop | None = None
    ) -> Result:
        """Continue an orphaned run, or park it when it has lost its process more than `max_recoveries` times.

        Only a process that executed nothing else counts: a run is not blamed for the death of a process that
        another run may have caused. See `most_suspicions` for the last resort.

        Raises:
            ResumeConflict: another process was faster.
        """
        store = self.runtime.store
        # A worker looks for waits that have ended, so a waiting run takes no place in it.
        execution = _execution(self.runtime, sink, stop, longest_wait_s=0)
        with bind_blobs(self.providers, self.files):
            await self.runtime.binding.prepare()
            claiming = store.claim(run_id, statuses=RECOVERABLE, recovering=True)
            record = await _claimed(execution, claiming)
            if await self._park(record, max_recoveries):
                return await standing(self.runtime, await store.run(run_id))
            return await _executed(execution, record)

    async def _park(self, record: RunRecord, max_recoveries: int) -> bool:
        """Park a claimed run if it has lost its process too often; return whether it has."""
        if record.recoveries <= max_recoveries and record.suspicions <= most_suspicions(max_recoveries):
            return False
        run_id, lost = record.run_id, record.recoveries + record.suspicions
        error = RunParked(
            f"run {run_id} lost its process {lost} times in a row without finishing a step",
            hint=f"inspect it with `{command('flujo', 'trace', run_id)}`, "
            f"continue it with `{command('flujo', 'resume', run_id)}`",
            run_id=run_id,
            recoveries=lost,
        )
        why = error_info(error, ROOT)
        reason = canonical.encode(why.to_json())
        move = self.runtime.announced(record, Move(status=RunStatus.PARKED, error=reason), record.usage)
        await self.runtime.store.write(Write(run_id=run_id, fence=record.fence, move=move))
        if self.runtime.telemetry is not None:
            observer = self.runtime.telemetry.observe(record, self.runtime.clock)
            observer.ended(RunStatus.PARKED, why, record.usage)
        log.warning("%s; it is parked", error)
        return True

    async def execute_launched(self, record: RunRecord, *, sink: Sink | None = None) -> Result:
        """Execute a background task that this process has launched, and whose lease it has."""
        with bind_blobs(self.providers, self.files):
            return await _executed(_execution(self.runtime, sink, None), record)

    def require_own(self, record: RunRecord) -> None:
        """Check that this service executes a run as the run was accepted.

        Raises:
            RunConflict: the run is of another pipeline, or of other files of this one.
        """
        own = self.runtime.pipeline.name
        if record.pipeline != own:
            raise RunConflict(
                f"run {record.run_id} is of pipeline {record.pipeline!r}, and this runner runs {own!r}",
                hint="resume it through a runner of its own pipeline",
                run_id=record.run_id,
            )
        if not self.fits(record):
            raise RunConflict(
                f"run {record.run_id} has pinned files of blueprint {own!r}, and this runner's pipeline is "
                "written in Python or read from other files",
                hint=f"use `{command('flujo', 'resume', record.run_id)}`, "
                f"or a runner of `read_blueprint({own!r})`",
                run_id=record.run_id,
            )

    def fits(self, record: RunRecord) -> bool:
        """Return whether a run has pinned what this service executes, or only the name of its pipeline."""
        return fits(record, self.closure)


def most_suspicions(max_recoveries: int) -> int:
    """Return how often a run may lose its process together with others before it is parked after all.

    Recovery executes such a run by itself, so this is reached only where each process has other work: a
    service that dies again and again while it serves requests.
    """
    return 10 * (max_recoveries + 1)


def retry_act(record: RunRecord, actor: Actor) -> Act | None:
    """Return the act of retrying a run; None when it neither failed nor was parked."""
    if record.status not in (RunStatus.FAILED, RunStatus.PARKED):
        return None
    return Act(verb=Verb.RETRY, actor=actor, run_id=record.run_id, before=record.error)


def limits_of(pipeline: Pipeline, *limits: UsageLimits | None) -> UsageLimits | None:
    """Return the tightest of the limits; None when neither they nor the pipeline limit anything."""
    found = tightest(*limits)
    return UsageLimits() if found is None and pipeline.is_limited else found


# Claiming -------------------------------------------------------------------------------------------------


def _execution(
    runtime: Runtime,
    sink: Sink | None,
    stop: Stop | None,
    *,
    retry_failed: bool = False,
    accept_changes: bool = False,
    longest_wait_s: float = NEAR_S,
) -> Execution:
    guard_environment()  # step code may have set variables since the last run
    if not runtime.is_durable:
        longest_wait_s = math.inf  # the run ends with this process
    return Execution(runtime, sink, retry_failed, accept_changes, longest_wait_s, stop or Stop())


async def _existing(execution: Execution, record: RunRecord, if_exists: IfExists) -> Result:
    """Do what `if_exists` says with the existing run of this id and identity."""
    runtime = execution.runtime
    if if_exists == "fail":
        raise exists_already(record)
    record = await last_of(runtime.store, record)
    tried_at = None
    while if_exists != "return" and record.status in CONTINUABLE:
        if record.status in AT_A_PAUSE and not await _wait_ends(execution, record):
            break
        now = runtime.clock.monotonic()
        # A claim is a write, so a run that an owner holds is only read; one of a queue is left to a worker.
        is_left = record.queued is not None and if_exists == "attach"
        if not is_left and (tried_at is None or is_free(record) or now - tried_at >= _TRY_S):
            tried_at = now
            try:
                return await _executed(execution, await _claim(execution, record.run_id, CONTINUABLE))
            except ResumeConflict:
                if if_exists == "resume":
                    raise
        await runtime.clock.sleep(_POLL_S)
        record = await last_of(runtime.store, await runtime.store.run(record.run_id))
    return await standing(runtime, record)


def exists_already(record: RunRecord) -> RunConflict:
    """Return the error for a run id that is taken, where that is not wanted."""
    return RunConflict(
        f"run {record.run_id} exists already and is {record.status}",
        hint=way_to(record),
        run_id=record.run_id,
    )


def is_free(record: RunRecord) -> bool:
    """Return whether a run has no owner whose lease lasts."""
    return record.owner is None or (record.lease_left_s is not None and record.lease_left_s <= 0)


def _start(found: RunRecord, progress: Progress | None, claimed: RunRecord) -> Progress | None:
    """Return the progress that was read before a claim; None when it may have changed since.

    A run without an owner gets no entries. So its progress has not changed when the claim is the next one;
    only its questions may have, and the claim has returned them.
    """
    if progress is None or claimed.pauses is None or claimed.fence != found.fence + 1:
        return None
    return replace(progress, pauses=claimed.pauses)


async def _executed(execution: Execution, record: RunRecord, start: Progress | None = None) -> Result:
    result, settled, acts = await execution.run(record, start)
    while not execution.wish.is_there():
        run_id = result.continued_as or result.run_id
        begins = result.continued_as is not None
        settled = settled or await _answered_by_fork(execution, result, acts)
        if not (begins or settled or await _wait_ends(execution, result)):
            break
        try:
            claimed = await _claim(execution, run_id, CONTINUABLE if begins else AT_A_PAUSE)
        except ResumeConflict:
            if settled:
                break  # the process that settled the pause continues the run
            return await _existing(execution, await execution.runtime.store.run(run_id), "attach")
        result, settled, acts = await replace(execution, retry_failed=False).run(claimed)
    return result


async def _answered_by_fork(execution: Execution, result: Result, acts: Sequence[Act]) -> bool:
    """Answer a question of a fork with the answer that was given when the run was forked, if there is one.

    Args:
        execution: of the run.
        result: how it ended.
        acts: those that the execution began with.

    Raises:
        InputRejected: the answer does not fit the question.
    """
    asked = [pause.pause_id for pause in result.pauses if pause.needs_answer]
    forked = Forked.of(acts)
    if not asked or forked is None or not forked.answers:
        return False
    store, run_id = execution.runtime.store, RunId(result.run_id)
    waiting = waiting_answer(await store.acts(run_id), asked)
    if waiting is None:
        return False
    record, value, pause_id = await store.run(run_id), waiting.value, waiting.pause_id
    try:
        await record_answer(store, record, pause_id, value, waiting.actor)
    except ResumeConflict:
        return False  # another process answered first
    return True


async def _wait_ends(execution: Execution, run: Result | RunRecord) -> bool:
    return await wait_ends(execution.runtime, RunId(run.run_id), run.status, execution.longest_wait_s)


async def _claim(execution: Execution, run_id: RunId, statuses: Sequence[RunStatus]) -> RunRecord:
    return await _claimed(execution, execution.runtime.store.claim(run_id, statuses=statuses))


async def _claimed(execution: Execution, claiming: Awaitable[RunRecord]) -> RunRecord:
    """Return the claimed run; a cancellation meanwhile gives the run back that is claimed by then.

    Without this a task that is cancelled between claiming a run and walking it would leave the run without
    an execution, and this process would renew its lease for as long as it lives.
    """
    task = asyncio.ensure_future(claiming)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # A cancel scope cancels again during the wait, so one task ends the claim and releases the run.
        await settled(_released(execution, task))
        raise


async def _released(execution: Execution, claiming: asyncio.Future[RunRecord]) -> None:
    """Wait for a claim that is no longer wanted, and give its run back."""
    await asyncio.wait([claiming])
    if not claiming.cancelled() and claiming.exception() is None:
        record = claiming.result()
        move = Move(status=execution.stop.reason.value)
        await execution.runtime.store.write(Write(run_id=record.run_id, fence=record.fence, move=move))
