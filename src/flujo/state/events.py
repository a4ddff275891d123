"""Which wait takes which event, and the rows of events: the same rules for SQL and for memory.

An event is judged and settled in one transaction. What a payload must fit is stored with the wait, so no
event is given to a wait that it does not fit, whichever of the two comes first.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical, chains
from flujo.domain.acts import Act, Actor, Verb, Via
from flujo.domain.journal import RunId
from flujo.domain.paths import StepPath, shown
from flujo.domain.sent_events import Delivery, SentEvent, Taken
from flujo.exceptions import CorruptState, EventConflict, EventRefused, InputRejected
from flujo.json_schema.validator import Validator

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.domain.run import Pause, RunStatus
    from flujo.domain.sent_events import NewEvent

Wait = tuple[RunId, "Pause"]

COPY = "@"
"""Between the id of an event to all waiting runs and the number of a run that has taken it."""


def misfit(event_schema: bytes | None, payload: bytes) -> str | None:
    """Return why a payload does not fit a schema, both canonical JSON; None when it does."""
    if event_schema is None:
        return None
    return next(_validator(event_schema).violations(canonical.decode(payload)), None)


@lru_cache(maxsize=128)
def _validator(event_schema: bytes) -> Validator:
    return Validator(canonical.decode(event_schema))


def waits_for(pause: Pause, event: NewEvent | SentEvent) -> bool:
    """Return whether an open pause waits for this event; `misfit` says whether the payload fits."""
    if not pause.is_open or pause.event != event.name:
        return False
    return event.run_id is not None or (event.key is not None and event.key == pause.event_key)


def opens(there: Pause | None) -> bool:
    """Return whether a write opens a wait, given the pause of its path: an open or settled one stays."""
    return there is None or there.is_expired or (there.void and not there.is_settled)


def fitting(waits: Sequence[Wait], event: NewEvent) -> Sequence[Wait]:
    """Return the waits that take an event, of those that wait for it, the longest waiting first."""
    found = [wait for wait in waits if misfit(wait[1].answer_schema, event.payload) is None]
    return found if event.to_all else found[:1]


def takers(waits: Sequence[Wait], event: NewEvent) -> Sequence[Wait]:
    """Return the waits that take an event, of those that wait for it, the longest waiting first.

    Raises:
        InputRejected: there are such waits, and the payload fits none of them.
    """
    found = fitting(waits, event)
    if waits and not found:
        run_id, pause = waits[0]
        raise InputRejected(
            f"the payload of event {event.name!r} does not fit what `{shown(pause.pause_id)}` of run "
            f"{run_id} waits for: {misfit(pause.answer_schema, event.payload)}",
            hint="the step's `event_schema` says what the payload must be; nothing was recorded",
        )
    return found


def require_going(run_id: RunId, status: RunStatus, name: str) -> None:
    """Check that a run has not ended for good.

    Raises:
        EventRefused: it has.
    """
    if status.is_settled:
        raise EventRefused(
            f"run {run_id} is {status} and takes no event {name!r}",
            hint="send it to a run that has not ended; `flujo tasks list --status waiting` lists them",
            run_id=run_id,
            event=name,
        )


def repeated(there: Sequence[SentEvent], new: NewEvent) -> Delivery | None:
    """Return what became of an event that was sent before; None when its id is free.

    Raises:
        EventConflict: the id is taken by an event with another content.
    """
    if not there:
        return None
    first, *copies = sorted(there, key=lambda each: each.event_id)
    was_to_all = first.taken_at is not None and first.taken is None
    same = (first.name, first.payload, _address(first), was_to_all)
    if same != (new.name, new.payload, _address(new), new.to_all):
        raise EventConflict(
            f"event {new.event_id!r} was sent before with {_difference(first, new)}", event_id=new.event_id
        )
    taken = [each.taken for each in (first, *copies) if each.taken is not None]
    return Delivery(event_id=new.event_id, taken=tuple(taken), is_repeated=True)


def _address(event: NewEvent | SentEvent) -> tuple[RunId | None, str | None]:
    """Return for what an event is: a run, whichever of its chain it was when it was sent, or a key."""
    return None if event.run_id is None else chains.first_of(event.run_id), event.key


def _difference(there: SentEvent, new: NewEvent) -> str:
    if there.name != new.name:
        return f"another name, {there.name!r}"
    if _address(there) != _address(new):
        return "another address"
    return "another payload" if there.payload != new.payload else "another choice of `--all`"


def stored(new: NewEvent, taken: Sequence[Taken], now: float) -> list[SentEvent]:
    """Return the events to store: one, and a copy for each run that takes an event to all waiting runs."""

    def one(event_id: str, taker: Taken | None, taken_at: float | None) -> SentEvent:
        return SentEvent(
            event_id=event_id,
            name=new.name,
            payload=new.payload,
            actor=new.actor,
            run_id=new.run_id,
            key=new.key,
            at=now,
            taken=taker,
            taken_at=taken_at,
        )

    if not new.to_all:
        taker = taken[0] if taken else None
        return [one(new.event_id, taker, None if taker is None else now)]
    copies = [one(f"{new.event_id}{COPY}{index:06}", taker, now) for index, taker in enumerate(taken)]
    return [one(new.event_id, None, now), *copies]


def send_act(wait: Wait, event: NewEvent | SentEvent) -> Act:
    """Return the act of sending the event that a wait has taken."""
    run_id, pause = wait
    return Act(verb=Verb.SEND, actor=event.actor, run_id=run_id, object=pause.pause_id, after=event.payload)


# Rows ----------------------------------------------------------------------------------------------------

COLUMNS = ("event_id", "run_id", "name", "key", "payload", "at", "by", "via", "digest")
TAKEN_COLUMNS = ("taken_by", "taken_path", "taken_at")


def event_row(event: SentEvent) -> dict[str, Any]:
    """Return the row of an event."""
    row = {
        "event_id": event.event_id,
        "run_id": event.run_id,
        "name": event.name,
        "key": event.key,
        "payload": event.payload,
        "at": event.at,
        "by": event.actor.by,
        "via": str(event.actor.via),
        "taken_by": None if event.taken is None else event.taken.run_id,
        "taken_path": None if event.taken is None else event.taken.path,
        "taken_at": event.taken_at,
    }
    return {**row, "digest": _digest(row)}


def event(row: Mapping[str, Any]) -> SentEvent:
    """Return the event of a row.

    Raises:
        CorruptState: the row is corrupt.
    """
    if _digest(row) != row["digest"]:
        raise CorruptState(
            f"event {row['event_id']} is corrupt: its digest differs",
            hint="restore the database from a backup; other events are not affected",
            row=f"event {row['event_id']}",
        )
    is_taken = row["taken_by"] is not None
    return SentEvent(
        event_id=row["event_id"],
        name=row["name"],
        payload=row["payload"],
        actor=Actor(row["by"], Via(row["via"])),
        run_id=None if row["run_id"] is None else RunId(row["run_id"]),
        key=row["key"],
        at=row["at"],
        taken=Taken(run_id=RunId(row["taken_by"]), path=StepPath(row["taken_path"])) if is_taken else None,
        taken_at=row["taken_at"],
    )


def _digest(row: Mapping[str, Any]) -> bytes:
    texts = [row[name] for name in ("event_id", "run_id", "name", "key", "by", "via")]
    parts = [b"-" if text is None else b"+" + text.encode() for text in texts]
    parts.append(bytes(row["payload"]))
    return hashlib.sha256(b"\n".join(b"%d:%b" % (len(part), part) for part in parts)).digest()
