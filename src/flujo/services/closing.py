"""Runs in flight: closing a runner stops them, resumable, and waits until that is recorded."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from flujo.exceptions import RunnerClosed

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(eq=False, slots=True)
class _Flight:
    """A task while it executes a run, and how often it had been cancelled before."""

    task: asyncio.Task[object]
    cancelled_before: int
    stopped: bool = False
    left: asyncio.Event = field(default_factory=asyncio.Event)


class InFlight:
    """The tasks that are executing runs of one runner."""

    def __init__(self) -> None:
        self._flights: set[_Flight] = set()

    @contextmanager
    def executing(self, pipeline: str) -> Iterator[None]:
        """Count this task in while it executes a run.

        Raises:
            RunnerClosed: the runner was closed meanwhile; the run is interrupted and can be resumed.
        """
        task = cast("asyncio.Task[object]", asyncio.current_task())
        flight = _Flight(task, task.cancelling())
        self._flights.add(flight)
        try:
            yield
        except asyncio.CancelledError:
            # Ours alone becomes an error: a cancellation by the task's owner stays what it is.
            if flight.stopped and task.uncancel() <= flight.cancelled_before:
                raise RunnerClosed(
                    f"the runner of pipeline {pipeline!r} was closed while it executed a run",
                    hint="the run is interrupted; go on with it through `resume_async` or `flujo resume`",
                ) from None
            raise
        finally:
            self._flights.discard(flight)
            flight.left.set()

    async def stop(self) -> None:
        """Interrupt the runs that are being executed; recorded when this returns.

        A task that somebody else is cancelling already records that now, and is left to it: a second
        cancellation would cut the recording off.
        """
        flights = tuple(self._flights)
        for flight in flights:
            if flight.task.cancelling() <= flight.cancelled_before:
                flight.stopped = True
                flight.task.cancel()
        await asyncio.gather(*(flight.left.wait() for flight in flights))
