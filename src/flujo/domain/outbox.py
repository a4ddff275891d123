"""Messages about runs that leave the database: written with a run's move, and delivered at least once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from flujo.domain.fast_dataclass import record
from flujo.domain.wording import repr_short, suggest
from flujo.exceptions import PipelineError

if TYPE_CHECKING:
    from flujo.domain.journal import RunId


class NoticeEvent(StrEnum):
    """The moves of a run that messages can be about."""

    PAUSED = "paused"
    WAITING = "waiting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PARKED = "parked"


Notify = tuple[str, ...] | Mapping[str, tuple[str, ...]]
"""The targets that a pipeline names: for the events that each of them is set to, or for events of its own."""

Notified = Sequence[str] | Mapping[str, str | Sequence[str]]
"""The same as callers write it."""


def notify(given: Any, where: str) -> Notify:
    """Return the targets of a pipeline.

    Raises:
        PipelineError: it is neither a list of names nor a mapping of events to names.
    """
    if isinstance(given, Mapping):
        for event in given:
            if event not in [*NoticeEvent]:
                hint = suggest(str(event), NoticeEvent, what="events")
                raise PipelineError(f"{where} has the event {event!r}, which runs do not have", hint=hint)
        return {str(event): _names(names, where) for event, names in given.items()}
    return _names(given, where)


def _names(given: Any, where: str) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else given
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        return tuple(dict.fromkeys(names))
    raise PipelineError(
        f"{where} is {repr_short(given)}; expected names of targets",
        hint="name tables [notify.NAME] of flujo.toml: `['ops']`, or `{'failed': ['ops']}`",
    )


def named_targets(given: Notify) -> tuple[str, ...]:
    """Return the names in it, each once."""
    groups = given.values() if isinstance(given, Mapping) else (given,)
    return tuple(dict.fromkeys(name for names in groups for name in names))


class MessageState(StrEnum):
    """The state of a stored message."""

    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"
    """It is not sent any more, unless a user asks for it."""


@record(frozen=True, slots=True)
class Notice:
    """A message to one target, before it is stored."""

    target: str
    """The name of its `[notify.NAME]`."""
    event: NoticeEvent
    payload: bytes
    """JSON without secrets; what the receiver gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A stored message."""

    id: int
    run_id: RunId | None
    target: str
    event: NoticeEvent
    payload: bytes
    created_at: float
    """Seconds since the epoch, by the store's clock, as all times here."""
    available_at: float
    """When it is sent next, or the end of the lease of the process that sends it now."""
    tries: int = 0
    owner: str | None = None
    """Who sends it now, or sent it last."""
    delivered_at: float | None = None
    given_up_at: float | None = None
    error: str | None = None
    """Of the last try."""
    key: str = ""
    """The same for each try and for no other message, by which a receiver recognizes a repetition. It begins
    with the id, which alone is not enough: SQLite uses the id of a deleted row again."""

    @property
    def state(self) -> MessageState:
        """Whether it is still to be delivered."""
        if self.delivered_at is not None:
            return MessageState.DELIVERED
        return MessageState.PENDING if self.given_up_at is None else MessageState.GIVEN_UP


@dataclass(frozen=True, slots=True)
class Tried:
    """The result of one try to deliver a message: delivered, given up, or to be tried again."""

    error: str | None = None
    """None when it was delivered."""
    retry_s: float | None = None
    """After how many seconds it is tried again; None for never."""

    @property
    def state(self) -> MessageState:
        """The state of the message after this try."""
        if self.error is None:
            return MessageState.DELIVERED
        return MessageState.GIVEN_UP if self.retry_s is None else MessageState.PENDING
