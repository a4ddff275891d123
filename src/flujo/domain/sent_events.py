"""Events that are sent to runs from outside: webhooks, other programs, people."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flujo.domain.fast_dataclass import record

if TYPE_CHECKING:
    from flujo.domain.acts import Actor
    from flujo.domain.journal import RunId
    from flujo.domain.paths import StepPath

KEPT_S = 7 * 86_400.0
"""How long an event is kept that no run takes."""

_EVENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=-]{0,199}")
EVENT_NAME = "[A-Za-z_][A-Za-z0-9_.:-]{0,127}"
"""The form of the name of an event, as a regular expression."""
MAX_KEY = 1000
"""The length of the longest key."""


@record(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event to send: to a run, or to a wait for its name and key."""

    event_id: str
    """Chosen by the sender: a second event with this id and content does nothing."""
    name: str
    payload: bytes
    """Canonical JSON."""
    actor: Actor
    run_id: RunId | None = None
    """The run that it is for; None for an event with a key."""
    key: str | None = None
    to_all: bool = False
    """Whether every run takes it that waits for this name and key now, instead of the one that has waited
    longest."""


@record(frozen=True, slots=True, kw_only=True)
class Taken:
    """The wait that has taken an event."""

    run_id: RunId
    path: StepPath


@record(frozen=True, slots=True, kw_only=True)
class SentEvent:
    """A stored event."""

    event_id: str
    name: str
    payload: bytes
    actor: Actor
    run_id: RunId | None = None
    key: str | None = None
    at: float = 0.0
    """When it was sent: seconds since the epoch, by the store's clock."""
    taken: Taken | None = None
    taken_at: float | None = None
    """When it was settled. An event to all waiting runs is settled when it is sent."""


@record(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What became of an event that was sent."""

    event_id: str
    taken: tuple[Taken, ...] = ()
    """The waits that have taken it; empty for an event that is kept."""
    is_repeated: bool = False
    """Whether the event was there already, so that nothing has changed."""


def is_event_id(text: str) -> bool:
    """Return whether a text can be the id of an event."""
    return _EVENT_ID.fullmatch(text) is not None


def is_event_name(text: str) -> bool:
    """Return whether a text can be the name of an event."""
    return re.fullmatch(EVENT_NAME, text) is not None
