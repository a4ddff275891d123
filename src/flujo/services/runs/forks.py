"""Forks: a new run that has everything before a path in common with another run, and is live after it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, paths
from flujo.domain.commands import command
from flujo.domain.journal import FILES, TRANSCRIPT, Entry, EntryKind, EntryStatus
from flujo.domain.paths import StepPath
from flujo.domain.run import ENDS_OF_TASKS, NewRun, RunStatus, pinned_stubs
from flujo.domain.run_forks import Forked, Stub
from flujo.domain.unknown_steps import unknown_step
from flujo.domain.wording import did_you_mean, listed
from flujo.exceptions import ForkPointMissing, ForkRefused, RunNotFound
from flujo.governance.sink import GATE
from flujo.services.binding.blob_references import bind_blobs
from flujo.services.recorded.replay import recording_of
from flujo.services.runs.context_at import with_context
from flujo.services.runs.copied import Point, chain_of, numbered
from flujo.services.runs.life_limits import life_of
from flujo.services.runs.run_request import checked_run_id, declared, entering_input
from flujo.services.runs.service import is_free

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from flujo.domain.acts import Actor
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import Binding, ContextType, Sink
    from flujo.domain.run import RunRecord
    from flujo.domain.steps import BaseStep
    from flujo.domain.store import RunSource
    from flujo.engine.recording import Recording
    from flujo.services.runs.execution import Stop
    from flujo.services.runs.service import Result, RunService

UNCHANGED: Any = object()
"""Stands for the input of the parent: None is an input."""

_NOT_MADE = ("refused", "denied")
"""What the model of a tool got when its call was not made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """The arguments with which a caller forks a run."""

    at: str
    """The path before which everything is copied, as it is stored or shown."""
    input: Any = UNCHANGED
    """The input of the fork, instead of that of its parent."""
    context: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the context that have other values from `at` on."""
    answers: Mapping[str, Any] = field(default_factory=dict)
    """Answers to questions of the fork, by the paths of their steps."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """Other instructions of agents, by their names."""
    models: Mapping[str, str] = field(default_factory=dict)
    """Other models of agents, by their names."""
    live_effects: bool = False
    """Whether calls with effects are made, instead of taking the results of the parent."""
    run_id: str | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """What the fork does differently, for its act."""
        said = {
            "input": None if self.input is UNCHANGED else True,
            "context": dict(self.context),
            "answers": sorted(self.answers),
            "prompts": sorted(self.prompts),
            "models": dict(self.models),
        }
        return {name: each for name, each in said.items() if each}

    @property
    def overrides(self) -> dict[str, str]:
        """The overrides of its closure."""
        models = {f"agents.{name}.model": model for name, model in self.models.items()}
        return models | {f"agents.{name}.instructions": text for name, text in self.prompts.items()}


def require_forkable(record: RunRecord) -> None:
    """Refuse a run that cannot be forked now.

    Raises:
        ForkRefused: it is being executed, or is a background task.
    """
    if record.status is RunStatus.RUNNING and not is_free(record):
        raise ForkRefused(
            f"run {record.run_id} is being executed, and its journal grows",
            hint="wait until it has ended or pauses, or fork it then",
            run_id=record.run_id,
        )
    if record.parent is not None:
        raise ForkRefused(
            f"{record.run_id} is a background task, and only whole runs are forked",
            hint=f"fork the run that launched it: {record.parent.run_id}",
            run_id=record.run_id,
        )


async def execute_fork(
    source: RunSource,
    record: RunRecord,
    service: RunService,
    fork: Fork,
    actor: Actor,
    *,
    sink: Sink | None = None,
    stop: Stop | None = None,
) -> Result:
    """Record a fork of a run, and execute it; see `new_fork`."""
    require_forkable(record)
    new, contents = await new_fork(source, record, service, fork, actor)
    return await service.begin(new, contents, sink=sink, stop=stop)


async def new_fork(
    source: RunSource, record: RunRecord, service: RunService, fork: Fork, actor: Actor
) -> tuple[NewRun, Mapping[str, bytes]]:
    """Return a fork of a run, and the contents that its entries name; nothing is recorded.

    Args:
        source: has the run.
        record: the run.
        service: of what the fork pins.
        fork: the wanted changes.
        actor: who forks.

    Raises:
        ForkPointMissing: the run has not reached the path, or there is no such path.
        ForkRefused: the fork cannot keep what it promises.
        InputRejected: the input or the context does not fit.
        CorruptState: an entry or a content of the run is missing or damaged.
    """
    runtime = service.runtime
    pipeline, binding = runtime.pipeline, runtime.binding
    with bind_blobs(service.providers, service.files):
        await binding.prepare()
    answers = _admitted_answers(fork)
    found = await recording_of(source, record.run_id)
    recorded, stored = found.migrated(pipeline), found.migrations(pipeline).old
    entries = recorded.entries
    at = point_of(fork.at, recorded, pipeline)
    _require_possible(fork, pipeline, binding, at)
    point = Point.of(at, entries, pipeline)
    launches = await _unended_launches(source, entries, stored)
    kept: Sequence[Entry] = [
        entry for entry in entries if point.is_after(entry) and not _is_again(entry, launches)
    ]
    context = canonical.decode(record.context)
    if fork.context:
        fields = await _checked_context(fork, context, binding.context(pipeline))
        context, kept = with_context(fields, context, kept, point)
    copied = numbered(kept)
    stubs = None if fork.live_effects else tuple(_stubs(entries, point, pipeline))
    closure = service.closure if stubs is None else pinned_stubs(service.closure)[0]
    given = _input(fork, record, pipeline, binding)
    run_id = checked_run_id(fork.run_id) or runtime.random.run_id()
    forked = Forked(
        parent=record.run_id, at=at, copied=len(copied), changes=fork.changes, stubs=stubs, answers=answers
    )
    new = NewRun(
        run_id=run_id,
        pipeline=record.pipeline,
        closure=closure,
        input=GATE.admit(given, "input"),
        context=GATE.admit(canonical.encode(context, what="context"), "context"),
        metadata=record.metadata,
        user_id=record.user_id,
        lock_digest=None if fork.overrides else record.lock_digest,
        life_s=life_of(pipeline, binding, canonical.decode(given)),
        entries=copied,
        acts=forked.acts(run_id, actor),
    )
    return new, await source.blobs(sorted(_named_by(copied)))


def _require_possible(fork: Fork, pipeline: Pipeline, binding: Binding, at: StepPath) -> None:
    """Refuse answers of unknown steps, and calls that cannot take the results of the parent.

    Raises:
        ForkPointMissing: there is no step of an answer.
        ForkRefused: the fork cannot keep what it promises.
    """
    for path in fork.answers:
        _require_step(path, pipeline)
    if not fork.live_effects:
        _require_stubs(pipeline, binding, at)


def _admitted_answers(fork: Fork) -> Any:
    """Return the answers of a fork, after a check that no change of it contains a secret.

    Raises:
        SecretInValue: one does.
    """
    GATE.admit(canonical.encode(fork.changes, what="the changes"), "the changes of the fork")
    encoded = canonical.encode(dict(fork.answers), what="the answers")
    return canonical.decode(GATE.admit(encoded, "the answers of the fork"))


async def _checked_context(fork: Fork, context: Mapping[str, Any], kind: ContextType) -> dict[str, Any]:
    """Return the fields of the context that a fork sets, as its type has them.

    Raises:
        InputRejected: they do not fit.
    """
    checked = await kind.start({**context, **fork.context})
    new = GATE.entering_fields(checked, kind.pii)
    return {name: new[name] for name in fork.context}


def _input(fork: Fork, record: RunRecord, pipeline: Pipeline, binding: Binding) -> bytes:
    """Return the input of a fork: a new one, or that of its parent.

    Raises:
        InputRejected: a new one does not fit.
    """
    if fork.input is UNCHANGED:
        return record.input
    return entering_input(pipeline, declared(pipeline, binding, canonical.encode(fork.input, what="input")))


# The point -----------------------------------------------------------------------------------------------


def point_of(typed: str, recorded: Recording, pipeline: Pipeline) -> StepPath:
    """Return the path that is meant: one that the run has reached.

    Raises:
        ForkPointMissing: there is no such path; the hint names the nearest.
    """
    reached: dict[StepPath, None] = {}
    questions = (pause.pause_id for pause in recorded.pauses)
    for path in (*(entry.path for entry in recorded.entries), *questions):
        whole = paths.step_of(StepPath(path.partition("!")[0]))
        reached |= dict.fromkeys(each for each in chain_of(whole) if paths.bounds(each) is None)
    places = {place for place, _ in pipeline.walk()}
    known = [each for each in reached if not _is_beside(each, places)]
    found = paths.find(typed, known)
    if found is not None:
        return found
    run_id = recorded.run.run_id
    if paths.without_counts(paths.from_command_line(typed)) in places:
        reached_now = listed(map(paths.shown, known), "and")
        raise ForkPointMissing(
            f"run {run_id} has not reached `{typed}`",
            hint=f"it has reached {reached_now}; `{command('flujo', 'trace', run_id)}` lists all steps",
            path=typed,
        )
    raise ForkPointMissing(
        f"run {run_id} has no step {typed!r}", hint=unknown_step(typed, known, run_id), path=typed
    )


def _is_beside(path: StepPath, places: Collection[StepPath]) -> bool:
    """Return whether a path is that of a record beside a step: its cache, merge, chosen agent or files."""
    place = paths.without_counts(path)
    is_record = place.endswith((":cache", ":merge", ":agent", ":files"))
    return (
        is_record
        and paths.parent(place) in places
        and not any(paths.is_inside(each, place) for each in places)
    )


def _require_step(typed: str, pipeline: Pipeline) -> None:
    places = [place for place, _ in pipeline.walk()]
    meant = paths.without_counts(StepPath(paths.from_command_line(typed).partition("!")[0]))
    if paths.find(meant, places) is None and "/turn/" not in f"{meant}/":
        raise ForkPointMissing(
            f"there is no step {typed!r} that could ask",
            hint=did_you_mean(meant, map(paths.shown, places), cutoff=0.5) or "`flujo ls` lists the steps",
            path=typed,
        )


# Effects -------------------------------------------------------------------------------------------------


def _stubs(entries: Sequence[Entry], point: Point, pipeline: Pipeline) -> Iterator[Stub]:
    """Yield the results of calls with effects that the fork may make again."""
    steps = dict(pipeline.walk())
    for entry in entries:
        if point.is_after(entry) or entry.kind is not EntryKind.WORK:
            continue
        if entry.status is not EntryStatus.COMPLETED or entry.input is None:
            continue
        detail = canonical.decode(entry.detail or b"{}")
        tool = detail.get("tool") or detail.get("call")
        if tool is None or not _has_effect(detail, steps.get(paths.without_counts(entry.path))):
            continue
        yield Stub(
            path=entry.path,
            tool=tool,
            arguments=canonical.digest(entry.input),
            output=canonical.decode(entry.output or b"null"),
            outcome=detail.get("outcome", "result"),
            patch=None if entry.patch is None else canonical.decode(entry.patch),
        )


def _has_effect(detail: Mapping[str, Any], step: BaseStep | None) -> bool:
    if "tool" in detail:
        return detail.get("effect") not in (None, "read") and detail.get("outcome") not in _NOT_MADE
    return step is None or step.has_effect


def _require_stubs(pipeline: Pipeline, binding: Binding, at: StepPath) -> None:
    """Refuse a fork in which a model may call tools with effects whose calls no entry records.

    Raises:
        ForkRefused: a step other than a `granular` one has such tools.
    """
    first = chain_of(paths.without_counts(at))[0]
    names = [step.name for step in pipeline.steps]
    before = names[: names.index(paths.name(first))] if paths.name(first) in names else []
    for path, step in pipeline.walk():
        if step.kind == "granular" or paths.name(chain_of(path)[0]) in before:
            continue
        agents = (binding.agent(each) for each in step.names())
        tools = (tool for agent in agents for tool in getattr(agent, "tools", {}).values())
        found = [tool.name for tool in tools if tool.effect != "read"]
        if found:
            raise ForkRefused(
                f"step `{paths.shown(path)}` asks an agent with tools that have effects ({listed(found)}), "
                "and no entry records their calls, so nothing can stand for them",
                hint="make it a `granular` step, declare `effect: read`, or fork with `--live-effects`",
            )


# Background tasks ----------------------------------------------------------------------------------------


async def _unended_launches(
    source: RunSource, entries: Sequence[Entry], stored: Callable[[StepPath], StepPath]
) -> set[StepPath]:
    """Return the paths of launches whose tasks have not ended: the fork launches them anew.

    `stored` returns the path under which the run has recorded a step.
    """
    found: set[StepPath] = set()
    for entry in entries:
        output = canonical.decode(entry.output) if entry.output and b'"task_id"' in entry.output else None
        if entry.kind is EntryKind.WORK and isinstance(output, dict) and output.keys() == {"task_id"}:
            try:
                task = await source.run(output["task_id"])
            except RunNotFound:
                continue  # the output of a step that looks like a launch, or a purged task
            is_own = task.parent is not None and task.parent.path == stored(entry.path)
            if is_own and task.status not in ENDS_OF_TASKS:
                found.add(entry.path)
    return found


def _is_again(entry: Entry, launches: Collection[StepPath]) -> bool:
    """Return whether an entry is a launch that is repeated, or the end of what encloses one."""
    if entry.path in launches:
        return True
    is_end = entry.kind is EntryKind.DONE
    return is_end and any(paths.is_inside(each, entry.path) for each in launches)


# Contents ------------------------------------------------------------------------------------------------


def _named_by(entries: Sequence[Entry]) -> Iterator[str]:
    """Yield the digests of the contents that entries name: transcripts and files."""
    for entry in entries:
        if entry.detail is not None and TRANSCRIPT.encode() in entry.detail:
            detail = canonical.decode(entry.detail)
            if isinstance(detail.get(TRANSCRIPT), str):
                yield detail[TRANSCRIPT]
        if entry.fingerprint == FILES:
            yield from (each["sha256"] for each in canonical.decode(entry.output or b"[]"))
