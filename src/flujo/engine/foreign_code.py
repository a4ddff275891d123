"""Awaits foreign code: its exits and cancellations are errors, and it is abandoned if it does not stop."""

from __future__ import annotations

import asyncio
import inspect
import signal
import threading
from contextlib import suppress
from functools import partial
from types import coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from flujo.domain.current_step import ON_REMOTE_WORK, ON_REQUEST
from flujo.domain.executor import GRACE_S, UNCLOSED, CodeExit
from flujo.exceptions import JournalConflict, StateError
from flujo.governance.logs import logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
    from types import TracebackType

    from flujo.domain.current_step import CurrentStep
    from flujo.domain.model_requests import ModelRequest
    from flujo.domain.ports import Observer
    from flujo.domain.remote_work import RemoteWork

T = TypeVar("T")

_log = logger("flujo.engine")


_ABANDONED = "abandoned"
"""The argument of the `CancelledError` that ends the call of abandoned code."""


def abandoned(error: BaseException | None) -> dict[str, Any]:
    """Return the detail of an attempt that ended with `error`: whether its code was abandoned."""
    return {"abandoned": True} if error is not None and _ABANDONED in error.args else {}


class Wish:
    """The wish to stop an execution: it is kept until it is fulfilled, whatever code of steps swallows.

    The execution has a task of its own, so that no code of a step runs in the task of its caller.
    """

    __slots__ = ("_before", "_caller", "is_past", "is_requested")

    def __init__(self) -> None:
        self._caller = cast("asyncio.Task[Any]", asyncio.current_task())
        self._before = self._caller.cancelling()
        self.is_requested = False
        """Whether a cancellation of the run is requested."""
        self.is_past = False
        """Whether a cancellation of the run comes too late, because it is recorded how the run ends."""

    @property
    def is_of_the_caller(self) -> bool:
        """Whether the task that asked for the execution is cancelled."""
        return self._caller.cancelling() > self._before

    def is_there(self) -> bool:
        """Return whether the execution must stop."""
        return self.is_requested or self._caller.cancelling() > self._before


class Caller(Protocol):
    """A part of a run that calls foreign code."""

    def must_stop(self, *clocks: asyncio.Timeout) -> bool:
        """Return whether nothing further may begin in it."""
        ...


# A generator, not a class with `__await__`: each step creates one, and each of 10,000 waiting runs holds one.


@coroutine
def call_code(
    work: Coroutine[Any, Any, T], caller: Caller, name: str, clocks: Sequence[asyncio.Timeout] = ()
) -> Generator[Any, Any, T]:
    """Return the value of one call of foreign code, awaited in the task of the caller.

    A server, a time limit and a library inside the step cancel a task the same way, so `must_stop` decides.
    While it is false, a `CancelledError` is an error of the code like any other. Once it is true, the call
    ends with `CancelledError` unless the code returns a value, whatever the code raises. Code that waits
    longer than `GRACE_S` is closed, like a coroutine that is unfinished at the end of a process.

    Args:
        work: the coroutine.
        caller: the run or the frame that must stop at a wish, or after a time limit.
        name: the name of the code, for the log.
        clocks: further time limits of the call.

    Raises:
        CodeExit: the code raised something that is not an `Exception`, or was cancelled from inside.
        CancelledError: the caller must stop.
    """
    task: asyncio.Task[Any] = asyncio.current_task()  # type: ignore[assignment]  # always in a task
    before = task.cancelling()
    interruption: _Interruption | None = None
    value: Any = None
    failure: BaseException | None = None
    thrown: BaseException | None = None
    while True:
        try:
            awaited = work.send(None) if thrown is None else work.throw(thrown)
        except StopIteration as end:
            value = end.value
            break
        except BaseException as error:  # noqa: BLE001 - foreign code
            failure = error
            break
        thrown, waits = None, True
        while waits:
            try:
                yield _interruptible(awaited)
                waits = False
            except BaseException as error:  # noqa: BLE001 - passed on to the code
                interruption = interruption or _Interruption(work, task, caller, name, clocks)
                waits = interruption.is_taken_by(awaited, error)
                thrown = None if waits else error
    if interruption is not None:
        interruption.end()
    while task.cancelling() > before and not caller.must_stop(*clocks):
        task.uncancel()  # code has cancelled the task that calls it
        try:
            yield  # raises the cancellation, if it is still pending
        except asyncio.CancelledError:
            pass
    try:
        if failure is not None:
            raise _judged(failure, caller, clocks)
        return value  # type: ignore[no-any-return]  # the return value of the coroutine
    finally:
        del failure, thrown  # their tracebacks hold this frame


class _Interruption:
    """The cancellations of one call of foreign code, and the time that the code has to stop."""

    __slots__ = ("_caller", "_clocks", "_is_over", "_name", "_task", "_timer", "_work")

    def __init__(
        self,
        work: Coroutine[Any, Any, Any],
        task: asyncio.Task[Any],
        caller: Caller,
        name: str,
        clocks: Sequence[asyncio.Timeout],
    ) -> None:
        self._work = work
        self._task = task
        self._caller = caller
        self._name = name
        self._clocks = clocks
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False

    def end(self) -> None:
        """Stop the timer, because the code has ended."""
        if self._timer is not None:
            self._timer.cancel()

    def is_taken_by(self, awaited: Any, error: BaseException) -> bool:
        """Return whether the awaited object takes the cancellation, as `Task.cancel` would let it.

        Raises:
            CancelledError: the code had its time to stop.
        """
        if isinstance(error, GeneratorExit) and not (asyncio.isfuture(awaited) and awaited.done()):
            _close(self._work)  # the caller itself is being closed
            raise error
        if not isinstance(error, asyncio.CancelledError):
            return False
        if self._is_over:
            raise self._abandoned(awaited) from None
        if self._timer is None and self._caller.must_stop(*self._clocks):
            self._timer = self._task.get_loop().call_later(GRACE_S, self._expire)
        return _waits_for_others(awaited) and bool(awaited.cancel(*error.args[:1]))

    def _expire(self) -> None:
        self._is_over = True
        self._task.cancel()

    def _abandoned(self, awaited: Any) -> asyncio.CancelledError:
        self._task.uncancel()
        if asyncio.isfuture(awaited):
            awaited.add_done_callback(_look_at)
        _close(self._work)
        _log.warning(
            "code of %s did not stop within %g s after it was cancelled; it is abandoned", self._name, GRACE_S
        )
        return asyncio.CancelledError(_ABANDONED)  # `asyncio.timeout` takes no subclass


def _judged(error: BaseException, caller: Caller, clocks: Sequence[asyncio.Timeout]) -> BaseException:
    """Return the error that the caller gets for an error of the code."""
    if caller.must_stop(*clocks):
        if isinstance(error, asyncio.CancelledError | StateError):
            return error
        stopped = asyncio.CancelledError()
        stopped.__cause__ = error
        return stopped
    if isinstance(error, Exception):
        # The journal's own errors come with `must_stop`; code may use another run's.
        return CodeExit(error) if isinstance(error, StateError | JournalConflict) else error
    return error if is_ctrl_c(error) else CodeExit(error)


class _OfTheTask:
    """A caller that must stop when its task is cancelled, for code that no run calls."""

    __slots__ = ("_before", "_task")

    def __init__(self) -> None:
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._before = self._task.cancelling()

    def must_stop(self, *_: asyncio.Timeout) -> bool:
        return self._task.cancelling() > self._before


async def call_storage(work: Callable[[], Awaitable[T]], name: str) -> T:
    """Await foreign code that is not the call of a step, such as a state provider; see `call_code`."""

    async def awaited() -> T:
        return await work()

    return await call_code(awaited(), _OfTheTask(), name)


def is_ctrl_c(error: BaseException) -> bool:
    """Return whether Ctrl-C has raised this error, and not code.

    Only Python's default signal handler raises it; `asyncio.run` and the command line cancel a task instead.
    """
    return (
        isinstance(error, KeyboardInterrupt)
        and threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )


def _waits_for_others(awaited: Any) -> bool:
    """Return whether a cancellation of this object ends only with tasks that may ignore it."""
    return awaited is not None and type(awaited) is not asyncio.Future


def _interruptible(awaited: Any) -> Any:
    """Return what to await in place of an object, so that a cancellation always returns control.

    A plain future is done once it is cancelled. A task is done when its code ends.
    """
    if not _waits_for_others(awaited) or not asyncio.isfuture(awaited):
        return awaited
    loop = asyncio.get_running_loop()
    if awaited.get_loop() is not loop or awaited is asyncio.current_task():
        return awaited  # the task that gets it raises the error
    awaited._asyncio_future_blocking = False
    ended: asyncio.Future[None] = loop.create_future()
    awaited.add_done_callback(lambda _: None if ended.done() else ended.set_result(None))
    ended._asyncio_future_blocking = True  # as `await` sets it
    return ended


def _look_at(future: asyncio.Future[Any]) -> None:
    """Retrieve the error of a future that no code waits for any more."""
    if not future.cancelled():
        future.exception()


def _close(work: Coroutine[Any, Any, Any]) -> None:
    awaiting: list[Any] = [work]
    while inspect.iscoroutine(inner := awaiting[-1].cr_await):
        awaiting.append(inner)
    with suppress(BaseException):  # foreign code, which may ignore `close`
        work.close()
    UNCLOSED.extend(each for each in awaiting if inspect.getcoroutinestate(each) != inspect.CORO_CLOSED)


class Observed:
    """Learns what the code of an attempt does while the block lasts: its units, and its requests to models.

    Args:
        observer: gets all of it, and makes the span of the step known to the code; None if there is none.
        step: the step and the attempt.
    """

    __slots__ = ("_leave", "_observer", "_on_request", "_on_work", "_requests", "_step", "_units", "ran")

    def __init__(self, observer: Observer | None, step: CurrentStep) -> None:
        self._observer = observer
        self._step = step
        self._requests = self._units = 0
        self.ran: list[RemoteWork] = []
        """The units whose answers have arrived."""

    def __enter__(self) -> None:
        self._on_work = ON_REMOTE_WORK.set(self)
        if self._observer is not None:
            self._on_request = ON_REQUEST.set(partial(self._requested, self._observer))
            self._leave = self._observer.enter(self._step)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is GeneratorExit:  # a coroutine that is never finished is closed in another context
            return
        ON_REMOTE_WORK.reset(self._on_work)
        if self._observer is not None:
            ON_REQUEST.reset(self._on_request)
            self._leave()

    def _requested(self, observer: Observer, request: ModelRequest) -> None:
        self._requests += 1
        observer.requested(self._step, self._requests, request)

    def sent(self) -> tuple[int, str | None]:
        """Return the number of a unit that is sent, and the `traceparent` of its span."""
        self._units += 1
        observer = self._observer
        return self._units, None if observer is None else observer.traceparent(self._step, self._units)

    def answered(self, work: RemoteWork) -> None:
        """Keep where a unit was executed, and let the observer know."""
        self.ran.append(work)
        if self._observer is not None:
            self._observer.worked(self._step, work)
