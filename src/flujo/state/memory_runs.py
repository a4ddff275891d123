"""The runs of a database in memory, each with its journal, its questions and its calls."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Self

from flujo.domain.journal import Entry, EntryKind, RunId
from flujo.domain.paths import ROOT, StepPath, level
from flujo.domain.recorded_run import RecordedRun
from flujo.domain.usage import NOTHING
from flujo.state import rules
from flujo.state.memory_budgets import MemoryBudgets
from flujo.state.memory_claims import MemoryClaims
from flujo.state.memory_evaluations import MemoryEvaluations
from flujo.state.memory_events import MemoryEvents
from flujo.state.memory_feeds import MemoryFeeds
from flujo.state.memory_outbox import MemoryOutbox
from flujo.state.memory_queues import QueueTables
from flujo.state.memory_sessions import MemorySessions
from flujo.state.memory_tokens import MemoryTokens
from flujo.state.requests import MemoryRequests
from flujo.state.wakes import Wakes

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from flujo.domain.acts import Act
    from flujo.domain.ledger import Hold, Spending
    from flujo.domain.run import Intent, Pause, RunRecord
    from flujo.domain.schedule_records import ScheduleRecord

EntryKey = tuple[StepPath, EntryKind, int]


@dataclass(slots=True)
class StoredRun:
    """A run, its journal and its questions."""

    record: RunRecord
    ordinal: int
    lease_until: float | None = None
    journal: dict[EntryKey, Entry] = field(default_factory=dict)
    by_seq: dict[int, Entry] = field(default_factory=dict)
    last_seq: int = 0
    levels: dict[StepPath, list[Entry]] = field(default_factory=dict)
    """The entries of each level, in order, without those of `fresh`."""
    fresh: list[Entry] = field(default_factory=list)
    """The entries since a level was read last."""
    spent: list[Entry] = field(default_factory=list)
    """The entries with usage."""
    pauses: dict[StepPath, Pause] = field(default_factory=dict)
    intents: dict[str, Intent] = field(default_factory=dict)
    holds: dict[tuple[StepPath, int], Hold] = field(default_factory=dict)
    times: dict[tuple[StepPath, int], Spending] = field(default_factory=dict)
    """The times of bodies under a limit, by path and fence; without an end under the newest claim."""
    answered: bool = False
    """Whether a question was settled since the last claim."""
    acts: list[Act] = field(default_factory=list)
    taken_from: str | None = None
    """The dead owner, when the newest claim took the run over from one."""
    on_wish: tuple[asyncio.AbstractEventLoop, Callable[[], None]] | None = None
    """Called when there is a request for the owner."""
    rank_at: float = 0.0
    """When a run of a queue became available first."""

    def add(self, entry: Entry) -> None:
        """Add an entry to the journal."""
        self.journal[entry.path, entry.kind, entry.attempt] = self.by_seq[entry.seq] = entry
        self.last_seq = max(self.last_seq, entry.seq)
        self.fresh.append(entry)
        if entry.usage is not NOTHING:
            self.spent.append(entry)

    def level(self, above: StepPath, after: int) -> list[Entry]:
        """Return the entries of a level with a greater `seq`, in order."""
        fresh, self.fresh = self.fresh, []
        for entry in fresh:
            if entry.path != ROOT:
                insort(self.levels.setdefault(level(entry.path), []), entry, key=_seq_of)
        found = self.levels.get(above, [])
        return found[bisect_right(found, after, key=_seq_of) :]

    def new_of(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return the entries that are not there yet; an identical one may come twice, another may not."""
        new = []
        for entry in entries:
            key = (entry.path, entry.kind, entry.attempt)
            there = self.journal.get(key, self.by_seq.get(entry.seq))
            if there is not None and there != entry:
                raise rules.recorded_otherwise(self.record.run_id, entry)
            if there is None:
                new.append(entry)
        return new

    def calls(self) -> list[Intent]:
        """Return the calls that the run has announced, in the order in which they were sent."""
        return sorted(self.intents.values(), key=lambda call: (call.sent_at or 0.0, call.key))

    def open_holds(self) -> list[Hold]:
        """Return the holds that nothing has settled."""
        return [self.holds[key] for key in sorted(self.holds) if self.holds[key].is_open]

    def ended_times(self) -> tuple[Spending, ...]:
        """Return the times that have an end."""
        return tuple(span for _, span in sorted(self.times.items()) if span.ended_at < inf)

    def end_times(self, at: float) -> None:
        """Give the times without an end this one."""
        for key, span in self.times.items():
            if span.ended_at == inf:
                self.times[key] = replace(span, ended_at=at)

    def earliest_deadline(self) -> float | None:
        """Return the earliest deadline of an open question; None when none has one."""
        open_ones = (pause.deadline_at for pause in self.pauses.values() if pause.is_open)
        return min((each for each in open_ones if each is not None), default=None)

    def recorded(self) -> RecordedRun:
        """Return the run as it is here, without the contents that it names."""
        return RecordedRun(
            record=self.record,
            entries=[self.by_seq[seq] for seq in sorted(self.by_seq)],
            pauses=[*self.pauses.values()],
            intents=self.calls(),
            acts=self.acts,
            holds=self.open_holds(),
            times=self.ended_times(),
        )

    @classmethod
    def arrived(cls, run: RecordedRun, ordinal: int) -> Self:
        """Return a run of another database, which no store owns here."""
        numbers: Counter[StepPath] = Counter()
        stored = cls(run.record, ordinal, acts=[*run.acts])
        for entry in run.entries:
            stored.add(entry)
        stored.pauses = {pause.pause_id: pause for pause in run.pauses}
        stored.intents = {call.key: call for call in run.intents}
        stored.holds = {(hold.path, hold.number): hold for hold in run.holds}
        for time in run.times:
            numbers[time.path] += 1
            stored.times[time.path, numbers[time.path]] = time
        return stored


@dataclass(slots=True)
class MemoryDatabase:
    """The runs and journals, which several stores of one process may share."""

    runs: dict[RunId, StoredRun] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    ordinals: count[int] = field(default_factory=count)
    queues: QueueTables = field(default_factory=QueueTables)
    outbox: MemoryOutbox = field(default_factory=MemoryOutbox)
    evaluations: MemoryEvaluations = field(default_factory=MemoryEvaluations)
    tokens: MemoryTokens = field(default_factory=MemoryTokens)
    sessions: MemorySessions = field(default_factory=MemorySessions)
    events: MemoryEvents = field(default_factory=MemoryEvents)
    wakes: Wakes = field(default_factory=Wakes)
    requests: MemoryRequests = field(default_factory=MemoryRequests)
    budgets: MemoryBudgets = field(default_factory=MemoryBudgets)
    schedules: dict[str, ScheduleRecord] = field(default_factory=dict)
    acts: list[Act] = field(default_factory=list)
    """Those on no single run."""
    feeds: MemoryFeeds = field(default_factory=MemoryFeeds)
    claims: MemoryClaims = field(default_factory=MemoryClaims)


def _seq_of(entry: Entry) -> int:
    return entry.seq
