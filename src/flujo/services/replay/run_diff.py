"""Two runs side by side: where they begin to differ, their outputs, what they cost, and their prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from flujo.blueprint.lock.word_diff import shortened, words
from flujo.domain import canonical
from flujo.domain.agents import AgentSpec
from flujo.domain.journal import CACHE_MISS, FILES, UNFINISHED, Entry, EntryKind
from flujo.domain.usage import NOTHING, Usage
from flujo.services.runs.run_services import is_python, pinned_blueprint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from flujo.domain.paths import StepPath
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.run import RunRecord
    from flujo.domain.store import RunSource
    from flujo.services.workspace import Workspace

What = Literal["missing", "input", "status", "decision", "output"]
"""What differs at a path: one run has no record there, or another input, status, decision or output."""

_BESIDE = (CACHE_MISS, FILES, UNFINISHED)
"""Records about the execution of a step, which are not results."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A path at which two runs differ; the values are those of the two runs."""

    path: StepPath
    what: What
    one: Any
    other: Any


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs."""

    run_id: str
    status: str
    output: Any
    used: Usage
    seconds: float
    """From its acceptance to its last change."""


@dataclass(frozen=True, slots=True)
class PromptChange:
    """The instructions of an agent that differ, by word."""

    agent: str
    pieces: tuple[tuple[str, str], ...]
    """The kind of each piece (`same`, `removed`, `added`, `skipped`) and its text."""


@dataclass(frozen=True, slots=True)
class RunDiff:
    """The differences of two runs."""

    one: Side
    other: Side
    differences: tuple[Difference, ...]
    """In the order in which the runs came to them: the first is where they begin to differ."""
    prompts: tuple[PromptChange, ...]


async def diff_runs(ws: Workspace, one: str, other: str) -> RunDiff:
    """Compare two runs of a project, which `one` and `other` name like `flujo trace` does.

    Raises:
        RunNotFound: no run, or several, are meant.
        CorruptState: an entry is damaged or missing.
    """
    store = await ws.store()
    records = [await store.find(each) for each in (one, other)]
    journals = [await store.entries(record.run_id) for record in records]
    pipelines = [await _pipeline(ws, store, record) for record in records]
    sides = [_side(*each) for each in zip(records, journals, strict=True)]
    return RunDiff(
        sides[0], sides[1], tuple(differences(*journals)), tuple(_prompts(pipelines[0], pipelines[1]))
    )


def differences(one: Sequence[Entry], other: Sequence[Entry]) -> Iterator[Difference]:
    """Yield the differences of two journals."""
    mine, theirs = _results(one), _results(other)
    for key in dict.fromkeys([*mine, *theirs]):
        ours, its = mine.get(key), theirs.get(key)
        if ours is None or its is None:
            yield Difference(key[0], "missing", _shown(ours), _shown(its))
        elif (found := _difference(ours, its)) is not None:
            yield found


def _results(entries: Iterable[Entry]) -> Mapping[tuple[StepPath, bool, int], Entry]:
    """Return the newest result of each step and each decision, in the order of the first ones."""
    found: dict[tuple[StepPath, bool, int], Entry] = {}
    for entry in entries:
        if entry.fingerprint in _BESIDE:
            continue
        is_decision = entry.kind is EntryKind.DECISION
        found[entry.path, is_decision, entry.attempt if is_decision else 0] = entry
    return found


def _difference(one: Entry, other: Entry) -> Difference | None:
    if not _is_same(one.input, other.input):
        return Difference(one.path, "input", _value(one.input), _value(other.input))
    if one.status is not other.status:
        return Difference(one.path, "status", str(one.status), str(other.status))
    if not _is_same(one.output, other.output):
        what: What = "decision" if one.kind is EntryKind.DECISION else "output"
        return Difference(one.path, what, _value(one.output), _value(other.output))
    return None


def _is_same(one: bytes | None, other: bytes | None) -> bool:
    if one is None or other is None:
        return one is other
    return canonical.is_same(one, other)


def _shown(entry: Entry | None) -> Any:
    return None if entry is None else _value(entry.output)


def _value(data: bytes | None) -> Any:
    return None if data is None else canonical.decode(data)


def _side(record: RunRecord, entries: Sequence[Entry]) -> Side:
    return Side(
        run_id=record.run_id,
        status=str(record.status),
        output=_value(record.output),
        used=sum((entry.usage for entry in entries), NOTHING),
        seconds=max(0.0, record.updated_at - record.created_at),
    )


# Prompts -------------------------------------------------------------------------------------------------


async def _pipeline(ws: Workspace, source: RunSource, record: RunRecord) -> Pipeline | None:
    """Return what a run has pinned; None of a pipeline in Python, whose prompts are in the code of today."""
    return None if is_python(record) else (await pinned_blueprint(ws, source, record, is_read=True)).pipeline


def _prompts(one: Pipeline | None, other: Pipeline | None) -> Iterator[PromptChange]:
    ours, theirs = _instructions(one), _instructions(other)
    for agent in sorted(ours.keys() | theirs.keys()):
        before, now = ours.get(agent, ""), theirs.get(agent, "")
        if before != now:
            pieces = shortened(words(before, now))
            yield PromptChange(agent, tuple((str(piece.kind), piece.text) for piece in pieces))


def _instructions(pipeline: Pipeline | None) -> dict[str, str]:
    """Return the instructions of the agents that a pipeline asks, by their names."""
    steps = () if pipeline is None else (step for _, step in pipeline.walk())
    agents = (each for step in steps for each in step.names() if isinstance(each, AgentSpec))
    return {each.name: each.instructions.source for each in agents if each.instructions is not None}
