"""Objects that a forked child makes anew, because threads, locks and connections do not survive a fork."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - its own hooks must be there before the first fork
import os
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

_renewals: WeakKeyDictionary[Any, Callable[[Any], None]] = WeakKeyDictionary()
"""For each living object, the function that replaces its state of this process."""


def renew_in_children(thing: Any, renew: Callable[[Any], None]) -> None:
    """Call `renew(thing)` in each forked child, where no other thread runs, for as long as `thing` exists."""
    _renewals[thing] = renew


def _renew() -> None:
    for thing, renew in list(_renewals.items()):
        renew(thing)


NO_FORK = threading.RLock()
"""Held while a thread imports modules at first use: a child would wait forever for a half imported one."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=NO_FORK.acquire, after_in_parent=NO_FORK.release, after_in_child=NO_FORK.release
    )
    os.register_at_fork(after_in_child=_renew)
