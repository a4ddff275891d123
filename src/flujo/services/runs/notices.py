"""Decides which messages a move of a run sends, by `[notify.NAME]` and `notify` of its pipeline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.outbox import Notice, NoticeEvent
from flujo.governance.events import read_error
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.outbox import Notify
    from flujo.domain.ports import Clock
    from flujo.domain.run import Move, Pause, RunRecord
    from flujo.settings import Settings


@dataclass(frozen=True, slots=True)
class Notifier:
    """Adds messages to the moves of one pipeline's runs."""

    targets: Mapping[NoticeEvent, Sequence[str]] = field(default_factory=dict)
    """The targets of each event."""
    clock: Clock | None = None

    @classmethod
    def of(cls, settings: Settings, pipeline: str, own: Notify, clock: Clock) -> Notifier:
        """Return the notifier of a pipeline.

        Args:
            settings: the project's targets, with their events and patterns of pipelines.
            pipeline: its name.
            own: the targets that the pipeline names. A target without a table in the settings gets nothing.
            clock: the time in the messages.
        """
        wanted: dict[NoticeEvent, list[str]] = {event: [] for event in NoticeEvent}
        for name, table in settings.notify.items():
            events = {
                event for event in table.on if any(fnmatchcase(pipeline, each) for each in table.blueprints)
            }
            if isinstance(own, Mapping):
                events |= {NoticeEvent(event) for event, names in own.items() if name in names}
            elif name in own:
                events |= set(table.on)
            for event in events:
                wanted[event].append(name)
        return cls({event: names for event, names in wanted.items() if names}, clock)

    def announced(self, record: RunRecord, move: Move, pauses: Sequence[Pause] = ()) -> Move:
        """Return a move with its messages.

        Args:
            record: the run that moves.
            move: the move.
            pauses: what the run waits for afterwards.
        """
        event = _EVENTS.get(move.status)
        if not self.targets or event is None or (record.parent is not None and event not in _OF_TASKS):
            return move
        names = self.targets.get(event, ())
        payload = self._payload(record, move, pauses) if names else b""
        return replace(move, notices=tuple(Notice(name, event, payload) for name in names))

    def _payload(self, record: RunRecord, move: Move, pauses: Sequence[Pause]) -> bytes:
        """Return the message: no input, no output, and no secrets in its texts."""
        error = None if move.error is None else read_error(move.error)
        now = 0.0 if self.clock is None else self.clock.now()
        data: dict[str, Any] = {
            "run_id": record.run_id,
            "pipeline": record.pipeline,
            "status": str(move.status),
            "parent_run_id": None if record.parent is None else record.parent.run_id,
            "pauses": [
                {"pause_id": each.pause_id, "kind": str(each.kind), "message": GATE.text(each.message)}
                for each in pauses
            ],
            "error": error and {"code": error.code, "message": error.message},
        }
        at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return canonical.encode({"type": f"run.{move.status}", "timestamp": at, "data": data})


NotifierOf = Callable[["RunRecord"], Awaitable[Notifier]]
"""Returns what sends messages about a run."""

_EVENTS: Mapping[Any, NoticeEvent] = {str(event): event for event in NoticeEvent}

_OF_TASKS = frozenset({NoticeEvent.PAUSED, NoticeEvent.FAILED, NoticeEvent.PARKED})
"""The events of background tasks that are reported: their ends are steps of the run that launched them."""

SILENT = Notifier()
"""Sends nothing."""


async def silent(_: RunRecord) -> Notifier:
    """Send no messages: the project of the run is not known."""
    return SILENT
