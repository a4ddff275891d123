"""The clock and the randomness of this machine."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
import time
from collections import deque

from flujo.domain.journal import RunId


class SystemClock:
    """The time of this machine."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never go backwards."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


# Random bits are fetched in advance: `os.urandom` releases the interpreter's lock on every call.
_RUN_IDS: deque[RunId] = deque()
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_RUN_IDS.clear)


class SystemRandom:
    """The randomness of this machine."""

    def run_id(self) -> RunId:
        """Return 128 random bits in hexadecimal."""
        while True:
            try:
                return _RUN_IDS.popleft()
            except IndexError:
                drawn = secrets.token_hex(16 * 64)
                _RUN_IDS.extend(RunId(drawn[start : start + 32]) for start in range(0, len(drawn), 32))

    def fraction(self) -> float:
        """Return a number in [0, 1)."""
        return secrets.randbelow(1 << 30) / (1 << 30)
