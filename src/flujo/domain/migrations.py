"""Migrations: parts of a pipeline that had other paths in earlier versions of it.

The journal of a run keeps the paths that it began with. A run that continues with a renamed step, branch or
state, or with a step that has moved into a new composite, reads and writes it under the recorded path; to the
pipeline it has the new one. `Migrations` converts both ways: paths, and the values that have paths or names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flujo.domain import paths
from flujo.domain.ledger import Ledger
from flujo.domain.migrated_values import Names, Renaming
from flujo.domain.paths import ROOT, StepPath, is_within, operator, parent
from flujo.domain.run import Intent, Move, Pause, Write

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flujo.domain.journal import Entry
    from flujo.domain.pipeline import Migration, Pipeline

_COUNTS = r"(?:\[[0-9.]+\])*"
_SEPARATORS = re.compile(r"([/:])")


@dataclass(frozen=True, slots=True)
class _Rule:
    """Converts the paths of one part of a pipeline; each outer part of the old path keeps its counts."""

    pattern: re.Pattern[str]
    parts: Sequence[str]

    def converted(self, path: StepPath) -> StepPath | None:
        """Return a path below the other one, or None if it is not of this part."""
        found = self.pattern.match(path)
        if found is None:
            return None
        *outer, last = self.parts
        head = "".join(part + counts for part, counts in zip(outer, found.groups(), strict=True))
        return StepPath(head + last + path[found.end() :])


class Migrations:
    """The migrations that apply to one run."""

    __slots__ = ("_newer", "_older", "_read", "_written", "applied", "shells")

    def __init__(self, applied: Sequence[Migration], pipeline: Pipeline | None = None) -> None:
        """Prepare the conversions.

        Args:
            applied: the migrations.
            pipeline: the one that has them; None for conversions of paths alone.
        """
        self.applied = tuple(applied)
        self._newer: list[_Rule] = []
        self._older: list[_Rule] = []
        shells: set[StepPath] = set()
        for each in sorted(applied, key=lambda one: len(_parts(one.old))):
            pieces = self._pieces(each)
            if pieces is not None:
                olds = _parts(each.old)
                self._newer.insert(0, _Rule(_pattern(olds), pieces))
                self._older.append(_Rule(_pattern(pieces), olds))
                shells |= _between(parent(each.new), self.new(parent(each.old)))
        self._older.sort(key=lambda rule: -len(rule.pattern.pattern))
        self.shells = frozenset(shells)
        """The composites and branches into which steps have moved, without counts."""
        renamed = _names(self.applied)
        outputs = {} if pipeline is None else _outputs(pipeline, renamed)
        older = {place: names.reversed() for place, names in renamed.items()}
        self._read = Renaming(self.new, renamed, outputs, is_read=True)
        self._written = Renaming(self.old, older, outputs, is_read=False)

    def _pieces(self, migration: Migration) -> list[str] | None:
        """Return the piece of the new path for each part of the old one; None if the two do not fit.

        An outer part that was renamed or moved has its own migration, which is converted already.
        """
        pieces, done, outer = list[str](), "", ""
        *above, _ = _parts(migration.old)
        for part in above:
            outer += part
            now = self.new(StepPath(outer))
            if not now.startswith(done):
                return None
            pieces.append(now[len(done) :])
            done = now
        if not migration.new.startswith(done):
            return None
        return [*pieces, migration.new[len(done) :]]

    @classmethod
    def of(cls, pipeline: Pipeline, recorded: Iterable[StepPath]) -> Migrations:
        """Return those of a pipeline that apply to a run: it has recorded the old path.

        Args:
            pipeline: the one with which the run continues.
            recorded: the paths of the run's entries and questions, and of what these name.
        """
        places = {paths.without_counts(StepPath(path.partition("!")[0])) for path in recorded}
        found: dict[StepPath, Migration] = {}
        for each in pipeline.migrations:
            if any(is_within(place, each.old) for place in places):
                found.setdefault(each.new, each)
        return cls([*found.values()], pipeline)

    def __bool__(self) -> bool:
        return bool(self.applied)

    def new(self, path: StepPath) -> StepPath:
        """Return the path in the pipeline of a recorded path."""
        return _converted(path, self._newer)

    def old(self, path: StepPath) -> StepPath:
        """Return the path under which the journal has a path of the pipeline."""
        return _converted(path, self._older)

    def is_ambiguous(self, recorded: StepPath) -> bool:
        """Return whether a recorded path would be taken for that of another step: no path leads back."""
        return self.old(self.new(recorded)) != recorded

    def moved_into(self, level: StepPath) -> list[StepPath]:
        """Return the recorded paths of the steps that have moved into a body: they are not at its level."""
        place = paths.without_counts(level)
        if place not in self.shells:
            return []
        here = [each.new for each in self.applied if parent(each.new) == place]
        return [self.old(StepPath(level + new[len(place) :])) for new in here]

    # What a run reads ---------------------------------------------------------------------------------------

    def read_entry(self, entry: Entry) -> Entry:
        """Return a recorded entry as the pipeline has it."""
        return self._read.entry(entry)

    def read_pause(self, pause: Pause) -> Pause:
        """Return a recorded question with the path in the pipeline."""
        return replace(pause, pause_id=self.new(pause.pause_id))

    def read_intent(self, intent: Intent) -> Intent:
        """Return a recorded call with the path in the pipeline."""
        return replace(intent, path=self.new(intent.path))

    def read_error(self, error: bytes | None) -> bytes | None:
        """Return a recorded error with the path in the pipeline."""
        return self._read.error(error)

    def read_ledger(self, ledger: Ledger) -> Ledger:
        """Return what a run has spent, by the paths in the pipeline."""
        return Ledger(
            tuple(replace(each, path=self.new(each.path)) for each in ledger.spendings),
            tuple(replace(each, path=self.new(each.path)) for each in ledger.holds),
            tuple(replace(each, path=self.new(each.path)) for each in ledger.tasks),
        )

    # What a run writes --------------------------------------------------------------------------------------

    def written(self, write: Write) -> Write:
        """Return the changes of a commit with the paths and names of the journal."""
        return replace(
            write,
            entries=tuple(map(self._written.entry, write.entries)),
            pauses=tuple(map(self.written_pause, write.pauses)),
            voids=tuple(map(self.old, write.voids)),
            intents=tuple(replace(each, path=self.old(each.path)) for each in write.intents),
            holds=tuple(replace(each, path=self.old(each.path)) for each in write.holds),
            move=None if write.move is None else self._written_move(write.move),
        )

    def written_pause(self, pause: Pause) -> Pause:
        """Return a question with the path of the journal, by which it is answered."""
        return replace(pause, pause_id=self.old(pause.pause_id))

    def _written_move(self, move: Move) -> Move:
        return move if move.error is None else replace(move, error=self._written.error(move.error))


def _parts(path: StepPath) -> list[str]:
    """Return the parts of a path without counts, each with the operator before it: `a`, `:b`, `/c`."""
    first, *others = _SEPARATORS.split(path)
    return [first, *(mark + name for mark, name in zip(others[::2], others[1::2], strict=True))]


def _pattern(parts: Sequence[str]) -> re.Pattern[str]:
    """Return what finds a path with any counts after its outer parts."""
    *outer, last = map(re.escape, parts)
    return re.compile("".join(f"{part}({_COUNTS})" for part in outer) + last + r"(?=[/:\[!]|$)")


def _converted(path: StepPath, rules: Sequence[_Rule]) -> StepPath:
    """Return a path as the first rule converts it; the rules of inner parts come first."""
    return next((found for rule in rules if (found := rule.converted(path)) is not None), path)


def _between(inner: StepPath, outer: StepPath) -> set[StepPath]:
    """Return `inner`, and what encloses it below `outer`."""
    found: set[StepPath] = set()
    while inner not in (outer, ROOT):
        found.add(inner)
        inner = parent(inner)
    return found


def _names(applied: Sequence[Migration]) -> dict[StepPath, Names]:
    """Return by composite the new names of its branches or states, by their old ones."""
    found: dict[StepPath, dict[str, str]] = {}
    for each in applied:
        if operator(each.new) == ":":
            old, new = (paths.decoded(_parts(path)[-1][1:]) for path in (each.old, each.new))
            found.setdefault(parent(each.new), {})[old] = new
    return {place: Names(names) for place, names in found.items()}


def _outputs(pipeline: Pipeline, renamed: dict[StepPath, Names]) -> dict[StepPath, frozenset[str]]:
    """Return by composite the names of all its branches, where its output is a map of their outputs."""
    found: dict[StepPath, frozenset[str]] = {}
    for path, step in pipeline.walk():
        if path in renamed and step.gives_bodies:
            found[path] = frozenset((*step.bodies(), *renamed[path].newer))
    return found


NONE = Migrations(())
