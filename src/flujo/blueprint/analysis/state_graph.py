"""A state machine as a graph: which states are reached, and which every way to a state leads through."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flujo.blueprint.language import models as doc


class Graph:
    """The states of one machine and the ways between them, as far as they are written."""

    def __init__(self, step: doc.StateMachineStep) -> None:
        self._step = step

    def ways_out(self, name: str) -> list[str]:
        """Return the states that a state may go to; a final one goes nowhere."""
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
        """The states that some way from `initial` leads to, nearer ones first, each with its number."""
        order = [self._step.initial] if self._step.initial in self._step.states else []
        found = dict.fromkeys(order, 0)
        for name in order:  # the list grows while it is read
            for target in self.ways_out(name):
                if target not in found:
                    found[target] = len(order)
                    order.append(target)
        return found

    def before(self, name: str) -> frozenset[str]:
        """Return the states that have been visited for certain when a state is entered, without itself."""
        through = self._through.get(name, 0)
        return frozenset(one for one, bit in self.reached.items() if one != name and through >> bit & 1)

    @cached_property
    def _through(self) -> dict[str, int]:
        """For each state, what all ways to it lead through: a set of states' numbers, as a whole number."""
        came_from: dict[str, list[str]] = {name: [] for name in self.reached}
        for name in self.reached:
            for target in self.ways_out(name):
                came_from[target].append(name)
        first, *others = self.reached or [""]
        # Everything at first; then what the ways into a state agree on, until nothing moves.
        through = dict.fromkeys(self.reached, (1 << len(self.reached)) - 1) | {first: 1}
        moves = True
        while moves:
            moves = False
            for name in others:
                agreed = -1
                for source in came_from[name]:
                    agreed &= through[source]
                agreed |= 1 << self.reached[name]
                moves = moves or agreed != through[name]
                through[name] = agreed
        return through
