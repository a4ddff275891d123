"""Explains why a run took its way: each decision with its expression, and the values that it has read."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from flujo.blueprint.expressions.evaluators import compile_expression
from flujo.domain import canonical, paths
from flujo.domain.journal import EntryKind, EntryStatus
from flujo.domain.paths import ROOT, StepPath, branch, parent
from flujo.domain.steps import CallableRef, Expr
from flujo.domain.usage import NOTHING, Usage
from flujo.domain.wording import listed, plural, short
from flujo.engine.agent_choice import CHOICE
from flujo.engine.background import pipeline_of
from flujo.engine.steps.state_machine import ROUND
from flujo.exceptions import FlujoError
from flujo.services.inspection.recorded_scope import Reading, RecordedScope
from flujo.services.inspection.trace import trace
from flujo.services.recorded.replay import recording_of
from flujo.services.replay.sources import is_file, named_run
from flujo.services.runs.pipeline_registry import registered
from flujo.services.runs.run_services import is_python, pinned_blueprint

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from flujo.domain.journal import Entry
    from flujo.domain.pipeline import BaseStep, Pipeline
    from flujo.domain.run import Pause, RunRecord
    from flujo.domain.steps import Logic
    from flujo.domain.store import BlobStore, RunSource
    from flujo.services.inspection.trace_tree import TraceNode
    from flujo.services.workspace import Workspace

_SHORT = 60
"""The length of a value in a substituted expression."""
_LITERAL = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')""")


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision of a run, and what it was made of."""

    path: StepPath
    key: str
    """The key of the step that was evaluated: `if`, `until`, `when`, `over`."""
    value: Any
    effect: str
    """What followed, in words: ``took `then` ``, `ended after 3 iterations`."""
    expression: str | None = None
    """Its text; None for a callable or an agent, and if the pipeline is not available."""
    substituted: str | None = None
    """The same with the values in place of the names."""
    callable: str | None = None
    readings: tuple[Reading, ...] = ()


@dataclass(frozen=True, slots=True)
class Retried:
    """A step that has failed attempts, and what they cost."""

    path: StepPath
    failed: int
    seconds: float
    usage: Usage
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """Why a run, or a part of it, took its way."""

    run_id: str
    path: StepPath
    end: str
    """How it ended or where it waits, in words."""
    decisions: tuple[Decision, ...]
    retried: tuple[Retried, ...]
    step: TraceNode
    """The node of the path."""
    answer: Pause | None = None
    """The question of the step and its answer, if a human or an event has settled it."""
    note: str = ""
    """Why expressions are missing."""
    file: str = ""
    """The file that the run was read from; empty for a database."""


async def explain_pinned(workspace: Workspace, run: str, path: str | None = None) -> Account:
    """Explain a run of a workspace, with the pipeline that it has pinned; see `why`.

    Raises:
        RunNotFound: no run, or more than one, matches.
        ExportDamaged | ExportTooNew: `run` is the file of an export that cannot be used.
        SettingsError: the run has no such step.
    """
    source, record = await named_run(workspace, run)
    pipeline, note = await _pinned_pipeline(workspace, source, record)
    account = await why(source, record, pipeline, path, note=note)
    return replace(account, file=run) if is_file(run) else account


async def _pinned_pipeline(
    workspace: Workspace, store: BlobStore, record: RunRecord
) -> tuple[Pipeline | None, str]:
    """Return the pipeline that a run has pinned; if it is not available, None and the reason."""
    if is_python(record):
        known = registered(record.pipeline)
        pipeline = None if known is None else known.pipeline
        note = "the pipeline is written in Python, so the run does not have the texts of its expressions"
    else:
        try:
            pipeline, note = (await pinned_blueprint(workspace, store, record, is_read=True)).pipeline, ""
        except FlujoError as error:
            pipeline, note = None, f"the pinned blueprint cannot be read here: {error.message}"
    if pipeline is not None and record.parent is not None:
        found = pipeline_of(pipeline, record.parent.entry)
        pipeline = None if found is None else found[0]
    return pipeline, "" if pipeline is not None else note


async def why(
    source: RunSource,
    record: RunRecord,
    pipeline: Pipeline | None,
    path: str | None = None,
    *,
    note: str = "",
) -> Account:
    """Explain a run, or the part of it at `path`, from its records alone.

    Args:
        source: has the records: a store, or an exported run.
        record: the run.
        pipeline: what the run has pinned; without it the expressions are missing.
        path: the path of a step, an iteration or a branch.
        note: why there is no pipeline.

    Raises:
        SettingsError: the run has no such step.
    """
    root = await trace(source, record)
    shown = root if path is None else root.at(path)
    places, wanted, recording = _places(pipeline), shown.path, await recording_of(source, record.run_id)
    if pipeline is not None:  # expressions have the new names of steps
        recording, wanted = recording.migrated(pipeline), recording.migrations(pipeline).new(wanted)
    scope = RecordedScope(record, recording.entries, recording.pauses, places)
    pauses = await source.pauses(record.run_id)
    made = [
        decision
        for entry in recording.entries
        if entry.kind is EntryKind.DECISION and _is_asked(entry.path, wanted)
        for decision in _decisions(entry, scope)
    ]
    return Account(
        run_id=record.run_id,
        path=shown.path,
        end=_end(shown, root, pauses),
        decisions=tuple(made),
        retried=tuple(_retried(shown)),
        step=shown,
        answer=next((each for each in pauses if each.pause_id == shown.path and each.is_settled), None),
        note=note,
    )


def _places(pipeline: Pipeline | None) -> Mapping[StepPath, BaseStep]:
    """Return the steps by their paths without counts; the path of a named body has its step."""
    places: dict[StepPath, BaseStep] = {}
    for path, step in () if pipeline is None else pipeline.walk():
        places[path] = step
        if step.names_bodies:
            places |= {branch(path, name): step for name in step.bodies()}
    return places


def _is_asked(path: StepPath, wanted: StepPath) -> bool:
    return paths.is_within(path, wanted) or path == branch(wanted, CHOICE)


# Decisions -----------------------------------------------------------------------------------------------


def _decisions(entry: Entry, scope: RecordedScope) -> Iterator[Decision]:
    """Yield the decision of an entry, if it is one of an expression, a callable or an agent of the step."""
    if entry.fingerprint or entry.status is not EntryStatus.COMPLETED:
        return  # the record beside a step, such as its files
    value = canonical.decode(entry.output or b"null")
    if entry.path == branch(parent(entry.path), CHOICE):
        chosen = getattr(scope.step_at(parent(entry.path)), "agent", None)
        rule = getattr(chosen, "by", None)
        yield _explained(entry, "agent", value, f"asked `{value}`", rule, parent(parent(entry.path)), scope)
        return
    step = scope.step_at(entry.path)
    for key, rule, effect, frame in _rules(entry, step, value):
        yield _explained(entry, key, value, effect, rule, frame, scope)


def _rules(
    entry: Entry, step: BaseStep | None, value: Any
) -> Iterator[tuple[str, Logic | None, str, StepPath]]:
    """Yield the key, its rule, the effect of its value, and the body in which it was evaluated."""
    path, number = entry.path, entry.attempt
    if number == 0:
        yield "when", None if step is None else step.when, "executed" if value else "skipped", parent(path)
        return
    data: Any = step
    match None if step is None else step.kind:
        case None:
            yield "decision", None, f"decided {_text(value)}", parent(path)
        case "conditional":
            yield data.form, data.condition, _branch_taken(data, value), parent(path)
        case "loop" if number == 1:
            rounds = plural((paths.last_count(path) or 0) + 1, "iteration")
            yield "until", data.until, f"ended after {rounds}" if value else f"continued after {rounds}", path
        case "loop":
            name = list(data.carry)[number - 2]
            yield f"carry.{name}", data.carry[name].next, f"`loop.{name}` became {_text(value)}", path
        case "state_machine":
            state = paths.name(parent(path)).removeprefix(":")
            way = data.states[state].transitions[(number - 1) % ROUND]
            yield "transitions.when", way.when, f"went to `{way.to}`" if value else f"not to `{way.to}`", path
        case "map" if paths.last_count(path) is None:
            count = len(value) if isinstance(value, list) else value
            yield "over", data.over, plural(count, "item"), parent(path)
        case "router":
            chosen = listed(value, "and") if value else "no branch"
            rule = data.router if isinstance(data.router, CallableRef) else None
            yield "router", rule, f"chose {chosen}", parent(path)
        case _:
            pass


def _branch_taken(step: Any, value: Any) -> str:
    if step.form == "if":
        name = "then" if value else "else"
        return f"took `{name}`" if name in step.branches else "took no branch"
    name = str(value).lower() if isinstance(value, bool) else str(value)
    return f"took `{name}`" if name in step.branches else "took `default`"


def _explained(
    entry: Entry,
    key: str,
    value: Any,
    effect: str,
    rule: Logic | None,
    frame: StepPath,
    scope: RecordedScope,
) -> Decision:
    if not isinstance(rule, Expr):
        return Decision(entry.path, key, value, effect, callable=None if rule is None else rule.target)
    reads = compile_expression(rule.source).reads
    ends = frame == entry.path
    readings = tuple(scope.read(chain, frame, entry.seq, ends=ends) for chain in reads)
    return Decision(
        entry.path, key, value, effect, rule.source, substituted(rule.source, readings), readings=readings
    )


def substituted(source: str, readings: Sequence[Reading]) -> str:
    """Return an expression with known values in place of the names that it reads, outside of its texts."""
    known = {each.name: _text(each.value) for each in readings if each.is_known}
    if not known:
        return source
    names = sorted(map(re.escape, known), key=len, reverse=True)
    name = re.compile(rf"(?<![\w.])({'|'.join(names)})(?!\w)")
    parts = _LITERAL.split(source)
    parts[::2] = [name.sub(lambda found: known[found[1]], part) for part in parts[::2]]
    return "".join(parts)


def _text(value: Any) -> str:
    return short(json.dumps(value, ensure_ascii=False), _SHORT)


# Retries and the end -------------------------------------------------------------------------------------


def _retried(root: TraceNode) -> Iterator[Retried]:
    for node in root.walk():
        failed = node.failures
        if not failed:
            continue
        reasons = tuple(
            f"{each.error.message} [{each.error.code}]" for each in failed if each.error is not None
        )
        usage = sum((each.usage for each in failed), NOTHING)
        yield Retried(node.path, len(failed), sum(each.seconds for each in failed), usage, reasons)


def _end(shown: TraceNode, root: TraceNode, pauses: Sequence[Pause]) -> str:
    """Return how a run or a step ended, or where it waits."""
    error = shown.error
    if shown.path == ROOT:
        error = next((node.error for node in root.walk() if node.error and _is_of_run(node, root)), None)
    where = "" if error is None or not error.path else f" at `{paths.shown(error.path)}`"
    if shown.status == "failed" and error is not None:
        return f"failed{where}: {error.message} [{error.code}]"
    waits = [each.pause_id for each in pauses if each.is_open and paths.is_within(each.pause_id, shown.path)]
    if waits:
        return f"{shown.status} at {listed(map(paths.shown, waits), 'and')}"
    return str(shown.status)


def _is_of_run(node: TraceNode, root: TraceNode) -> bool:
    """Return whether the error of a node is the reason of the run's end: no step around it has completed."""
    around = [each for each in root.walk() if paths.is_inside(node.path, each.path) and each.path]
    return node.status == "failed" and all(each.status != "completed" for each in around)
