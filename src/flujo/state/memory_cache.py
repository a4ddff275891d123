"""Cached answers in this process's memory: bounded, the least recently used are dropped first."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_ENTRIES = 10_000
MAX_BYTES = 64 * 1024 * 1024


class MemoryCache:
    """A `CacheBackend` that does not outlive the process.

    Args:
        max_entries: how many answers are kept at most.
        max_bytes: how large they may be together; a single one that is larger is not kept.
        now: seconds that never go backwards.
    """

    def __init__(
        self,
        *,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._now = now
        self._kept: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, key: str) -> bytes | None:
        """Return a value that is still good."""
        value, expires_at = self._kept.get(key, (None, 0.0))
        if value is not None and expires_at <= self._now():
            self._drop(key)
            return None
        if value is not None:
            self._kept.move_to_end(key)
        return value

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        """Keep a value, and let go of the least recently used ones when there are too many."""
        self._drop(key)
        if len(value) > self._max_bytes:
            return
        self._kept[key] = value, float("inf") if ttl_s is None else self._now() + ttl_s
        self._size += len(value)
        while len(self._kept) > self._max_entries or self._size > self._max_bytes:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: str) -> None:
        value, _ = self._kept.pop(key, (b"", 0.0))
        self._size -= len(value)
