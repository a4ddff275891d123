"""Events within a batch: which locks it takes for them, which runs they concern, and what becomes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flujo.domain.fast_dataclass import record
from flujo.domain.journal import RunId
from flujo.domain.run import Write
from flujo.domain.sent_events import Delivery, NewEvent, Taken
from flujo.state import events
from flujo.state.sql import events as rows
from flujo.state.sql.functions import schema_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import sqlalchemy as sa

    from flujo.domain.run import Pause
    from flujo.domain.sent_events import SentEvent

NO_RUN = RunId("")


@record(frozen=True, slots=True)
class Send:
    """Send an event to a run, or to the wait for its name and key."""

    event: NewEvent

    @property
    def run_id(self) -> RunId:
        """The run that it is for; of an event with a key none that exists."""
        return self.event.run_id or NO_RUN

    @property
    def is_apart(self) -> bool:
        """Whether it is a batch of its own, because it looks for runs and locks them itself."""
        return self.event.run_id is None


class BatchEvents:
    """The events of one batch."""

    def __init__(self, connection: sa.Connection, requests: Sequence[object]) -> None:
        self._connection = connection
        self._sent = [each.event for each in requests if isinstance(each, Send)]
        self._opening = {
            write.run_id: waits
            for write in requests
            if isinstance(write, Write) and (waits := waits_in(write))
        }
        self._inserted: list[SentEvent] = []
        self._taken: dict[str, dict[str, Any]] = {}
        self._passed: list[dict[str, Any]] = []

    def look(self) -> list[RunId]:
        """Take the locks of names and keys; return the runs to lock, whose waits are needed."""
        locks = {
            rows.lock_of(wait.event or "", wait.event_key)
            for waits in self._opening.values()
            for wait in waits
            if wait.event_key is not None
        }
        keyed = [event for event in self._sent if event.key is not None]
        locks |= {rows.lock_of(event.name, event.key or "") for event in keyed}
        if locks:
            rows.lock(self._connection, locks)
        concerned = [event.run_id for event in self._sent if event.run_id is not None]
        for event in keyed:
            waiting = events.fitting(self.waits(event), event)
            concerned += [run_id for run_id, _ in waiting]
        return [*self._opening, *concerned]

    def waits(self, event: NewEvent) -> list[events.Wait]:
        """Return the open waits for the name and key of an event; their runs are locked by now."""
        most = rows.ALL_WAITS if event.to_all else rows.MOST_WAITS
        return rows.waits(self._connection, event.name, event.key or "", most)

    def known(self, event: NewEvent) -> Delivery | None:
        """Return what became of an event with this id and content; None when the id is free.

        Raises:
            EventConflict: the id is taken by another event.
        """
        mine = [each for each in self._inserted if each.event_id == event.event_id]
        return events.repeated(mine or rows.sent(self._connection, event.event_id), event)

    def send(self, event: NewEvent, takers: Sequence[events.Wait], now: float) -> Delivery:
        """Note an event and the waits that take it."""
        taken = tuple(Taken(run_id=run_id, path=pause.pause_id) for run_id, pause in takers)
        self._inserted += events.stored(event, taken, now)
        return Delivery(event_id=event.event_id, taken=taken)

    def take(self, run_id: RunId, wait: Pause, now: float) -> SentEvent | None:
        """Return the oldest kept event that fits a wait which is being opened, and note who takes it."""
        for event in rows.free_for(self._connection, run_id, wait, rows.MOST_WAITS + len(self._taken)):
            if event.event_id not in self._taken and not events.misfit(wait.answer_schema, event.payload):
                self._taken[event.event_id] = {
                    "of_event": event.event_id,
                    "new_taken_by": run_id,
                    "new_taken_path": wait.pause_id,
                    "new_taken_at": now,
                }
                return event
        return None

    def pass_on(self, run_id: RunId, successor: RunId) -> None:
        """Give the events that are kept for a run which ends now to the run that continues it."""
        for event in rows.kept(self._connection, run_id, (), rows.ALL_WAITS):
            if event.event_id not in self._taken:
                row = events.event_row(replace(event, run_id=successor))
                self._passed.append(
                    {"of_event": event.event_id, "new_run_id": successor, "new_digest": row["digest"]}
                )

    def flush(self) -> None:
        """Write the rows."""
        schema = schema_of(self._connection)
        if self._inserted:
            rows.insert_events(schema)(self._connection, [events.event_row(each) for each in self._inserted])
        if self._taken:
            rows.take_events(schema)(self._connection, list(self._taken.values()))
        if self._passed:
            rows.pass_events_on(schema)(self._connection, self._passed)


def waits_in(write: Write) -> list[Pause]:
    """Return the waits for events that a write opens."""
    return [pause for pause in write.pauses if pause.event is not None]
