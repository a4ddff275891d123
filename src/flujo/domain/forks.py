"""Objects that a forked child makes anew, because threads, locks and connections do not survive a fork."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - its own hooks must be there before the first fork
import os
import threading
from typing import Protocol
from weakref import WeakSet


class Renewable(Protocol):
    """An object with state that belongs to one process."""

    def renew(self) -> None:
        """Replace that state; called in a forked child, where no other thread runs."""
        ...


_alive: WeakSet[Renewable] = WeakSet()


def renew_in_children(thing: Renewable) -> None:
    """Renew `thing` in each forked child, for as long as it exists."""
    _alive.add(thing)


def _renew() -> None:
    for thing in list(_alive):
        thing.renew()


NO_FORK = threading.RLock()
"""Held while a thread imports modules at first use: a child would wait forever for a half imported one."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=NO_FORK.acquire, after_in_parent=NO_FORK.release, after_in_child=NO_FORK.release
    )
    os.register_at_fork(after_in_child=_renew)
