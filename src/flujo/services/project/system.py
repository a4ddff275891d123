"""The clock, the randomness and the user of this machine."""

from __future__ import annotations

import asyncio
import getpass
import os
import secrets
import sys
import time
from collections import deque
from functools import cache

from flujo.domain.acts import Actor, Via
from flujo.domain.journal import RunId
from flujo.exceptions import SettingsError
from flujo.services.given import text

MAX_BY = 200


class SystemClock:
    """The time of this machine."""

    # The functions themselves, because each step reads the time four times.
    now = staticmethod(time.time)
    """Seconds since the epoch."""
    monotonic = staticmethod(time.monotonic)
    """Seconds that never go backwards."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


_TICKS_A_SECOND = 2**20 / 60
"""So the first five digits of a run id are a minute."""

_RANDOM_DIGITS = 22

# Random digits are fetched in advance: `os.urandom` releases the interpreter's lock on every call.
_RANDOM: deque[str] = deque()
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_RANDOM.clear)


class SystemRandom:
    """The randomness of this machine."""

    def run_id(self) -> RunId:
        """Return 10 digits of the time and 22 random ones, in hexadecimal.

        Runs that start together are neighbours in every index, so a commit of many of them changes few pages.
        The time repeats every two years.
        """
        ticks = int(time.time() * _TICKS_A_SECOND) % 16**10
        while True:
            try:
                return RunId(f"{ticks:010x}{_RANDOM.popleft()}")
            except IndexError:
                drawn = secrets.token_hex(_RANDOM_DIGITS * 32)
                _RANDOM.extend(
                    drawn[start : start + _RANDOM_DIGITS] for start in range(0, len(drawn), _RANDOM_DIGITS)
                )

    def fraction(self) -> float:
        """Return a number in [0, 1)."""
        return secrets.randbelow(1 << 30) / (1 << 30)


def actor(by: str | None, via: Via) -> Actor:
    """Return the actor with the given name, or the user of this process.

    Raises:
        SettingsError: the name is empty, too long, or cannot be printed.
    """
    name = _user(os.getuid() if hasattr(os, "getuid") else None) if by is None else text(by, "by")
    if not name.strip() or not name.isprintable() or len(name) > MAX_BY:
        raise SettingsError(
            f"{name[:MAX_BY]!r} is not a valid actor name",
            hint=f"`--by` and `by=` take 1 to {MAX_BY} printable characters: a name or an address",
        )
    return Actor(name, via)


@cache
def _user(uid: int | None) -> str:
    """Return the name of the user of this process; looking it up takes longer than writing it."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have a number and no name
        return "unknown" if uid is None else f"uid {uid}"
