"""Replays a recorded run: the walk of the engine over a record that is only read, without any call.

The outputs of agents and callables, the answers of people and the results of tasks come from the record.
Everything else is computed again and compared: each decision, what each step gets, what each composite gives,
and what the run ends with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, chains, paths
from flujo.domain.commands import command
from flujo.domain.differences import Difference
from flujo.domain.models import PipelineResult, StepResult
from flujo.domain.outcomes import BegunAgain, Failure, Paused, Success
from flujo.domain.queues import RunKind
from flujo.domain.run import AT_A_PAUSE, Launches, RunStatus
from flujo.domain.run_forks import Forked
from flujo.domain.step_results import step_facts
from flujo.domain.unknown_steps import unknown_step
from flujo.domain.wording import json_short
from flujo.engine.background import pipeline_of
from flujo.engine.foreign_code import Wish
from flujo.engine.frame import RANGE_LENGTH, Plans, Run
from flujo.engine.interpreter import execute
from flujo.engine.recorded_journal import RecordedJournal
from flujo.engine.recorded_steps import RecordedSteps
from flujo.engine.recording import EndOfRecord, Recording, end_of_record
from flujo.exceptions import (
    AgentChanged,
    CallInDoubt,
    JournalConflict,
    PipelineError,
    ReplayDiverged,
    RunDeadlinePassed,
    SettingsError,
    SharedBudgetExceeded,
    StateError,
    StepTimeout,
    UsageLimitExceeded,
)
from flujo.governance.events import of_run, read_error
from flujo.services.project.system import SystemClock, SystemRandom

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from flujo.domain.journal import ErrorInfo, RunId
    from flujo.domain.outcomes import StepOutcome
    from flujo.domain.paths import StepPath
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import Binding
    from flujo.domain.run import RunRecord
    from flujo.domain.store import RunSource

_NOT_COMPUTED = frozenset(
    each.code
    for each in (
        *(UsageLimitExceeded, SharedBudgetExceeded, RunDeadlinePassed, StepTimeout, CallInDoubt),
        *(JournalConflict, AgentChanged, PipelineError),
    )
)
"""Codes of errors that end a run because of money, time, the outside, or a changed pipeline: a replay cannot
compute them."""

_ENDED = (RunStatus.COMPLETED, RunStatus.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """The pipeline that a record is replayed with."""

    pipeline: Pipeline
    binding: Binding
    """What `recorded_binding` has returned."""
    is_pinned: bool = True
    """Whether the run has pinned it; otherwise its agents are compared as well."""
    load_output: Callable[[Any], Any] | None = None
    """Converts the output to the annotated return type of the last callable."""
    range_length: int = RANGE_LENGTH
    servers: Collection[str] = ()
    """The MCP servers whose tools are in flujo.lock; the tools of others are not compared."""
    absent: Collection[str] = ()
    """Tools whose code is not here; they are not compared."""


@dataclass(slots=True)
class Replay:
    """What a replay has found."""

    result: PipelineResult[Any, Any]
    """The result of the run, with the steps of the replay."""
    entries: int
    """How many entries the record has."""
    differences: list[Difference] = field(default_factory=list)
    """Empty when everything is the same. A replay that stops at the first difference has no more than one."""
    seen: Collection[StepPath] = ()
    """The paths to which the walk has come."""
    absent: Collection[str] = ()
    """Tools that were not compared, because their code is not here."""


async def replay(
    source: RunSource,
    run_id: RunId,
    subject: Replayed,
    *,
    until: str | None = None,
    collects: bool = False,
) -> Replay:
    """Replay a run; nothing is called, and nothing is written.

    Args:
        source: has everything that is recorded of the run: a state store, or a file.
        run_id: its id.
        subject: the pipeline.
        until: a step, after which the replay ends.
        collects: whether to collect all differences, with the recorded values in their place.

    Returns:
        What was found. Without `collects`, at most the first difference.

    Raises:
        RunNotFound: there is no such run.
        SettingsError: the run has no step at `until`.
        StateError: the pipeline lacks the step that a background task executes.
        CorruptState: an entry is damaged, or a blob is missing.
    """
    return await replay_recording(await recording_of(source, run_id), subject, until=until, collects=collects)


async def recording_of(source: RunSource, run_id: RunId) -> Recording:
    """Read everything that is recorded of a run.

    Raises:
        RunNotFound: there is no such run.
        CorruptState: an entry is damaged.
    """
    forked = Forked.of(await source.acts(run_id))
    return Recording(
        run=await source.run(run_id),
        entries=await source.entries(run_id),
        pauses=await source.pauses(run_id),
        intents=await source.intents(run_id),
        ledger=await source.ledger(run_id),
        blobs=source,
        copied=0 if forked is None else forked.copied,
    )


async def context_so_far(source: RunSource, record: RunRecord, subject: Replayed) -> Any:
    """Return the context that the recorded steps of a run have left, as a tree, however far it has come.

    Raises:
        JournalConflict: the record does not fit the pipeline.
        CorruptState: an entry is damaged, or a blob is missing.
    """
    recording = (await recording_of(source, record.run_id)).migrated(subject.pipeline)
    journal = RecordedJournal(recording, lambda _: None, None, subject.servers, subject.absent)
    outcome, tree, _ = await _walk(journal, subject, recording.run)
    if isinstance(outcome, Failure) and isinstance(outcome.cause, JournalConflict):
        raise outcome.cause
    if lost := journal.lost():
        at = paths.shown(lost[0])
        raise JournalConflict(f"the journal has a step at `{at}`, which the pipeline lacks", path=lost[0])
    return tree


async def replay_recording(
    recording: Recording, subject: Replayed, *, until: str | None = None, collects: bool = False
) -> Replay:
    """Replay a run whose record is read already; see `replay`."""
    recording = recording.migrated(subject.pipeline)
    record = recording.run
    found: list[Difference] = []

    def tell(difference: Difference) -> None:
        if collects or not found:
            found.append(difference)
        if not collects:
            raise diverged(record.run_id, difference)

    last = None if until is None else _step(recording, until)
    journal = RecordedJournal(recording, tell, last, subject.servers, subject.absent)
    try:
        outcome, tree, run = await _walk(journal, subject, record)
        if not (isinstance(outcome, Failure) and isinstance(outcome.cause, ReplayDiverged)):
            _compare_end(journal, record, outcome, tree)
    except ReplayDiverged:
        result = _result(record, recording, subject, ())
        return Replay(result, len(recording.entries), found, (), subject.absent)
    result = _result(record, recording, subject, run.ended)
    return Replay(result, len(recording.entries), found, journal.seen, subject.absent)


def diverged(run_id: RunId, difference: Difference) -> ReplayDiverged:
    """Return the error about a difference."""
    here = paths.shown(difference.path) or "the end of the run"
    return ReplayDiverged(
        f"the replay of run {run_id} diverges at {here}: {difference.cause}\n"
        f"recorded: {json_short(difference.expected)}\n"
        f"now:      {json_short(difference.got)}"
        + (f"\nexpression: {difference.expression}" if difference.expression else ""),
        path=difference.path,
        cause=difference.cause,
        recorded=difference.expected,
        now=difference.got,
        expression=difference.expression,
    )


async def _walk(
    journal: RecordedJournal, subject: Replayed, record: RunRecord
) -> tuple[StepOutcome, Any, Run]:
    pipeline, owner = subject.pipeline, None
    if record.parent is not None and record.kind is RunKind.EVAL:
        scored = record.parent.run_id
        raise StateError(
            f"run {record.run_id} scores run {scored}, and what scores a run is not replayed",
            hint=f"`{command('flujo', 'replay', scored)}` replays the run",
        )
    if record.parent is not None:
        inside = pipeline_of(pipeline, record.parent.entry)
        if inside is None:
            raise StateError(
                f"pipeline {record.pipeline!r} has no step `{record.parent.entry}`, which background task "
                f"{record.run_id} executes",
                hint="replay it without `--blueprint`, or restore the step",
            )
        pipeline, owner = inside
    run = Run(
        record.run_id,
        record.created_at,
        subject.binding,
        journal,
        _NoWaiting(),
        SystemRandom(),
        Plans(),
        wish=Wish(),
        range_length=subject.range_length,
        launches=Launches(pipeline=record.pipeline, closure=record.closure, blobs={}),
        recorded=RecordedSteps(journal, compares_agents=not subject.is_pinned),
    )
    await subject.binding.prepare()
    given, context = canonical.decode(record.input), canonical.decode(record.context)
    try:
        outcome, tree = await execute(pipeline, run, given, context, owner=owner)
    except EndOfRecord:
        outcome, tree = end_of_record(paths.ROOT), context
    return outcome, tree, run


class _NoWaiting(SystemClock):
    """A clock whose waits are over at once."""

    async def sleep(self, seconds: float) -> None:
        """Do not wait."""
        del seconds


# The end of the run --------------------------------------------------------------------------------------


def _compare_end(journal: RecordedJournal, record: RunRecord, outcome: StepOutcome, tree: Any) -> None:
    """Compare how the walk has ended with the record.

    A run that had not ended has a record that stops somewhere. It is not the same when the walk stops before
    steps that the record has.
    """
    if isinstance(outcome, Failure) and isinstance(outcome.cause, JournalConflict):
        raise outcome.cause
    if journal.is_over:
        return
    lost = journal.lost()
    if journal.missing and lost:
        journal.tell(journal.missing[0], "new step", lost[0], journal.missing[0])
    if lost:
        journal.tell(lost[0], "lost step", lost[0], None)
    if isinstance(outcome, Success) and record.status is RunStatus.COMPLETED:
        journal.compare(paths.ROOT, "output", record.output, canonical.encode(outcome.output, what="output"))
        journal.compare(paths.ROOT, "context", record.context_now, canonical.encode(tree))
    elif isinstance(outcome, BegunAgain) and record.status is RunStatus.COMPLETED:
        journal.compare(paths.ROOT, "context", record.context_now, canonical.encode(tree))
    elif (ended := _other_end(record, outcome)) is not None:
        journal.tell(ended.path, "end", ended.expected, ended.got)


def _other_end(record: RunRecord, outcome: StepOutcome) -> Difference | None:
    """Return how the walk has ended if the run has ended otherwise."""
    expected, recorded = _end_of(record), _error_of(record)
    if recorded is not None and recorded.code in _NOT_COMPUTED:
        return None
    match outcome:
        case Success() if record.status is RunStatus.FAILED:
            return Difference(paths.ROOT, "end", expected, str(RunStatus.COMPLETED))
        case Failure(error=error) if record.status in (*_ENDED, *AT_A_PAUSE):
            if recorded is None or (recorded.code, recorded.path) != (error.code, error.path):
                return Difference(paths.StepPath(error.path), "end", expected, _named(error))
        case Paused(pauses=pauses) if record.status is RunStatus.COMPLETED:
            return Difference(pauses[0].pause_id, "end", expected, str(RunStatus.PAUSED))
        case _:
            pass
    return None


def _error_of(record: RunRecord) -> ErrorInfo | None:
    return None if record.error is None else of_run(read_error(record.error), record.run_id)


def _end_of(record: RunRecord) -> str:
    error = _error_of(record)
    return str(record.status) if error is None else _named(error)


def _named(error: ErrorInfo) -> str:
    return f"{RunStatus.FAILED}: {error.message} [{error.code}]"


def _result(
    record: RunRecord, recording: Recording, subject: Replayed, ended: Any
) -> PipelineResult[Any, Any]:
    context = subject.binding.context(subject.pipeline) if record.parent is None else None
    tree = record.context_now or record.context
    output = None if record.output is None else canonical.decode(record.output)
    if subject.load_output is not None and record.status is RunStatus.COMPLETED:
        output = subject.load_output(output)
    return PipelineResult(
        run_id=record.run_id,
        status=record.status,
        output=output,
        context=None if context is None else context.load(canonical.decode(tree)),
        steps=tuple(StepResult(**step_facts(each)) for each in ended),
        usage=record.usage,
        error=_error_of(record),
        pauses=tuple(each for each in recording.pauses if each.is_open),
        ends_by=record.ends_by,
        continued_as=chains.continued_as(record.run_id, record.output),
    )


def _step(recording: Recording, typed: str) -> StepPath:
    """Return the recorded step that a typed path means.

    Raises:
        SettingsError: the record has none.
    """
    known = list(dict.fromkeys(entry.path for entry in recording.entries))
    found = paths.find(typed, known)
    if found is None:
        run_id = recording.run.run_id
        raise SettingsError(f"run {run_id} has no step {typed!r}", hint=unknown_step(typed, known, run_id))
    return found
