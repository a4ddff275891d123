"""What this host has for work: cores and memory."""

from __future__ import annotations

import os
from pathlib import Path

_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""The limit of a container, where there is one."""


def cores() -> int:
    """Return how many cores this process may use."""
    usable = getattr(os, "sched_getaffinity", None)
    return len(usable(0)) if usable is not None else os.cpu_count() or 1


def memory() -> int:
    """Return the bytes of memory of the host, or of the container if it has fewer; 0 if nothing says it."""
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not on Windows
        found = 0
    try:
        limit = int(_LIMIT.read_text("utf-8"))
    except (OSError, ValueError):  # not in a container, or `max`
        return found
    return min(limit, found or limit)
