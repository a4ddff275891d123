"""The feed of a run: what its owner tells those who follow it, beside the journal. It may be lost."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from flujo.domain import canonical
from flujo.domain.paths import ROOT, StepPath

WATCH_S = 10.0
"""How long a run is watched after a follower has asked for it."""

KEPT_S = 600.0
"""How long the lines of a run are kept after its owner has left it."""

MAX_LINES = 2000
"""How many lines of a run are kept; older ones are deleted when later ones come."""


class FeedKind(StrEnum):
    """What a line of the feed is about."""

    STARTED = "started"
    """An attempt of a step has begun; `text` is the tool, if it is a call that a model has requested."""
    RETRIED = "retried"
    """An attempt has failed; `value` is `{"delay_s": …}`, the seconds until the next one."""
    LOGGED = "logged"
    """Code of the run has logged `text`; `value` is `{"level": …, "logger": …}`."""
    TEXT = "text"
    """A model has written `text`, which may be a part of a sentence."""
    DROPPED = "dropped"
    """The owner could not write all lines; `value` is how many are missing here."""


_KINDS = frozenset(FeedKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedLine:
    """One line of the feed."""

    at: float
    """Seconds since the epoch, by the clock of the owner."""
    kind: FeedKind
    after: int = 0
    """The `seq` of the last journal entry before it; that entry may not be committed yet."""
    path: StepPath = ROOT
    attempt: int = 1
    text: str = ""
    value: Any = None
    """JSON data."""
    number: int = 0
    """Its place in the feed of its run, which the store gives it; later lines have greater numbers."""

    @property
    def data(self) -> bytes:
        """What a store keeps of the line beside its time, kind and path."""
        return canonical.encode(
            {"after": self.after, "attempt": self.attempt, "text": self.text, "value": self.value}
        )


def stored_line(number: int, at: float, kind: str, path: str | None, data: bytes) -> FeedLine | None:
    """Return a line as a store has kept it; None for a kind that a later version has written."""
    if kind not in _KINDS:
        return None
    said = canonical.decode(data)
    return FeedLine(
        at=at,
        kind=FeedKind(kind),
        after=said["after"],
        path=StepPath(path or ROOT),
        attempt=said["attempt"],
        text=said["text"],
        value=said["value"],
        number=number,
    )


def first_number(last: int, now: float) -> int:
    """Return the number of the next line of a run.

    It is at least the time in milliseconds. So numbers also grow when all earlier lines are gone, and a
    follower that continues after a number misses nothing.

    Args:
        last: the greatest number that the run has, 0 for none.
        now: seconds since the epoch, by the store's clock.
    """
    return max(last + 1, int(now * 1000))
