"""What a map does with an item, for Flujo and its peers alike. It needs no package."""

import time


def nothing(n: int) -> int:
    """Return the item."""
    return n


def busy(n: int) -> int:
    """Return the item after 50 ms of CPU."""
    ends_at = time.thread_time() + 0.05
    while time.thread_time() < ends_at:
        pass
    return n
