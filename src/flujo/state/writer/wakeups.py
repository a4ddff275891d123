"""Who waits in an event loop for what a thread does, and how many are woken by one call into their loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable


class Waiter(Protocol):
    """Somebody who waits."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where."""
        ...

    @property
    def future(self) -> asyncio.Future[Any]:
        """For what."""
        ...


def wake(settled: Iterable[tuple[Waiter, Any]]) -> None:
    """Give every waiter its outcome, an exception to be raised there; called outside the loops."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Waiter, Any]]] = {}
    for waiter, outcome in settled:
        by_loop.setdefault(waiter.loop, []).append((waiter, outcome))
    for loop, mine in by_loop.items():
        try:
            loop.call_soon_threadsafe(_deliver, mine)
        except RuntimeError:
            continue  # the loop was closed: nobody waits there any more


def _deliver(settled: list[tuple[Waiter, Any]]) -> None:
    """Set the futures, in their own loop; a waiter that was cancelled has gone already."""
    for waiter, outcome in settled:
        if waiter.future.done():
            continue
        if isinstance(outcome, Exception):
            waiter.future.set_exception(outcome)
            waiter.future.exception()  # who waited may be gone, and then nobody looks at it
        else:
            waiter.future.set_result(outcome)
