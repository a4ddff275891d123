"""The results of a map, summed up in ranges: a resume reads one entry for each range instead of its items.

The items `0..999`, `1000..1999`, … of a map are its ranges. When all items of a range have ended, and none of
them stops the map, the range gets a `done` entry with what the map keeps of them. The entries of the items
stay in the journal. So when a range does not apply (another `keep` than before, failed items that are
retried), its items are read one by one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.events import ItemsKept
from flujo.domain.journal import Entry, EntryKind, EntryStatus
from flujo.domain.outcomes import Failure
from flujo.domain.paths import bounds, child, indexed, ranged, ranges_of
from flujo.engine.fanout import is_without_price, leaves_doubt
from flujo.engine.journal import RESULTS
from flujo.exceptions import JournalConflict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain import merge
    from flujo.domain.paths import StepPath
    from flujo.domain.steps import BaseStep, Keep, OnError
    from flujo.engine.fanout import BranchResult
    from flujo.engine.frame import Frame


MAX_BYTES = 64 * 1024 * 1024
"""The greatest output of a range. Larger outputs stay in the entries of the items only."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """What a map does with the results of its items."""

    keep: Keep
    on_error: OnError
    merges: bool
    """Whether it merges the writes of its items to the context."""

    def to_json(self) -> list[Any]:
        """Return on what the contents of a range depend besides its items."""
        return [self.keep, self.on_error, self.merges]


@dataclass(slots=True)
class Kept:
    """What a map keeps of the items of one range."""

    failed: int = 0
    output: list[Any] = field(default_factory=list)
    patches: dict[str, merge.Patch] = field(default_factory=dict)
    """By item; only of a map that merges them."""

    def add(self, later: Kept) -> None:
        """Add what the map keeps of the items that follow."""
        self.failed += later.failed
        self.output += later.output
        self.patches |= later.patches

    def to_json(self, keeping: Keeping) -> dict[str, Any]:
        """Return it as the output of the run that has executed the items of a batch."""
        return {
            "failed": self.failed,
            "keeps": keeping.to_json(),
            "output": self.output,
            **({"patches": self.patches} if self.patches else {}),
        }


@dataclass(slots=True)
class _Open:
    """A range that has no entry: its items that have begun, and the results of those that have ended."""

    items: dict[int, Any] = field(default_factory=dict)
    results: dict[int, BranchResult] = field(default_factory=dict)


class Ranges:
    """The results of one map in one execution; the map's items call it as they begin and end."""

    def __init__(
        self,
        step: BaseStep,
        keeping: Keeping,
        frame: Frame,
        path: StepPath,
        *,
        ahead: int,
        only: BaseStep | None = None,
    ) -> None:
        self.length = frame.run.range_length
        self.ahead = ahead
        """How many items of an iterator are read and recorded at once."""
        self._step = step
        self._only = only
        """The step whose entry is that of its item as well; None if items have entries of their own."""
        self._frame = frame
        self._path = path
        self._keeping = keeping
        self._recorded: dict[int, Entry] = {}
        """The newest entry of each range, by its first item."""
        self._kept: dict[int, Kept] = {}
        self._open: dict[int, _Open] = {}
        self._found = 0
        """How many recorded items were found."""

    # Before the items ---------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read the entries of the ranges, when this run has been executed before."""
        for entry in await self._frame.run.journal.level(ranges_of(self._path)):
            first, last = bounds(entry.path) or (0, 0)
            if last - first + 1 == self.length and first % self.length == 0:
                newest = self._recorded.get(first)
                if newest is None or newest.attempt < entry.attempt:
                    self._recorded[first] = entry

    def covers(self, first: int) -> bool:
        """Return whether an entry applies to the range that begins with the item `first`."""
        entry = self._recorded.get(first)
        if entry is None or entry.detail is None:
            return False
        detail = canonical.decode(entry.detail)
        is_retried = detail["failed"] > 0 and entry.seq <= self._frame.since
        return detail["keeps"] == self._keeping.to_json() and not is_retried

    def take(self, first: int, items: Sequence[Any] | None) -> None:
        """Take the recorded results of the range that begins with `first`.

        Args:
            first: the number of its first item.
            items: its items as `over` gives them now; None when the journal has the items.

        Raises:
            JournalConflict: they are not the items of the range.
        """
        entry = self._recorded[first]
        detail = canonical.decode(entry.detail or b"{}")
        if items is not None and _digest(items) != detail["items"]:
            raise JournalConflict(
                f"`over` of map {self._step.name!r} gives other items than before this run was resumed, "
                f"among the items {first} to {first + self.length - 1}",
                hint="make it give the same items in the same order each time, or start a new run",
                path=entry.path,
            )
        output = canonical.decode(entry.output or b"[]")
        # Canonical JSON sorts them as texts.
        patches = sorted(detail.get("patches", {}).items(), key=lambda pair: int(pair[0]))
        self._kept[first] = Kept(detail["failed"], output, dict(patches))
        self._found += self.length

    def go_on(self, index: int) -> bool:
        """Return whether a range has an entry that begins with the item `index` or a later one."""
        return any(first >= index for first in self._recorded)

    async def enter(self, first: int, count: int) -> None:
        """Read the entries of the items of a range, `count` at most, before they are executed."""
        items, run = range(first, first + count), self._frame.run
        await run.journal.load_at([path for item in items for path in self._ends_of(item)])
        if run.sink is not None:
            before, self._found = self._found, self._found + sum(map(self._is_recorded, items))
            if self._found > before or (self._found and not self._open):
                await self._frame.tell(ItemsKept(self._path, self._found))

    def _is_recorded(self, index: int) -> bool:
        """Return whether a loaded entry completes an item."""
        journal, ends = self._frame.run.journal, self._ends_of(index)
        entries = [each for path in ends for kind in RESULTS for each in journal.attempts(path, kind)]
        return any(entry.status is EntryStatus.COMPLETED for entry in entries)

    # The items ----------------------------------------------------------------------------------------------

    def begin(self, index: int, item: Any) -> None:
        """Keep an item until its range is complete."""
        self._open.setdefault(index - index % self.length, _Open()).items[index] = item

    def arrive(self, _number: int, result: BranchResult) -> None:
        """Take the result of an item; after the last one of a range, append the entry of the range.

        Raises:
            SecretInValue: a value of the entry contains a known secret.
        """
        index = int(result.name)
        first = index - index % self.length
        here = self._open[first]
        here.results[index] = result
        if len(here.results) == self.length and not any(map(self._stops, here.results.values())):
            self._append(first, here)

    def _append(self, first: int, here: _Open) -> None:
        journal, now = self._frame.run.journal, self._frame.run.clock.now()
        kept = self._kept_of(here)
        detail: dict[str, Any] = {
            "failed": kept.failed,
            "keeps": self._keeping.to_json(),
            "items": _digest_of(here),
        }
        if kept.patches:
            detail["patches"] = kept.patches
        output = canonical.encode(kept.output)
        if len(output) > MAX_BYTES:
            return
        before = self._recorded.get(first)
        journal.append_deferred(
            Entry(
                path=ranged(self._path, first, first + self.length - 1),
                kind=EntryKind.DONE,
                attempt=1 if before is None else before.attempt + 1,
                fingerprint=self._step.kind,
                output=output,
                detail=canonical.encode(detail),
                started_at=now,
                ended_at=now,
            )
        )
        self._kept[first] = kept
        del self._open[first]
        if not journal.is_blank:
            for index in here.items:
                for path in self._ends_of(index):
                    journal.forget(path)

    def _ends_of(self, index: int) -> Sequence[StepPath]:
        """Return the paths at which the entry of an item's end may be."""
        item = indexed(self._path, index)
        return (item,) if self._only is None else (item, child(item, self._only.name))

    def _stops(self, result: BranchResult) -> bool:
        """Return whether an item has not ended, or its failure may stop the map."""
        if result.ok:
            return False
        skips = isinstance(result.outcome, Failure) and self._keeping.on_error != "fail"
        return not skips or is_without_price(result.outcome) or leaves_doubt(result.outcome)

    # After the items ----------------------------------------------------------------------------------------

    def open_results(self) -> list[BranchResult]:
        """Return the results that are in no range, in the order of the items."""
        each = [self._open[first].results for first in sorted(self._open)]
        return [results[index] for results in each for index in sorted(results)]

    def kept(self) -> Kept:
        """Return what the map keeps of all its items, in their order."""
        for first, here in self._open.items():
            self._kept[first] = self._kept_of(here)
        every = Kept()
        for first in sorted(self._kept):
            every.add(self._kept[first])
        return every

    def _kept_of(self, here: _Open) -> Kept:
        kept, keep = Kept(), self._keeping.keep
        for index in sorted(here.results):
            result = here.results[index]
            kept.failed += not result.ok
            if self._keeping.merges and result.ok and result.patch:
                kept.patches[result.name] = result.patch
            if keep == "none" or (keep == "failed" and result.ok):
                continue
            if keep == "failed" or self._keeping.on_error == "collect":
                kept.output.append({"index": index, "item": here.items[index], **result.collected()})
            elif result.ok:
                kept.output.append(result.output)
        return kept


def _digest_of(here: _Open) -> str:
    return _digest([here.items[index] for index in sorted(here.items)])


def _digest(items: Sequence[Any]) -> str:
    return canonical.digest(canonical.encode(items))
