"""Calls the hooks of a run one after another; an error in a hook never breaks the run."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from flujo.engine.foreign_code import is_ctrl_c
from flujo.governance import logs
from flujo.governance.events import redacted, redacted_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.events import Event
    from flujo.domain.ports import Sink

logger = logs.logger("flujo.hooks")


def combine_hooks(watchers: Sequence[Sink | None]) -> Sink | None:
    """Return one sink that calls all given hooks in order; None when there are none.

    An exception in a hook, a `ControlSignal` included, is logged and the run continues. To stop the run,
    cancel its task.
    """
    present = tuple(watcher for watcher in watchers if watcher is not None)
    if not present:
        return None

    async def tell(event: Event) -> None:
        seen = redacted(event)
        for watcher in present:
            try:
                await watcher(redacted_values(seen) if getattr(watcher, "is_external", False) else seen)
            except BaseException as error:  # foreign code
                if _is_for_the_caller(error):
                    raise
                name = getattr(watcher, "__qualname__", type(watcher).__qualname__)
                logger.exception("hook `%s` raised at %s; the run continues", name, type(event).__name__)

    return tell


def _is_for_the_caller(error: BaseException) -> bool:
    """Return whether an error ends the caller, and not the hook alone."""
    task = asyncio.current_task()
    is_cancelled = isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
    return is_cancelled or isinstance(error, GeneratorExit) or is_ctrl_c(error)
