"""Calls the hooks of a run one after another; an error in a hook never breaks the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.governance import logs
from flujo.governance.events import redacted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.events import Event
    from flujo.domain.ports import Sink

logger = logs.logger("flujo.hooks")


def combine_hooks(watchers: Sequence[Sink | None]) -> Sink | None:
    """Return one sink that calls them all; None when there are none.

    A watcher that raises, a `ControlSignal` included, is reported to the log and the run goes on: watching
    does not steer. Cancel the run's task to stop it.
    """
    present = tuple(watcher for watcher in watchers if watcher is not None)
    if not present:
        return None

    async def tell(event: Event) -> None:
        seen = redacted(event)
        for watcher in present:
            try:
                await watcher(seen)
            except Exception:  # foreign code
                name = getattr(watcher, "__qualname__", type(watcher).__qualname__)
                logger.exception("hook `%s` raised at %s; the run goes on", name, type(event).__name__)

    return tell
