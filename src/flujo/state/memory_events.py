"""Events in memory: the rules of `state.events` on dictionaries."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flujo.domain.sent_events import Delivery, Taken
from flujo.state import events

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from flujo.domain.journal import RunId
    from flujo.domain.run import Pause
    from flujo.domain.sent_events import NewEvent, SentEvent


@dataclass(slots=True)
class MemoryEvents:
    """The events of a database in memory, by their ids, in the order in which they were sent."""

    by_id: dict[str, SentEvent] = field(default_factory=dict)

    def known(self, event: NewEvent) -> Delivery | None:
        """Return what became of an event with this id and content; None when the id is free.

        Raises:
            EventConflict: the id is taken by another event.
        """
        copies = f"{event.event_id}{events.COPY}"
        there = [
            each
            for event_id, each in self.by_id.items()
            if event_id == event.event_id or event_id.startswith(copies)
        ]
        return events.repeated(there, event)

    def send(self, event: NewEvent, takers: Sequence[events.Wait], now: float) -> Delivery:
        """Store an event and the waits that take it."""
        taken = tuple(Taken(run_id=run_id, path=pause.pause_id) for run_id, pause in takers)
        self.by_id |= {each.event_id: each for each in events.stored(event, taken, now)}
        return Delivery(event_id=event.event_id, taken=taken)

    def take(self, run_id: RunId, wait: Pause, now: float) -> SentEvent | None:
        """Return the oldest kept event that fits a wait which is being opened, and note who takes it."""
        for event in self.kept(run_id, [wait]):
            if events.waits_for(wait, event) and not events.misfit(wait.answer_schema, event.payload):
                taken = replace(event, taken=Taken(run_id=run_id, path=wait.pause_id), taken_at=now)
                self.by_id[event.event_id] = taken
                return event
        return None

    def pass_on(self, run_id: RunId, successor: RunId) -> None:
        """Give the events that are kept for a run which ends now to the run that continues it."""
        for event in self.kept(run_id, ()):
            self.by_id[event.event_id] = replace(event, run_id=successor)

    def kept(self, run_id: RunId, waits: Iterable[Pause]) -> list[SentEvent]:
        """Return the events that are kept for a run: those to it, and those for its waits."""
        addresses = {(wait.event, wait.event_key) for wait in waits}
        found = [
            event
            for event in self.by_id.values()
            if event.taken_at is None
            and (event.run_id == run_id or (event.run_id is None and (event.name, event.key) in addresses))
        ]
        return sorted(found, key=lambda each: (each.at, each.event_id))

    def delete_old(self, before: float, runs: Collection[RunId], limit: int) -> int:
        """Delete events that were sent before this time and that none of these runs has taken."""
        old = [
            event_id
            for event_id, event in self.by_id.items()
            if event.at < before and (event.taken is None or event.taken.run_id not in runs)
        ][:limit]
        for event_id in old:
            del self.by_id[event_id]
        return len(old)
