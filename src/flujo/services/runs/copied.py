"""What a fork has in common with its parent: the entries that are recorded before a path.

"Before" is a matter of structure, because entries of concurrent parts of a run come in any order. Dropped are
the path and its insides, the ends of the steps around it, and everything after it in each body around it. The
siblings of a map, a `parallel` or a router do not depend on each other, and stay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flujo.domain import paths
from flujo.domain.journal import Entry, EntryKind
from flujo.domain.paths import ROOT, StepPath

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.domain.pipeline import Pipeline
    from flujo.domain.steps import BaseStep

_CONCURRENT = ("parallel", "router")
"""The kinds whose branches run at once."""


def numbered(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Return copies of entries, numbered from 1."""
    return tuple(replace(entry, seq=0).numbered(number) for number, entry in enumerate(entries, start=1))


@dataclass(frozen=True, slots=True)
class Point:
    """The path at which a run is forked."""

    path: StepPath
    """A step, iteration, item, branch, visit, turn or tool call that the run has reached."""
    chain: Sequence[StepPath]
    """What encloses it, from the outside, and the path itself."""
    first: float
    """The `seq` of its first entry; infinite when it has none, because it is a question without an answer."""
    steps: Mapping[StepPath, tuple[int, BaseStep]]
    """The steps of the tree by their paths without counts, each with its place in the order of the tree."""

    @classmethod
    def of(cls, path: StepPath, entries: Sequence[Entry], pipeline: Pipeline) -> Point:
        """Return the point at `path`.

        Args:
            path: the path.
            entries: the whole journal of the run.
            pipeline: the tree of the run, which has the order of steps in a body.
        """
        first = min((entry.seq for entry in entries if paths.is_within(entry.path, path)), default=math.inf)
        steps = {place: (number, step) for number, (place, step) in enumerate(pipeline.walk())}
        return cls(path, chain_of(path), first, steps)

    def is_after(self, entry: Entry) -> bool:
        """Return whether the point is after an entry, so that the entry is copied."""
        if paths.is_within(entry.path, self.path):
            return False
        place = paths.step_of(entry.path)  # the record of an unfinished attempt belongs to its step
        if paths.is_within(self.path, place):
            return self._began_before(entry)
        return self._is_before(chain_of(place), entry)

    def _began_before(self, entry: Entry) -> bool:
        """Return whether an entry was recorded before the first one of the point.

        That decides for what encloses the point, and for bodies whose order is that of their execution.
        """
        return entry.seq < self.first

    def _is_before(self, chain: Sequence[StepPath], entry: Entry) -> bool:
        """Return whether an entry beside the point is before it; `chain` is that of the entry's path."""
        pairs = enumerate(zip(self.chain, chain, strict=False))
        depth = next(n for n, (mine, other) in pairs if mine != other)
        around = self.chain[depth - 1] if depth else ROOT
        mine, other = self.chain[depth], chain[depth]
        kind = self.kind(around)
        match mine[len(around)], other[len(around)]:
            case "[", "[":
                return self._is_earlier(kind, mine, other, entry)
            case ":", ":" if kind in _CONCURRENT:
                # A decision right there is not of a branch: the merge of all, or the look into a cache.
                is_beside = other == entry.path and entry.kind is EntryKind.DECISION
                return not is_beside or self._began_before(entry)
            case _:
                return self._comes_first(mine, other, entry)

    def _is_earlier(self, kind: str, mine: StepPath, other: StepPath, entry: Entry) -> bool:
        """Return whether an iteration, item, visit, turn or call comes before that of the point."""
        here = paths.last_count(mine)
        if kind == "map":
            between = paths.bounds(other)
            return between is None or here is None or not between[0] <= here <= between[1]
        if kind == "tree_search":
            return _phase(paths.step_of(entry.path), entry.kind) <= _phase(self.path, None)
        there = paths.last_count(other)
        return here is not None and there is not None and there < here

    def _comes_first(self, mine: StepPath, other: StepPath, entry: Entry) -> bool:
        """Return whether a step comes before that of the point in their body."""
        places = [self.steps.get(paths.without_counts(each)) for each in (mine, other)]
        if places[0] is None or places[1] is None or places[0][1] is places[1][1]:
            return self._began_before(entry)
        return places[1][0] < places[0][0]

    def step(self, place: StepPath) -> BaseStep | None:
        """Return the step at a path, or None."""
        found = self.steps.get(paths.without_counts(place))
        return None if found is None else found[1]

    def kind(self, place: StepPath) -> str:
        """Return the kind of the step at a path, or of the innermost step around it; empty for the run."""
        while place != ROOT and self.step(place) is None:
            place = paths.parent(place)
        step = self.step(place)
        return "" if step is None else step.kind


def chain_of(path: StepPath) -> list[StepPath]:
    """Return what encloses a path, from the outside, and the path itself."""
    chain = [path]
    while (outer := paths.parent(chain[0])) != ROOT:
        chain.insert(0, outer)
    return chain


def _phase(path: StepPath, kind: EntryKind | None) -> float:
    """Return when a `tree_search` handles a path: it evaluates a level, compares with the goal, and proposes.

    Everything in one phase runs at once.
    """
    name = paths.name(path)
    node = paths.parent(path) if name in ("propose", "evaluate") else path
    depth = 0
    while paths.last_count(node) is not None:
        node, depth = paths.parent(node), depth + 1
    if name == "propose":
        return 2.0 * depth
    return 2.0 * depth - (0.5 if kind is EntryKind.DECISION else 1.0)
