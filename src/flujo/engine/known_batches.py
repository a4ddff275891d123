"""What a process knows about the batches of a map between two executions of the run.

A run with a map over workers continues at the end of each batch. It then reads what its journal has got
since, and looks at the batches that are under way, but not again at those that it knows to have ended.
A process that did not execute the run before, or has forgotten it, reads everything.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flujo.domain.journal import EntryKind
from flujo.domain.paths import bounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.journal import Entry, RunId
    from flujo.domain.paths import StepPath

MAX_MAPS = 64
"""How many maps are known at most, those whose runs were executed last."""

MAX_BATCHES = 100_000
"""How many batches of all these maps are known at most; each takes about 600 bytes."""


@dataclass(slots=True)
class KnownBatches:
    """The batches of one map, as far as the store had them when it was read."""

    launched: dict[int, Entry] = field(default_factory=dict)
    """The launches by the first items, without those of batches that were settled."""
    ended: dict[int, Entry] = field(default_factory=dict)
    """The newest end of each of these batches, without its output."""
    following: int = 0
    """The first item that belongs to no launched batch."""
    passed: int = 0
    """How many items of an iterator an execution skips: those of the first batches, which are settled."""
    newest: Entry | None = None
    """The newest entry that was read."""

    @property
    def places(self) -> list[int]:
        """The first items of the batches that an execution looks at, in order."""
        return sorted(self.launched.keys() | self.ended.keys())

    def learn(self, entries: Sequence[Entry]) -> None:
        """Take the entries that follow, in the order of the journal."""
        for entry in entries:
            first, last = bounds(entry.path) or (0, 0)
            if entry.kind is EntryKind.WORK:
                self.launched[first] = entry
            elif first not in self.ended or self.ended[first].attempt < entry.attempt:
                self.ended[first] = replace(entry, output=None, detail=None)
            self.following = max(self.following, last + 1)
            self.newest = entry

    def settle(self, first: int) -> None:
        """Forget a batch that has completed, and whose items were compared."""
        self.launched.pop(first, None)
        self.ended.pop(first, None)


class KnownMaps:
    """The maps over workers that this process has executed, by run and path."""

    def __init__(self) -> None:
        self._maps: OrderedDict[tuple[RunId, StepPath], KnownBatches] = OrderedDict()

    def take(self, run_id: RunId, path: StepPath) -> KnownBatches | None:
        """Return what is known about a map, and forget it: an execution that fails knows nothing for sure."""
        return self._maps.pop((run_id, path), None)

    def keep(self, run_id: RunId, path: StepPath, known: KnownBatches) -> None:
        """Remember a map until its run continues."""
        self._maps[run_id, path] = known
        while (
            len(self._maps) > MAX_MAPS
            or sum(len(each.launched) for each in self._maps.values()) > MAX_BATCHES
        ):
            self._maps.popitem(last=False)
