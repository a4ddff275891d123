"""Runs of blueprints, as the command line and workers start them, go on with them, and answer them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.journal import StepPath
from flujo.domain.models import Metadata, PipelineResult
from flujo.domain.run import Move, RunQuery, RunStatus, Write
from flujo.exceptions import (
    AmbiguousPause,
    InputRejected,
    OutputRejected,
    ResumeConflict,
    RunNotFound,
    StateError,
)
from flujo.services.execution import result_of
from flujo.services.runner import CONTINUABLE, Flujo, IfExists

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flujo.domain.ports import Sink, StateStore
    from flujo.domain.run import Pause, RunRecord
    from flujo.services.wiring import Blueprint, Workspace

Result = PipelineResult[Any, Any]
Say = Callable[[str], None]


async def start(
    ws: Workspace,
    blueprint: Blueprint,
    value: Any,
    *,
    context: Mapping[str, Any] | None = None,
    metadata: Metadata | None = None,
    run_id: str | None = None,
    if_exists: IfExists = "attach",
    sink: Sink | None = None,
) -> Result:
    """Accept a run of `blueprint` and execute it; see `Flujo.run_result_async`."""
    runner = await _runner(ws, blueprint)
    return await runner.run_result_async(
        value, initial_context_data=context, run_id=run_id, metadata=metadata, if_exists=if_exists, sink=sink
    )


async def resume(
    ws: Workspace,
    run: str,
    *,
    accept_changes: bool = False,
    retry_failed: bool = False,
    sink: Sink | None = None,
    say: Say | None = None,
) -> Result:
    """Go on with the run that `run` means: an id, a unique prefix of one, or `@last`.

    It goes on with the files that were pinned when it was accepted. When those on disk differ, `say` is told;
    `accept_changes` takes the ones on disk instead.

    Raises:
        RunNotFound: no run, or several, are meant.
        ResumeConflict: somebody else executes it, it has ended, or it failed and `retry_failed` is not given.
        StateError: `accept_changes`, and a recorded step has no place in the changed blueprint.
    """
    store = await ws.store()
    record = await store.find(run)
    _require_continuable(record, retry_failed=retry_failed)
    pinned = await _pinned(ws, record)
    if accept_changes:
        blueprint = await _accept(ws, store, record, pinned, say or _silent, retry_failed=retry_failed)
    else:
        blueprint = pinned
        changed = _changed(ws, pinned)
        if changed and say:
            say(
                f"on disk {_listed(changed)} differ{'s' if len(changed) == 1 else ''} from what this run was "
                "started with; it goes on with what was pinned (`--accept-changes` takes the files on disk)"
            )
    runner = await _runner(ws, blueprint)
    return await runner.resume_async(record.run_id, retry_failed=retry_failed, sink=sink)


async def resumable(ws: Workspace) -> list[RunRecord]:
    """Return the runs that somebody may go on with, newest first: those that wait, and those left behind."""
    store = await ws.store()
    statuses = (*CONTINUABLE, RunStatus.FAILED, RunStatus.PARKED)
    return await store.runs(RunQuery(statuses=statuses))


async def answer(
    ws: Workspace,
    run: str,
    pause_id: str | None,
    given: Any,
    *,
    detach: bool = False,
    sink: Sink | None = None,
) -> Result:
    """Answer a question of a paused run, and go on with it unless `detach` is set or its owner does.

    Raises:
        RunNotFound: no such run or question.
        AmbiguousPause: several questions are open and `pause_id` names none.
        InputRejected: the answer does not fit the question's schema.
        ResumeConflict: somebody else has answered.
    """
    store = await ws.store()
    record = await store.find(run)
    pause = chosen(record, await store.pauses(record.run_id), pause_id)
    if pause.answer_schema is not None:
        check_answer(pause, given)
    await store.answer(record.run_id, pause.pause_id, canonical.encode(given, what="answer"))
    if detach:
        return await result_of(store, await store.run(record.run_id))
    try:
        return await resume(ws, record.run_id, sink=sink)
    except ResumeConflict as conflict:
        if conflict.facts.get("owner") is None:
            raise
        return await result_of(store, await store.run(record.run_id))


def chosen(record: RunRecord, pauses: list[Pause], pause_id: str | None) -> Pause:
    """Return the question that is meant: the one that is named, or the only one that is open."""
    open_ones = [pause for pause in pauses if pause.is_open]
    names = ", ".join(pause.pause_id for pause in open_ones)
    if pause_id is not None:
        for pause in pauses:
            if pause.pause_id == pause_id:
                return pause
        raise RunNotFound(
            f"run {record.run_id} has no question {pause_id!r}",
            hint=f"open questions: {names}" if names else "it waits for nobody",
        )
    if not open_ones:
        raise ResumeConflict(
            f"run {record.run_id} is {record.status} and waits for nobody",
            hint=f"`flujo trace {record.run_id}` shows what happened",
            status=record.status,
        )
    if len(open_ones) > 1:
        raise AmbiguousPause(
            f"run {record.run_id} waits for {len(open_ones)} answers: {names}",
            hint=f"say which: `flujo tasks resume {record.run_id}:{open_ones[0].pause_id} …`",
            pauses=tuple(pause.pause_id for pause in open_ones),
        )
    return open_ones[0]


def check_answer(pause: Pause, given: Any) -> None:
    """Return when an answer fits its question's schema.

    Raises:
        InputRejected: naming what does not fit.
    """
    from flujo.blueprint.compiled_schemas import compile_schema

    try:
        compile_schema(canonical.decode(pause.answer_schema or b"true")).check(
            canonical.normalise(given, what="answer"), what=f"answer to `{pause.pause_id}`"
        )
    except OutputRejected as error:
        raise InputRejected(error.message, hint=error.hint) from None


async def _runner(ws: Workspace, blueprint: Blueprint) -> Flujo[Any, Any, Any]:
    binding = ws.bind(blueprint.pipeline)
    return Flujo(
        blueprint.pipeline,
        store=await ws.store(),
        binding=binding,
        blueprint=blueprint,
        clock=ws.clock,
        chance=ws.chance,
    )


def _require_continuable(record: RunRecord, *, retry_failed: bool) -> None:
    if record.status is RunStatus.FAILED and not retry_failed:
        raise ResumeConflict(
            f"run {record.run_id} has failed",
            hint=f"`flujo resume --retry-failed {record.run_id}` goes on from the step that failed",
            status=record.status,
        )
    if record.status.is_final:
        raise ResumeConflict(
            f"run {record.run_id} is {record.status}: there is nothing to go on with",
            hint=f"`flujo trace {record.run_id}` shows what happened",
            status=record.status,
        )


# What a run has pinned -----------------------------------------------------------------------------------


async def _pinned(ws: Workspace, record: RunRecord) -> Blueprint:
    """Return the blueprint as it was when the run was accepted, from the blobs in the database."""
    from flujo.blueprint.compiler import Closure
    from flujo.blueprint.resolver import PinnedSource

    store = await ws.store()
    manifest = (await store.blobs([record.closure]))[record.closure]
    content = canonical.decode(manifest)
    if "python" in content:
        raise StateError(
            f"run {record.run_id} is of the pipeline {content['python']!r}, which is written in Python",
            hint="go on with it where that pipeline is built: `await runner.resume_async(run_id)`",
        )
    closure = Closure.load(manifest, await store.blobs(sorted(set(content["files"].values()))))
    return ws.compile(closure.entry, PinnedSource(closure.files), closure.overrides)


def _changed(ws: Workspace, pinned: Blueprint) -> list[str]:
    from flujo.blueprint.resolver import FileSource

    source = FileSource(ws.project.root)
    changed = []
    for path, content in pinned.closure.files.items():
        try:
            same = source.read(path) == content
        except Exception:  # noqa: BLE001 - gone, moved or unreadable: whatever it is, it is not the same
            same = False
        changed += [] if same else [path]
    return changed


async def _accept(
    ws: Workspace,
    store: StateStore,
    record: RunRecord,
    pinned: Blueprint,
    say: Say,
    *,
    retry_failed: bool,
) -> Blueprint:
    """Move the run to the files on disk, if every recorded step still has its place in them."""
    changed = _changed(ws, pinned)
    blueprint = ws.load(pinned.path, overrides=pinned.closure.overrides)
    if not changed:
        say("nothing has changed on disk since this run was started")
        return pinned
    places = {path: step.kind for path, step in blueprint.pipeline.walk()}
    recorded = [entry for entry in await store.entries(record.run_id) if entry.fingerprint]
    lost = sorted({entry.path for entry in recorded if places.get(_place(entry.path)) != entry.fingerprint})
    if lost:
        raise StateError(
            f"the changed blueprint has no place for {_listed(lost)}, which this run has recorded",
            hint="keep the names and kinds of finished steps, or start a new run",
            paths=tuple(lost),
        )
    say(f"changed on disk: {_listed(changed)}")
    kept = list(dict.fromkeys(_place(entry.path) for entry in recorded if entry.status == "completed"))
    say(f"finished and kept as they are: {_listed(kept) if kept else 'no step'}")
    statuses = (*CONTINUABLE, RunStatus.FAILED) if retry_failed else CONTINUABLE
    claimed = await store.claim(record.run_id, statuses=statuses)
    move = Move(status=RunStatus.INTERRUPTED, closure=blueprint.closure.digest)
    await store.write(
        Write(run_id=claimed.run_id, fence=claimed.fence, blobs=blueprint.closure.blobs(), move=move)
    )
    return blueprint


def _place(path: StepPath) -> StepPath:
    """Return where in the tree a recorded path stands: without counts and branches."""
    segments = (segment.partition("[")[0].partition(":")[0] for segment in path.split("/"))
    return StepPath("/".join(segments))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _silent(_: str) -> None:
    """Say nothing."""
