"""Daemon threads for sync callables: a hung one does not keep the process alive.

The event loop's default executor waits at shutdown for every thread it has started, so a callable that never
returns would keep the process alive. This pool has daemon threads, at most 32 besides the hung ones.
"""

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, TypeVar

from flujo.domain.executor import BatchedItems, CodeExit
from flujo.domain.forks import renew_in_children

T = TypeVar("T")

POOL_SIZE = 32

QUICK_S = 0.01
"""How long a thread collects items of an iterator before it returns them."""

_END = object()


@dataclass(slots=True, eq=False)
class _Job:
    """One call and the future for its result. `state` changes only under the pool's lock."""

    work: Callable[[], Any]
    context: contextvars.Context
    loop: asyncio.AbstractEventLoop
    waiter: asyncio.Future[Any]
    state: str = "queued"  # then "running", "done"; or "abandoned" from either of the first two


@dataclass(slots=True, weakref_slot=True, eq=False)
class ThreadPool:
    """The executor of this process: at most `size` daemon threads, started on demand and reused."""

    size: int = POOL_SIZE
    _queue: SimpleQueue[_Job] = field(default_factory=SimpleQueue)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _threads: int = 0
    _busy: int = 0
    """The number of queued or running jobs whose callers still wait."""

    def __post_init__(self) -> None:
        """Start anew in a forked child."""
        renew_in_children(self, type(self)._renew)

    def _renew(self) -> None:
        """Forget the threads and jobs of the parent process."""
        self._queue, self._lock = SimpleQueue(), threading.Lock()
        self._threads = self._busy = 0

    async def submit(self, work: Callable[[], T]) -> T:
        """Call `work` in a thread, with a copy of the caller's context variables, and return its result.

        When the caller is cancelled, a queued job never starts. A running job continues in its thread, its
        result is dropped, and another thread may take the place of that thread.
        """
        loop = asyncio.get_running_loop()
        job = _Job(work, contextvars.copy_context(), loop, loop.create_future())
        with self._lock:
            self._busy += 1
            self._start_threads()
        self._queue.put(job)
        try:
            return await job.waiter  # type: ignore[no-any-return]  # a future of the result of `work`
        finally:
            self._leave(job)

    def _start_threads(self) -> None:
        if self._threads < min(self._busy, self.size):
            self._threads += 1
            threading.Thread(target=self._serve, name="flujo-callable", daemon=True).start()

    def _leave(self, job: _Job) -> None:
        """Abandon a job whose caller no longer waits, unless it is done."""
        with self._lock:
            if job.state == "done":
                return
            self._busy -= 1
            if job.state == "running":
                self._threads -= 1
                self._start_threads()
            job.state = "abandoned"

    def _serve(self) -> None:
        keep = True
        while keep:
            job = self._queue.get()
            with self._lock:
                if job.state == "abandoned":
                    continue
                job.state = "running"
            result, error = _call(job)
            with self._lock:
                keep = job.state == "running"
                if keep:
                    job.state = "done"
                    self._busy -= 1
            if keep:
                _deliver(job, result, error)
            del job, result, error  # an idle thread keeps no value alive


def _call(job: _Job) -> tuple[Any, BaseException | None]:
    try:
        return job.context.run(job.work), None
    except BaseException as error:  # noqa: BLE001  # foreign code; the waiter gets the exception
        # A future does not accept StopIteration, and an exit in a callable must not end the process.
        is_usual = isinstance(error, Exception) and not isinstance(error, StopIteration)
        return None, error if is_usual else CodeExit(error)


def _deliver(job: _Job, result: Any, error: BaseException | None) -> None:
    def settle() -> None:
        if job.waiter.done():
            return
        if error is not None:
            job.waiter.set_exception(error)
        else:
            job.waiter.set_result(result)

    try:
        job.loop.call_soon_threadsafe(settle)
    except RuntimeError:
        pass  # the loop has closed, so no caller waits


THREADS = ThreadPool()
"""The pool of this process, for every sync callable and tool."""


class LazyItems(BatchedItems[T]):
    """A sync iterator as an async one: each `next`, which may block, runs in a thread."""

    def __init__(self, items: Iterator[T]) -> None:
        self._items = items
        self._error: Exception | None = None

    async def __anext__(self) -> T:
        item = await THREADS.submit(lambda: next(self._items, _END))
        if item is _END:
            raise StopAsyncIteration
        return item  # type: ignore[return-value]  # not the end, so one of the items

    async def take(self, count: int) -> list[T]:
        """Return the items of the next 10 ms from one visit of a thread, `count` at most; none at the end."""
        return await THREADS.submit(lambda: self._taken(count))

    def _taken(self, count: int) -> list[T]:
        if self._error is not None:
            raise self._error
        taken: list[T] = []
        ends_at = time.monotonic() + QUICK_S
        try:
            while len(taken) < count and (not taken or time.monotonic() < ends_at):
                taken.append(next(self._items))
        except StopIteration:
            pass
        except Exception as error:
            if not taken:
                raise
            self._error = error  # the items before it come first
        return taken

    async def aclose(self) -> None:
        """Close a generator that was not read to its end."""
        close = getattr(self._items, "close", None)
        if close is not None:
            await THREADS.submit(close)
