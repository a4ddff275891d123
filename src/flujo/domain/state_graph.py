"""A state machine as a graph: the reachable states, and the states that precede each one on every path."""

from __future__ import annotations

from collections.abc import Set
from functools import cached_property, reduce
from operator import and_
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence


class Passed(Set[str]):
    """A set of states: their numbers, as bits of an integer."""

    def __init__(self, numbers: Mapping[str, int], bits: int) -> None:
        self._numbers, self._bits = numbers, bits

    def __contains__(self, name: object) -> bool:
        number = self._numbers.get(name) if isinstance(name, str) else None
        return number is not None and bool(self._bits >> number & 1)

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._numbers if name in self)

    def __len__(self) -> int:
        return self._bits.bit_count()


class Graph:
    """The states of one machine and the transitions between them.

    Args:
        initial: the first state.
        final: the states that end the machine.
        transitions: for each state its transitions in order: the target, and whether it is always taken.
        failures: for each state the one that follows when a step of it fails; some have none.
    """

    def __init__(
        self,
        initial: str,
        final: Collection[str],
        transitions: Mapping[str, Sequence[tuple[str, bool]]],
        failures: Mapping[str, str],
    ) -> None:
        self._initial, self._final, self._transitions = initial, final, transitions
        self._failures = {name: to for name, to in failures.items() if to in transitions}

    def ways_out(self, name: str) -> list[str]:
        """Return the states that follow a state without a failure; a final state has none."""
        if name in self._final:
            return []
        targets: list[str] = []
        for target, is_always_taken in self._transitions[name]:
            if target in self._transitions:
                targets.append(target)
            if is_always_taken:
                break
        return targets

    @cached_property
    def reached(self) -> dict[str, int]:
        """The states that a run can reach from `initial`, nearest first, each with its number."""
        order = [self._initial] if self._initial in self._transitions else []
        found = dict.fromkeys(order, 0)
        for name in order:  # the list grows while it is read
            failed = [self._failures[name]] if name in self._failures else []
            for target in (*self.ways_out(name), *failed):
                if target not in found:
                    found[target] = len(order)
                    order.append(target)
        return found

    def before(self, name: str) -> Passed:
        """Return the states that every run has completed before it enters a state."""
        own = 1 << self.reached.get(name, 0)
        return Passed(self.reached, self._through.get(name, own) & ~own)

    def by(self, names: Iterable[str]) -> Passed:
        """Return the states that every run has completed when it has completed one of `names`."""
        through = [self._through[name] for name in names]
        return Passed(self.reached, reduce(and_, through) if through else 0)

    @cached_property
    def _through(self) -> dict[str, int]:
        """For each state, the states on all paths to it: their numbers, as bits of an integer.

        A state that is left by a failure is not completed, so it does not count on that way.
        """
        came_from: dict[str, list[tuple[str, int]]] = {name: [] for name in self.reached}
        for name, number in self.reached.items():
            for target in self.ways_out(name):
                came_from[target].append((name, -1))
            if name in self._failures:
                came_from[self._failures[name]].append((name, ~(1 << number)))
        first, *others = self.reached or [""]
        # Starts with all states, and intersects the sets of the predecessors until nothing changes.
        through = dict.fromkeys(self.reached, (1 << len(self.reached)) - 1) | {first: 1}
        changed = True
        while changed:
            changed = False
            for name in others:
                agreed = -1
                for source, completed in came_from[name]:
                    agreed &= through[source] & completed
                agreed |= 1 << self.reached[name]
                changed = changed or agreed != through[name]
                through[name] = agreed
        return through
