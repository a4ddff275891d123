"""Starts, resumes and answers runs of blueprints, for the command line and workers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.acts import Act, Verb
from flujo.domain.commands import command
from flujo.domain.models import PipelineResult
from flujo.domain.paths import shown
from flujo.domain.run import Move, PauseKind, RunStatus, Write
from flujo.domain.wording import listed
from flujo.engine.endings import begins_with_finally, is_in_finally
from flujo.exceptions import CallableError, ChangesRefused, ResumeConflict, SecretNotSet, StateError
from flujo.services.recorded.replay import recording_of
from flujo.services.runs.answers import record_answer
from flujo.services.runs.applied_migrations import in_act
from flujo.services.runs.chains import find_last, last_of
from flujo.services.runs.changes import changed_files, compare, kept_note, without_counts
from flujo.services.runs.execution import cancelled, result_of
from flujo.services.runs.notices import silent
from flujo.services.runs.queues import no_worker_note, place
from flujo.services.runs.raised_budgets import failed_at_a_limit, parsed
from flujo.services.runs.replays import replayed
from flujo.services.runs.run_request import NEAR_S, is_stubbed
from flujo.services.runs.run_services import (
    RunServices,
    is_python,
    pinned_blueprint,
    pinned_closure,
    require_tested,
)
from flujo.services.runs.service import RESUMABLE, is_free, require_unhandled, retry_act

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.blueprint.closure import Closure
    from flujo.domain.acts import Actor
    from flujo.domain.journal import RunId
    from flujo.domain.ports import Clock, Sink
    from flujo.domain.run import Pause, RunRecord
    from flujo.domain.store import StateStore
    from flujo.services.runs.execution import Stop
    from flujo.services.runs.notices import NotifierOf
    from flujo.services.runs.run_request import Request
    from flujo.services.workspace import Blueprint, Workspace

Result = PipelineResult[Any, Any]
Say = Callable[[str], None]
Resuming = Callable[["RunRecord"], Awaitable[Result] | None]
"""Returns what resumes a run; None when this process leaves that to others."""

CANCELLABLE = (*RESUMABLE, RunStatus.FAILED)
"""The states of a run that has not ended for good."""

OWNER_S = 30.0
"""How long a cancel waits for the process that executes the run."""

_UNCHECKED = "FLJ253"
"""The rule that reports a callable whose source is not in the project."""
_POLL_S = 0.25
_TRY_S = 5.0


async def start(
    ws: Workspace,
    blueprint: Blueprint,
    request: Request,
    *,
    sink: Sink | None = None,
    stop: Stop | None = None,
) -> Result:
    """Accept a run of `blueprint` and execute it; see `RunService.accept`.

    Raises:
        SecretNotSet: a tool needs a secret that is not set; names the line.
        CallableError: a callable cannot be imported; names the line if its source is not in the project.
    """
    _require_secrets(blueprint)
    services = await RunServices.of_project(ws)
    try:
        service = services.of_blueprint(blueprint)
    except CallableError as error:
        raise _placed(error, blueprint) from error
    async with services.tasks.stay():
        return await service.accept(request, sink=sink, stop=stop)


async def submit(
    ws: Workspace, blueprint: Blueprint, request: Request, *, queue: str, priority: int, delay_s: float
) -> tuple[RunRecord, str | None]:
    """Record a run of `blueprint` in a queue; see `RunService.submit`.

    Returns:
        The run, and a note when no worker takes it.
    """
    _require_secrets(blueprint)
    service = (await RunServices.of_project(ws)).of_blueprint(blueprint)
    settings = ws.project.settings
    placing = partial(place, settings, queue=queue, priority=priority, delay_s=delay_s)
    record = await service.submit(request, placing)
    return record, await no_worker_note(await ws.store(), queue)


def _require_secrets(blueprint: Blueprint) -> None:
    for found in blueprint.diagnostics:
        if found.code == SecretNotSet.code:
            raise SecretNotSet(f"{found.span.file}:{found.span.line}: {found.message}", hint=found.hint)


def _placed(error: CallableError, blueprint: Blueprint) -> CallableError:
    """Return an error with the line of its callable, which the checks report if they cannot read it."""
    for found in blueprint.diagnostics:
        if found.code == _UNCHECKED and f"`{error.target}`" in found.message:
            message = f"{found.span.file}:{found.span.line}: {error.message}"
            return CallableError(message, hint=error.hint, **error.facts)
    return error


async def resume(
    ws: Workspace,
    run: str,
    *,
    accept_changes: bool = False,
    retry_failed: bool = False,
    budgets: Sequence[str] = (),
    stays: bool = False,
    actor: Actor,
    sink: Sink | None = None,
    stop: Stop | None = None,
    say: Say | None = None,
) -> Result:
    """Resume the run that `run` means: an id, a unique prefix of one, or `@last`.

    The run keeps the files that were pinned when it was accepted. When those on disk differ, `say` is called
    with a note; `accept_changes` takes the ones on disk instead. With `stays` this process waits for the end
    of each wait of the run, however long it is. `budgets` are limits that are set for this run, as the
    options `--set` say them; a run that has failed at a limit is then retried.

    Raises:
        InputRejected: one of `budgets` is not a limit.
        RunNotFound: no run, or several, are meant.
        ResumeConflict: another process executes it, it has ended, or it failed and `retry_failed` is not set.
        ChangesRefused: `accept_changes`, and the run cannot continue with the changed blueprint.
    """
    store = await ws.store()
    record = await find_last(store, run)
    raised = parsed(budgets, [each.name for each in ws.project.settings.budgets.rule])
    retry_failed = retry_failed or (bool(raised) and failed_at_a_limit(record))
    _require_continuable(record, retry_failed=retry_failed)
    accepted = await pinned_blueprint(ws, store, record)
    if accept_changes:
        _require_own_files(record, accepted)
        blueprint = await _accept(
            ws, store, record, accepted, say or _silent, actor, retry_failed=retry_failed
        )
    else:
        blueprint = accepted
        require_tested(ws, record, accepted)
        if say:
            _note_changes(ws, accepted.closure, record, say)
    services = await RunServices.of_project(ws)
    service = services.of_blueprint(blueprint)
    if record.parent is not None:
        service = await services.of_run(record)
    async with services.tasks.stay():
        result = await service.resume(
            record.run_id,
            retry_failed=retry_failed,
            accept_changes=accept_changes,
            raised=raised,
            longest_wait_s=inf if stays else NEAR_S,
            actor=actor,
            sink=sink,
            stop=stop,
        )
        await services.tasks.adopt(record.run_id)
        return result


def _require_own_files(record: RunRecord, accepted: Blueprint) -> None:
    """Return if a run may take other files than those that it has pinned.

    Raises:
        StateError: it shares them with the run that launched it, or that it was forked from.
    """
    if record.parent is not None:
        raise StateError(
            f"{record.run_id} is a background task, which keeps the files of the run that launched it",
            hint=f"`{command('flujo', 'tasks', 'retry', record.run_id)}` retries it with these",
        )
    if is_stubbed(record, accepted.closure.digest):
        raise StateError(
            f"{record.run_id} is a fork, which keeps the files that it began with",
            hint="fork the run again, from its parent with the changed files",
        )


async def cancel(
    store: StateStore,
    run: str,
    actor: Actor,
    *,
    clock: Clock,
    notifier: NotifierOf = silent,
    owner_s: float = OWNER_S,
    resuming: Resuming | None = None,
) -> RunRecord:
    """End a run for good: its owner does, or this process when the run has no living owner.

    A run without an owner that has begun with `finally` is ended by the process that resumes it, after that.

    Args:
        store: the store with the run.
        run: an id, a unique prefix of one, or `@last`.
        actor: who cancels.
        clock: measures `owner_s`.
        notifier: returns what sends messages about the run when this process ends it.
        owner_s: how long to wait for a living owner.
        resuming: returns what resumes a run here; None where this process cannot, or leaves it to a worker.

    Returns:
        The run as it is now. It is still running when its owner lives and has not stopped it after `owner_s`;
        the owner will, as soon as the step that it executes lets it. It is running without an owner when it
        has begun with `finally` and this process cannot resume it; the next owner executes `finally`.

    Raises:
        RunNotFound: no run, or several, are meant.
        ResumeConflict: it has ended already.
    """
    record = await _wished(store, await find_last(store, run), actor)
    began, tried_at = clock.monotonic(), None
    while record.status in CANCELLABLE:
        now = clock.monotonic()
        # A claim is a write, so a run that an owner holds is only read.
        if tried_at is None or is_free(record) or now - tried_at >= _TRY_S:
            tried_at = now
            try:
                if await _is_ended(store, record.run_id, actor, notifier):
                    return await store.run(record.run_id)
                if resuming is None or (resumed := resuming(record)) is None:
                    return await store.run(record.run_id)
                await resumed
                return await store.run(record.run_id)
            except ResumeConflict:
                if now - began >= owner_s:
                    break
        await clock.sleep(_POLL_S)
        record = await last_of(store, await store.run(record.run_id))  # which has the wish too
    return record


async def _wished(store: StateStore, record: RunRecord, actor: Actor) -> RunRecord:
    """Record the wish that a run be cancelled, or the run that has continued it meanwhile."""
    try:
        return await store.cancel(record.run_id, actor)
    except ResumeConflict:
        last = await last_of(store, await store.run(record.run_id))
        if last.run_id == record.run_id:
            raise
        return await _wished(store, last, actor)


async def _is_ended(store: StateStore, run_id: RunId, actor: Actor, notifier: NotifierOf) -> bool:
    """End a run without a living owner, or leave it to the next owner if its `finally` must be executed.

    The journal is read under the claim, so no other process can have begun the run meanwhile. After that the
    run is like one whose process was stopped: running without an owner, and with the recorded wish.

    Returns:
        Whether the run has ended.
    """
    before = (await store.run(run_id)).status
    claimed = await store.claim(run_id, statuses=CANCELLABLE)
    first = (await store.progress(run_id)).first
    over = before is RunStatus.FAILED and is_in_finally(first)
    if begins_with_finally(first) and not over:
        await store.write(Write(run_id=run_id, fence=claimed.fence, move=Move(status=RunStatus.RUNNING)))
        return False
    move = Move(status=RunStatus.CANCELLED, error=canonical.encode(cancelled(actor.by).to_json()))
    move = (await notifier(claimed)).announced(claimed, move)
    await store.write(Write(run_id=run_id, fence=claimed.fence, move=move))
    return True


def resuming_in(ws: Workspace, actor: Actor) -> Resuming:
    """Return what resumes a run in a project, except a run of a queue or of a pipeline in Python."""

    def resumed(record: RunRecord) -> Awaitable[Result] | None:
        if is_python(record) or record.queued is not None:
            return None
        return resume(ws, record.run_id, actor=actor)

    return resumed


async def answer(
    ws: Workspace,
    run: str,
    pause_id: str | None,
    given: Any,
    *,
    actor: Actor,
    kind: PauseKind = PauseKind.QUESTION,
    shown: Pause | None = None,
    detach: bool = False,
    sink: Sink | None = None,
    stop: Stop | None = None,
    say: Say | None = None,
) -> Result:
    """Settle a pause of this kind, and resume the run unless `detach` is set or its owner does.

    For a pipeline written in Python only the answer is recorded, and the result has a `note` about it.

    Raises:
        RunNotFound: no such run or question.
        AmbiguousPause: several of this kind are open and `pause_id` names none.
        WrongPauseKind: the pause is of another kind.
        InputRejected: the answer does not fit the question's schema.
        ResumeConflict: the question has another answer already.
        QuestionChanged: the run has asked again since the question was `shown`.
    """
    store = await ws.store()
    record = await find_last(store, run)
    await record_answer(store, record, pause_id, given, actor, kind=kind, shown=shown)
    if detach or is_python(record) or record.queued is not None:
        if say and not is_python(record):
            _note_changes(ws, await pinned_closure(store, record), record, say)
        return await report_unclaimed(store, record)
    resuming = resume(ws, record.run_id, actor=actor, sink=sink, stop=stop, say=say)
    return await ignore_if_owned(store, record, resuming)


async def ignore_if_owned(store: StateStore, record: RunRecord, resuming: Awaitable[Result]) -> Result:
    """Return the result of `resuming` an answered run, or its state when another process resumed it first."""
    try:
        return await resuming
    except ResumeConflict:
        if (await store.run(record.run_id)).status is RunStatus.PAUSED:
            raise
        return await report_unclaimed(store, record)


async def report_unclaimed(store: StateStore, record: RunRecord) -> Result:
    """Return the state of an answered run that is not resumed here."""
    result = await result_of(store, await store.run(record.run_id))
    if record.queued is not None:
        note = f"the answer is recorded; a worker of queue `{record.queued.queue}` resumes the run"
        return result.model_copy(update={"note": note})
    if is_python(record):
        how = f"`await runner.resume_async({record.run_id!r})` where pipeline {record.pipeline!r} is built"
    else:
        how = f"`{command('flujo', 'resume', record.run_id)}` in the project of blueprint {record.pipeline!r}"
    note = f"the answer is recorded; the process that executes the run resumes it, otherwise {how}"
    return result.model_copy(update={"note": note})


def _note_changes(ws: Workspace, pinned: Closure, record: RunRecord, say: Say) -> None:
    """Call `say` with a note when files on disk differ from those that the run has pinned."""
    if note := kept_note(record.run_id, ws.project.root, pinned.files):
        say(note)


def _require_continuable(record: RunRecord, *, retry_failed: bool) -> None:
    require_unhandled(record)
    if record.status is RunStatus.FAILED and not retry_failed:
        raise ResumeConflict(
            f"run {record.run_id} has failed",
            hint=f"`{command('flujo', 'resume', '--retry-failed', record.run_id)}` retries the failed step",
            status=record.status,
        )
    if record.status.is_settled:
        raise ResumeConflict(
            f"run {record.run_id} is {record.status}; it cannot be resumed",
            hint=f"`{command('flujo', 'trace', record.run_id)}` shows what happened",
            status=record.status,
        )


async def _accept(
    ws: Workspace,
    store: StateStore,
    record: RunRecord,
    pinned: Blueprint,
    say: Say,
    actor: Actor,
    *,
    retry_failed: bool,
) -> Blueprint:
    """Move the run to the files on disk, if every recorded step still has its place in them."""
    changed = changed_files(ws.project.root, pinned.closure.files)
    blueprint = ws.load(pinned.path, overrides=pinned.closure.overrides)
    if not changed:
        say("nothing has changed on disk since this run was started")
        return pinned
    recording = await recording_of(store, record.run_id)
    found = await compare(recording, replayed(ws, blueprint.pipeline, is_pinned=False))
    if not found.can_continue:
        raise ChangesRefused(
            found.refusal(),
            hint="keep the names and kinds of recorded steps, branches and states, or start a new run",
            paths=(*found.lost, *found.left_out, *(each.path for each in found.conflicts)),
        )
    say(f"changed on disk: {listed(changed)}")
    kept = dict.fromkeys(map(without_counts, found.kept))
    if found.migrations:
        renamed = (f"{shown(each.old)} → {shown(each.new)}" for each in found.migrations.applied)
        say(f"renamed: {listed(renamed)}")
    say(f"completed steps kept: {listed(kept) if kept else 'none'}")
    if found.changed:
        differing = (f"{without_counts(each.path)} ({each.cause})" for each in found.changed)
        say(f"of these, changed: {listed(dict.fromkeys(differing))}")
    statuses = (*RESUMABLE, RunStatus.FAILED) if retry_failed else RESUMABLE
    claimed = await store.claim(record.run_id, statuses=statuses)
    if record.lock_digest is not None and blueprint.lock_digest is None:
        blueprint = replace(blueprint, closure=replace(blueprint.closure, unlocked=True))
    accepting = Act(
        verb=Verb.ACCEPT_CHANGES,
        actor=actor,
        run_id=record.run_id,
        object=", ".join(changed),
        before=canonical.encode(record.closure),
        after=in_act(blueprint.closure.digest, found.migrations),
    )
    retrying = retry_act(record, actor) if retry_failed else None
    await store.write(
        Write(
            run_id=claimed.run_id,
            fence=claimed.fence,
            blobs=blueprint.closure.blobs(),
            move=Move(status=RunStatus.INTERRUPTED, closure=blueprint.closure.digest),
            acts=(accepting,) if retrying is None else (retrying, accepting),
        )
    )
    return blueprint


def _silent(_: str) -> None:
    """Say nothing."""
