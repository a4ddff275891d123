"""The values that an expression could read at a moment of a run, found in the journal."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, merge, paths
from flujo.domain.journal import TRANSCRIPT, EntryKind, EntryStatus
from flujo.domain.paths import ROOT, StepPath, indexed, parent
from flujo.engine.journal import RESULTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.domain.journal import Entry
    from flujo.domain.pipeline import BaseStep
    from flujo.domain.ports import Chain
    from flujo.domain.run import Pause, RunRecord

_OF_OTHER_INPUT = ("import", "granular")
"""The kinds of steps whose bodies have an input and a context of their own, which no entry holds."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A value that an expression has read, and its origin."""

    name: str
    """As it stands in the expression: `steps.sort.output.label`."""
    value: Any = None
    is_known: bool = True
    """Whether the journal has the value."""
    origin: str = ""
    """Where it came from, in words."""
    path: StepPath | None = None
    """The step that it came from."""
    input: Any = None
    """The filled-in input of that step; of an agent, its prompt."""
    model: str | None = None
    by: str | None = None
    """Who answered, if it is the answer of a human."""


class RecordedScope:
    """What the expressions of a run could read, at any moment."""

    def __init__(
        self,
        record: RunRecord,
        entries: Sequence[Entry],
        pauses: Sequence[Pause],
        places: Mapping[StepPath, BaseStep],
    ) -> None:
        """Take the records of a run.

        Args:
            record: the run.
            entries: its journal.
            pauses: its questions.
            places: its steps, by their paths without counts.
        """
        self._record = record
        self._places = places
        self._answers = {pause.pause_id: pause for pause in pauses if pause.answer is not None}
        self._results: dict[StepPath, list[Entry]] = defaultdict(list)
        self._inside: dict[StepPath, list[Entry]] = defaultdict(list)
        self._written: list[Entry] = []
        for entry in entries:
            if entry.kind in RESULTS and entry.status is not EntryStatus.FAILED:
                self._results[entry.path].append(entry)
                self._inside[body_of(entry.path)].append(entry)
                if _is_visit(visit := parent(entry.path)):  # the states of a machine share their steps
                    self._inside[body_of(visit)].append(entry)
                if entry.patch is not None:
                    self._written.append(entry)

    def read(self, chain: Chain, frame: StepPath, before: int, *, ends: bool = False) -> Reading:
        """Return the value of a name.

        Args:
            chain: the parts of the name.
            frame: the path of the body that the expression belongs to.
            before: the number of the entry of its decision; later entries do not count.
            ends: whether the expression is evaluated at the end of that body.
        """
        root, *rest = chain
        match root:
            case "steps" if rest:
                found = self._step(rest.pop(0), frame, before)
            case "previous":
                found = self._previous(frame, before, ends=ends)
            case "context":
                found = self._context(rest, frame, before)
            case "input" if not self._is_of_other_input(frame):
                found = Reading("", canonical.decode(self._record.input), origin="the input of the run")
            case "loop":
                found = self._loop(frame)
            case "index" if (count := self._count(frame)) is not None:
                found = Reading("", count, origin="the number of the item")
            case _:
                found = _UNKNOWN
        return self._at(chain, found, rest)

    def _at(self, chain: Chain, found: Reading, rest: Sequence[str]) -> Reading:
        value, is_known = found.value, found.is_known
        for key in rest:
            if not isinstance(value, dict) or key not in value:
                value, is_known = None, False
                break
            value = value[key]
        return Reading(
            ".".join(chain),
            value if is_known else None,
            is_known,
            found.origin,
            found.path,
            found.input,
            found.model,
            found.by,
        )

    def _step(self, name: str, frame: StepPath, before: int) -> Reading:
        """Return the facts of a step: of the innermost body around the expression that has it."""
        for body in _around(frame):
            named = [each for each in self._inside[body] if paths.name(each.path) == name]
            if earlier := [each for each in named if each.seq < before]:
                entry = max(earlier, key=lambda each: each.seq)
                return self._of(entry, self._facts(entry))
        return _UNKNOWN

    def _facts(self, entry: Entry) -> dict[str, Any]:
        if entry.status is EntryStatus.SKIPPED:
            return {"output": None, "skipped": True}
        facts = canonical.decode(entry.detail) if entry.kind is EntryKind.DONE and entry.detail else {}
        return {"output": canonical.decode(entry.output or b"null"), **facts}

    def _of(self, entry: Entry, value: Any) -> Reading:
        detail = canonical.decode(entry.detail) if entry.detail else {}
        answer = self._answers.get(entry.path) if entry.kind is EntryKind.ANSWER else None
        place = f"step `{paths.shown(entry.path)}`"
        is_agent = "model" in detail or TRANSCRIPT in detail
        given = entry.input if entry.kind is EntryKind.WORK and is_agent else None
        return Reading(
            "",
            value,
            origin=f"{place}, which was skipped" if entry.status is EntryStatus.SKIPPED else place,
            path=entry.path,
            input=None if given is None else canonical.decode(given),
            model=detail.get("model"),
            by=None if answer is None else answer.by,
        )

    def _previous(self, frame: StepPath, before: int, *, ends: bool) -> Reading:
        """Return the output of the step before, or the input of the body at its start."""
        if ends and (done := self._results.get(frame)):
            return self._of(done[-1], canonical.decode(done[-1].output or b"null"))
        earlier = [
            each
            for each in self._inside[frame]
            if each.seq < before and each.status is EntryStatus.COMPLETED and not _is_round(each.path)
        ]
        if earlier:
            entry = max(earlier, key=lambda each: each.seq)
            return self._of(entry, canonical.decode(entry.output or b"null"))
        return self._at_start(frame, before)

    def _at_start(self, frame: StepPath, before: int) -> Reading:
        if frame == ROOT:
            return Reading("", canonical.decode(self._record.input), origin="the input of the run")
        step, count = self._places.get(paths.without_counts(frame)), paths.last_count(frame)
        if step is None or step.kind in ("map", *_OF_OTHER_INPUT):
            return _UNKNOWN
        if rounds := self._rounds_before(frame, before, count):
            return self._of(rounds[-1], canonical.decode(rounds[-1].output or b"null"))
        first = min((each.seq for each in self._inside[frame]), default=before)
        return self._previous(body_of(composite_of(frame)), min(first, before), ends=False)

    def _rounds_before(self, frame: StepPath, before: int, count: int | None) -> Sequence[Entry]:
        """Return the results of the iteration or the visits before this one, the latest last."""
        if _is_visit(frame):
            visits = [each for each in self._inside[body_of(frame)] if _is_visit(each.path)]
            return [each for each in visits if each.seq < before]
        return self._results.get(indexed(parent(frame), count - 1), ()) if count else ()

    def _context(self, rest: Sequence[str], frame: StepPath, before: int) -> Reading:
        """Return the fields of the context; the origin is the last step that wrote the field."""
        if self._is_of_other_input(frame):
            return _UNKNOWN
        tree = canonical.decode(self._record.context)
        origin = Reading("", origin="the context at the start of the run")
        for entry in self._written:
            if entry.seq < before and paths.is_within(frame, body_of(entry.path)):
                patch = canonical.decode(entry.patch or b"[]")
                tree = merge.apply(tree, patch)
                if any(op[1][: len(rest)] == rest[: len(op[1])] for op in patch):
                    origin = self._of(entry, None)
        return Reading("", tree, True, origin.origin, origin.path, origin.input, origin.model, origin.by)

    def _loop(self, frame: StepPath) -> Reading:
        """Return `loop` of the innermost loop around the expression."""
        for body in _around(frame):
            step, count = self._places.get(paths.without_counts(body)), paths.last_count(body)
            if step is not None and step.kind == "loop" and count is not None:
                done = self._results.get(indexed(parent(body), count - 1)) if count else None
                facts = canonical.decode(done[-1].detail) if done and done[-1].detail else {}
                place = f"iteration {count} of `{paths.shown(parent(body))}`"
                return Reading("", {"index": count, **facts.get("carried", {})}, origin=place, path=body)
        return _UNKNOWN

    def _count(self, frame: StepPath) -> int | None:
        for body in _around(frame):
            step = self._places.get(paths.without_counts(body))
            if step is not None and step.kind == "map" and paths.last_count(body) is not None:
                return paths.last_count(body)
        return None

    def _is_of_other_input(self, frame: StepPath) -> bool:
        around = (self._places.get(paths.without_counts(body)) for body in _around(frame) if body)
        return self._record.parent is not None or any(
            step is not None and step.kind in _OF_OTHER_INPUT for step in around
        )


_UNKNOWN = Reading("", is_known=False, origin="the journal does not have it")


def body_of(path: StepPath) -> StepPath:
    """Return the body that an entry belongs to; that of a visit is its state machine."""
    return parent(parent(path)) if _is_visit(path) else parent(path)


def composite_of(frame: StepPath) -> StepPath:
    """Return the step that has a body: `loop` of `loop[2]`, `way` of `way:then`, `m` of `m:draft[1]`."""
    if _is_visit(frame):
        return parent(parent(frame))
    return parent(frame) if paths.name(frame)[:1] in ("[", ":") else frame


def _is_visit(path: StepPath) -> bool:
    """Return whether a path is a visit of a state: `m:draft[1]`."""
    return path.endswith("]") and paths.name(parent(path))[:1] == ":"


def _is_round(path: StepPath) -> bool:
    """Return whether a path is an iteration, an item or a visit, and not a step."""
    return path.endswith("]")


def _around(frame: StepPath) -> list[StepPath]:
    """Return a body and those around it, the innermost first."""
    found = [frame]
    while found[-1] != ROOT:
        found.append(parent(found[-1]))
    return found
