"""Streams a run: text while an agent writes it, each step once it is committed, the result last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Generic, Self

from flujo.domain.events import Chunk, Event, RunStarted, StepEnded
from flujo.domain.models import Ctx, Out, PipelineResult
from flujo.domain.outcomes import Aborted, Paused
from flujo.services.runs.execution import Stop, StopReason

if TYPE_CHECKING:
    from flujo.domain.journal import RunId
    from flujo.domain.ports import Sink

    Item = Chunk | StepEnded | PipelineResult[Out, Ctx]


class RunStream(AsyncIterator["Item[Out, Ctx]"], Generic[Out, Ctx]):
    """The stream of `Flujo.run_stream`: an async iterator, and a context manager that closes it.

    It yields `Chunk`s (text of an agent, with path and attempt; provisional, because the attempt may fail),
    a `StepEnded` for each step (its path, its kind, and as `outcome` its `StepOutcome`) after that was
    committed, and the `PipelineResult` last. A stream that was closed ends without a result.

    The run starts when the first item is requested. When the reader stops reading and the buffer is full, the
    run waits, and the clocks of its steps stand still.
    """

    def __init__(self, delivery: Delivery[Out, Ctx]) -> None:
        self._delivery = delivery

    @property
    def run_id(self) -> RunId | None:
        """The run's id; None until the run is accepted."""
        return self._delivery.run_id

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, error: type[BaseException] | None, *_: object) -> None:
        await self._delivery.close(_reason(is_lost=error is not None))

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item[Out, Ctx]:
        item = await self._delivery.next()
        if item is None:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        """Stop reading. The run is interrupted (it can be resumed), or continues if detached. Idempotent.

        If the reader was cancelled, the run is released instead, so that recovery resumes it.
        """
        task = asyncio.current_task()
        await self._delivery.close(_reason(is_lost=task is not None and task.cancelling() > 0))

    def __del__(self) -> None:
        # After `break` out of `async for` without `async with` no reader is left: the run must not wait.
        self._delivery.abandon()


class Delivery(Generic[Out, Ctx]):
    """Executes a run in its own task, and buffers the items that its reader has not read yet.

    Args:
        start: executes the run, sends its events to the given sink, and is stopped for the given reason.
        buffer: how many items may wait for the reader.
        detach: whether the run continues when its reader has closed the stream.
        running: the set that holds this delivery while its run is executed.
    """

    def __init__(
        self,
        start: Callable[[Sink, Stop], Awaitable[PipelineResult[Out, Ctx]]],
        *,
        buffer: int,
        detach: bool,
        running: set[Delivery[Out, Ctx]],
    ) -> None:
        self.run_id: RunId | None = None
        self._start = start
        self._stop = Stop()
        self._detach = detach
        self._running = running
        self._room = asyncio.Semaphore(buffer)
        # Unbounded itself, so that the end always fits; `_room` is what bounds it. None is the end.
        self._items: asyncio.Queue[Item[Out, Ctx] | None] = asyncio.Queue()
        self._held: list[StepEnded] = []
        self._closed = False
        self._task: asyncio.Task[None] | None = None

    async def next(self) -> Item[Out, Ctx] | None:
        """Return the next item, or None at the end; raises what the run raised."""
        if self._closed:
            return None
        if self._task is None:
            self._task = asyncio.create_task(self._deliver())
            self._task.add_done_callback(self._end)
            self._running.add(self)
        item = await self._items.get()
        if item is not None:
            self._room.release()
            return item
        self._items.put_nowait(None)
        if not self._task.cancelled():
            self._task.result()
        return None

    async def close(self, reason: StopReason = StopReason.SHUTDOWN) -> None:
        """Stop reading; a run that is not detached is stopped, which is recorded before the return."""
        if not self._closed:
            self._stop.reason = reason
        self._closed = True
        if self._task is None or self._task.done():
            return
        if self._detach:
            self._room.release()
        else:
            self._task.cancel()
            await asyncio.wait([self._task])

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that executes the run."""
        assert self._task is not None  # noqa: S101 - only a running delivery is among the running
        return self._task.get_loop()

    async def finish(self) -> None:
        """Close, and wait until a detached run has ended."""
        await self.close()
        if self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    def abandon(self) -> None:
        """Close without waiting; the garbage collector may call this in any thread."""
        self._closed = True
        if self._task is None or self._task.done() or self._task.get_loop().is_closed():
            return
        stop = self._room.release if self._detach else self._task.cancel
        self._task.get_loop().call_soon_threadsafe(stop)

    async def _deliver(self) -> None:
        result = await self._start(self._tell, self._stop)
        for ended in self._held:
            await self._put(ended)
        await self._put(result)

    async def _tell(self, event: Event) -> None:
        match event:
            case RunStarted(run_id=run_id):
                self.run_id = run_id
                self._held.clear()  # they were answered meanwhile, and the run continues
            case StepEnded(outcome=Paused() | Aborted()):
                self._held.append(event)  # yielded later: it is committed only with the run's own status
            case StepEnded() | Chunk():
                await self._put(event)
            case _:
                pass

    async def _put(self, item: Item[Out, Ctx]) -> None:
        await self._room.acquire()
        if self._closed:
            self._room.release()  # without a reader the item is dropped
        else:
            self._items.put_nowait(item)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._running.discard(self)
        self._items.put_nowait(None)
        if not task.cancelled():
            task.exception()  # mark it as retrieved: `next` raises it, and a closed stream does not need it


def _reason(*, is_lost: bool) -> StopReason:
    """Return why a run stops whose reader stops: a reader that failed or was cancelled did not choose to."""
    return StopReason.SHUTDOWN if is_lost else StopReason.INTERRUPT
