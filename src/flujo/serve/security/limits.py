"""How often a client may try: logins with a growing wait, and changes in a minute.

The counts are of this process. They are for guesses and for programs out of control, and each server that is
added allows as much again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING, Any

from flujo.exceptions import TooManyRequests

if TYPE_CHECKING:
    from flujo.settings_serve import ServeTable

_KEYS = 10_000
"""How many names and addresses are remembered at most, the last ones."""
_FORGOTTEN_S = 3600.0
_LONGEST_WAIT_S = {"name": 60.0, "address": 900.0}
"""A wait for a name also hits the person to whom it belongs, so it stays short."""


@dataclass(slots=True)
class _Tries:
    count: int = 0
    last: float = 0.0


@dataclass(slots=True)
class _Bucket:
    room: float
    at: float


@dataclass(slots=True)
class Limits:
    """What the clients of a server have tried lately."""

    _logins: dict[tuple[str, str], _Tries] = field(default_factory=dict)
    _changes: dict[str, _Bucket] = field(default_factory=dict)

    def begin_login(self, settings: ServeTable, name: str, address: str, now: float) -> None:
        """Count a login as failed until `login_succeeded`, so that many at once are counted too.

        Raises:
            TooManyRequests: the name or the address has to wait.
        """
        keys = (("name", name), ("address", address))
        wait_s = max(self._wait_s(settings, key, now) for key in keys)
        if wait_s > 0:
            raise TooManyRequests(
                "too many wrong passwords",
                hint=f"try again in {ceil(wait_s)} seconds",
                retry_after_s=ceil(wait_s),
            )
        for key in keys:
            tries = self._logins.pop(key, None) or _Tries()
            _make_room(self._logins)
            self._logins[key] = _Tries(tries.count + 1, now)

    def login_succeeded(self, name: str, address: str) -> None:
        """Forget the wrong passwords for a name. Those of the address still count: it may try other names."""
        self._logins.pop(("name", name), None)
        if (tries := self._logins.get(("address", address))) is not None:
            tries.count -= 1

    def count_change(self, settings: ServeTable, who: str, now: float) -> None:
        """Count an answer or another change.

        Raises:
            TooManyRequests: there were too many within a minute.
        """
        most = float(settings.changes_per_minute)
        bucket = self._changes.pop(who, None) or _Bucket(most, now)
        room = min(most, bucket.room + (now - bucket.at) * most / 60)
        _make_room(self._changes)
        self._changes[who] = _Bucket(room - 1 if room >= 1 else room, now)
        if room < 1:
            wait_s = max(1, ceil((1 - room) * 60 / most))
            raise TooManyRequests(
                f"{who} may send {settings.changes_per_minute} changes a minute",
                hint=f"try again in {wait_s} seconds",
                retry_after_s=wait_s,
            )

    def _wait_s(self, settings: ServeTable, key: tuple[str, str], now: float) -> float:
        tries = self._logins.get(key)
        if tries is None:
            return 0.0
        if now - tries.last > _FORGOTTEN_S:
            del self._logins[key]
            return 0.0
        over = tries.count - settings.login_attempts
        return tries.last + min(2.0**over, _LONGEST_WAIT_S[key[0]]) - now if over >= 0 else 0.0


def _make_room(known: dict[Any, Any]) -> None:
    if len(known) >= _KEYS:
        del known[next(iter(known))]
