"""Runs in flight: closing a runner releases them, and waits until that is recorded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from flujo.domain.forks import renew_in_children
from flujo.exceptions import RunnerClosed
from flujo.services.lifetime import within

if TYPE_CHECKING:
    from types import TracebackType


class InFlight:
    """The tasks that are executing runs of one runner."""

    def __init__(self, pipeline: str) -> None:
        self._pipeline = pipeline
        self._renew()
        renew_in_children(self, type(self)._renew)

    def _renew(self) -> None:
        """Forget the tasks of the parent process."""
        self._flights: set[_Flight] = set()

    def executing(self) -> _Flight:
        """Count this task in while it executes a run: `with in_flight.executing(): …`.

        Raises (at the exit):
            RunnerClosed: the runner was closed meanwhile; any process may resume the run.
        """
        return _Flight(self._flights, self._pipeline)

    async def stop(self) -> None:
        """Release the runs that are being executed; recorded when this returns."""
        await asyncio.gather(*[within(flight.loop, flight.stop) for flight in list(self._flights)])


class _Flight:
    """A task while it executes a run. There is one for each run that waits, so it is small."""

    __slots__ = ("_cancelled_before", "_flights", "_left", "_pipeline", "_stopped", "_task")

    def __init__(self, flights: set[_Flight], pipeline: str) -> None:
        self._flights, self._pipeline = flights, pipeline
        self._task = cast("asyncio.Task[object]", asyncio.current_task())
        self._cancelled_before = self._task.cancelling()
        self._stopped = False
        self._left: asyncio.Event | None = None

    def __enter__(self) -> None:
        self._flights.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flights.discard(self)
        if self._left is not None:
            self._left.set()
        # Ours alone becomes an error: a cancellation by the task's owner stays what it is.
        is_ours = self._stopped and self._task.uncancel() <= self._cancelled_before
        if is_ours and isinstance(error, asyncio.CancelledError):
            raise RunnerClosed(
                f"the runner of pipeline {self._pipeline!r} was closed while it executed a run",
                hint="the run is released: recovery resumes it, or `resume_async`, or `flujo resume`",
            ) from None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the task."""
        return self._task.get_loop()

    async def stop(self) -> None:
        """Release the run, and wait until the task has left it.

        A task that is being cancelled already records that now, and is left to it: a second
        cancellation would cut the recording off.
        """
        self._left = asyncio.Event()
        if self._task.cancelling() <= self._cancelled_before:
            self._stopped = True
            self._task.cancel()
        await self._left.wait()
