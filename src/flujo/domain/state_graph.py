"""A state machine as a graph: the reachable states, and the states that precede each one on every path."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Edge(Protocol):
    """A transition to another state; one without `when` is always taken."""

    @property
    def to(self) -> str: ...  # noqa: D102
    @property
    def when(self) -> object: ...  # noqa: D102


class Node(Protocol):
    """The part of a state that the graph needs."""

    @property
    def transitions(self) -> Sequence[Edge]: ...  # noqa: D102


class Machine(Protocol):
    """A state machine: a step of the tree, or the model of one in a blueprint."""

    @property
    def initial(self) -> str: ...  # noqa: D102
    @property
    def final(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def states(self) -> Mapping[str, Node]: ...  # noqa: D102


class Graph:
    """The states of one machine and the transitions between them."""

    def __init__(self, step: Machine) -> None:
        self._step = step

    def ways_out(self, name: str) -> list[str]:
        """Return the states that follow a state; a final state has none."""
        if name in self._step.final:
            return []
        targets: list[str] = []
        for transition in self._step.states[name].transitions:
            if transition.to in self._step.states:
                targets.append(transition.to)
            if transition.when is None:
                break
        return targets

    @cached_property
    def reached(self) -> dict[str, int]:
        """The states that a run can reach from `initial`, nearest first, each with its number."""
        order = [self._step.initial] if self._step.initial in self._step.states else []
        found = dict.fromkeys(order, 0)
        for name in order:  # the list grows while it is read
            for target in self.ways_out(name):
                if target not in found:
                    found[target] = len(order)
                    order.append(target)
        return found

    def before(self, name: str) -> frozenset[str]:
        """Return the states that every run has visited before it enters a state."""
        through = self._through.get(name, 0)
        return frozenset(one for one, bit in self.reached.items() if one != name and through >> bit & 1)

    @cached_property
    def _through(self) -> dict[str, int]:
        """For each state, the states on all paths to it: their numbers, as bits of an integer."""
        came_from: dict[str, list[str]] = {name: [] for name in self.reached}
        for name in self.reached:
            for target in self.ways_out(name):
                came_from[target].append(name)
        first, *others = self.reached or [""]
        # Starts with all states, and intersects the sets of the predecessors until nothing changes.
        through = dict.fromkeys(self.reached, (1 << len(self.reached)) - 1) | {first: 1}
        changed = True
        while changed:
            changed = False
            for name in others:
                agreed = -1
                for source in came_from[name]:
                    agreed &= through[source]
                agreed |= 1 << self.reached[name]
                changed = changed or agreed != through[name]
                through[name] = agreed
        return through
