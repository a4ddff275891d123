"""Time limits that stand still while somebody slow is listening: a slow reader is not a slow step."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def paused(limit: asyncio.Timeout) -> Iterator[None]:
    """Stop the clock of an attempt for a while; one that somebody else has stopped is left to them."""
    ends_at = limit.when()
    if ends_at is None or limit.expired():
        yield
        return
    now = asyncio.get_running_loop().time
    left = ends_at - now()
    limit.reschedule(None)
    try:
        yield
    finally:
        if not limit.expired():
            limit.reschedule(now() + left)
