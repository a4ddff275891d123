"""The threads that read: one connection answers all waiting questions, and one call wakes their waiters.

A thread takes its share of the waiting questions, so that one long answer delays few others. A question that
fails on the shared connection is retried alone, for as long as the database may be away.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from flujo.domain.forks import renew_in_children
from flujo.exceptions import FlujoError, StateBackendUnavailable, StateError
from flujo.state.sql.retry import OPENING_RETRY_S, Backoff
from flujo.state.writer.writer import wake

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    import sqlalchemy as sa

    from flujo.state.sql.database import Database

T = TypeVar("T")

CLOSE_S = 1.0
"""How long closing waits for those that read."""


@dataclass(slots=True, eq=False)
class _Question:
    """A function to call with a connection, and the future that gets its result."""

    ask: Callable[..., Any]
    arguments: Sequence[Any]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    run_id: str | None = None
    """Set when it can be combined with the same read of other runs."""


class Readers:
    """Answers questions to one database in a few threads.

    Args:
        database: whose connections are lent, one to a thread while it answers.
        opened: returns when the database is available; called before each turn.
        threads: how many read at once.
        retry_s: how long a database may be away.
    """

    def __init__(
        self, database: Database, opened: Callable[[], None], *, threads: int, retry_s: float
    ) -> None:
        self._database = database
        self._opened = opened
        self._threads = threads
        self._retry_s = retry_s
        self._closed = False
        self._renew()
        renew_in_children(self, type(self)._renew)

    def _renew(self) -> None:
        """Forget the threads and questions of the parent process."""
        self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="flujo-reader")
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._waiting: deque[_Question] = deque()
        self._gathered: set[str] = set()
        """The runs that `gathered` was called for and has not taken yet."""
        self._reading = 0

    async def answer(self, ask: Callable[..., T], *arguments: Any) -> T:
        """Return what `ask(connection, *arguments)` gives, beside the questions of others."""
        loop = asyncio.get_running_loop()
        question = _Question(ask, arguments, loop, loop.create_future())
        self._wait_for(question)
        answer: T = await question.future
        return answer

    async def together(
        self, ask: Callable[[sa.Connection, Sequence[str]], Mapping[str, T]], run_id: str
    ) -> T | None:
        """Return what `ask(connection, run_ids)` says of a run, asked for all that wait with it."""
        loop = asyncio.get_running_loop()
        question = _Question(ask, ([run_id],), loop, loop.create_future(), run_id)
        self._wait_for(question)
        answers: Mapping[str, T] = await question.future
        return answers.get(run_id)

    def _wait_for(self, question: _Question) -> None:
        with self._lock:
            self._check_open()
            self._waiting.append(question)
            if self._reading < self._threads:
                self._executor.submit(self._read)
                self._reading += 1

    async def alone(
        self,
        lend: Callable[[], AbstractContextManager[sa.Connection]],
        ask: Callable[..., T],
        *arguments: Any,
    ) -> T:
        """Return what `ask` gives on a connection of its own; tried again when the connection has died."""
        self._check_open()
        return await self.in_thread(self._patiently, lend, ask, arguments)

    async def gathered(
        self,
        lend: Callable[[], AbstractContextManager[sa.Connection]],
        change: Callable[[sa.Connection, Sequence[str]], None],
        run_id: str,
    ) -> None:
        """Call `change(connection, run_ids)` for this run and for all that wait with it, in their order.

        It must be the same change in all calls. When it fails, one of the waiters gets the error.
        """
        with self._lock:
            self._check_open()
            self._gathered.add(run_id)
        await self.in_thread(self._change_gathered, lend, change)

    async def in_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        """Return what `work` gives in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, *arguments)

    def close(self) -> None:
        """Accept no more questions; those that wait are still answered, or fail.

        Returns when no thread reads any more, or soon: a read that hangs does not keep the store open.
        """
        with self._idle:
            self._closed = True
            self._executor.shutdown(wait=False)
            self._idle.wait_for(lambda: not self._reading, CLOSE_S)

    def _check_open(self) -> None:
        if self._closed:
            raise StateBackendUnavailable("the store is closed", hint="open another one")

    # In a thread -----------------------------------------------------------------------------------------

    def _read(self) -> None:
        share: deque[_Question] = deque()
        try:
            while True:
                with self._lock:
                    self._take(share)
                    if not share:
                        self._leave()
                        return
                self._turn(share)
        except BaseException as error:  # noqa: BLE001 - whatever ended the loop, no question may hang
            with self._lock:
                share.extend(self._waiting)
                self._waiting.clear()
                self._leave()
            wake((question, _failed(error)) for question in share)

    def _turn(self, share: deque[_Question]) -> None:
        """Answer share after share on one connection, for as long as it is good."""
        try:
            self._opened()
            with self._database.reading() as connection:
                while share:
                    _answer_all(connection, share)
                    connection.rollback()  # the next reads see later commits
                    with self._lock:
                        self._take(share)
        except Exception:  # noqa: BLE001 - whatever it was: each of the others meets it alone, or does not
            while share:
                wake([(share[0], self._answer_alone(share[0]))])
                share.popleft()

    def _take(self, share: deque[_Question]) -> None:
        """Move this thread's part of the waiting questions into `share`; called under the lock."""
        count = -(-len(self._waiting) // self._threads)
        share.extend(self._waiting.popleft() for _ in range(count))

    def _leave(self) -> None:
        """Count this thread out; called under the lock."""
        self._reading -= 1
        self._idle.notify_all()

    def _answer_alone(self, question: _Question) -> Any:
        try:
            return self._patiently(self._database.reading, question.ask, question.arguments)
        except Exception as error:  # noqa: BLE001 - raised where it is waited for, not in this thread
            return error

    def _change_gathered(
        self,
        lend: Callable[[], AbstractContextManager[sa.Connection]],
        change: Callable[[sa.Connection, Sequence[str]], None],
    ) -> None:
        with self._lock:
            run_ids, self._gathered = sorted(self._gathered), set()
        if run_ids:  # otherwise an earlier call has made the change for this run
            self._patiently(lend, change, [run_ids])

    def _patiently(
        self,
        lend: Callable[[], AbstractContextManager[sa.Connection]],
        ask: Callable[..., T],
        arguments: Sequence[Any],
    ) -> T:
        def answer() -> T:
            with lend() as connection:
                return ask(connection, *arguments)

        self._retried(self._opened, min(self._retry_s, OPENING_RETRY_S))
        return self._retried(answer, self._retry_s)

    def _retried(self, work: Callable[[], T], limit_s: float) -> T:
        """Return what the work gives; try again while the database is away, no longer than `limit_s`."""
        patience = Backoff(limit_s)
        while True:
            try:
                return work()
            except StateBackendUnavailable as error:
                delay = patience.next_delay(error)
                if self._closed or delay is None:
                    raise
            time.sleep(delay)


def _answer_all(connection: sa.Connection, share: deque[_Question]) -> None:
    """Answer a share and wake its waiters with one call; what could not be answered stays in the share."""
    settled: list[tuple[_Question, Any]] = []
    try:
        while share:
            same = [each for each in share if each is share[0] or _is_the_same(each, share[0])]
            settled += _answered(connection, [each for each in same if not each.future.cancelled()])
            for each in same:
                share.remove(each)
    finally:
        wake(settled)


def _is_the_same(one: _Question, other: _Question) -> bool:
    return one.run_id is not None and one.ask is other.ask


def _answered(connection: sa.Connection, same: Sequence[_Question]) -> list[tuple[_Question, Any]]:
    """Return the answers to one question, or to the same one about several runs."""
    if len(same) > 1:
        try:
            answers = same[0].ask(connection, [str(each.run_id) for each in same])
            return [(each, answers) for each in same]
        except FlujoError:
            pass  # one of the runs is damaged: read each run alone
    return [(each, _answer(connection, each)) for each in same]


def _answer(connection: sa.Connection, question: _Question) -> Any:
    """Return the answer, or the error that is one (no such run); the driver's own end the turn."""
    try:
        return question.ask(connection, *question.arguments)
    except FlujoError as error:
        return error


def _failed(error: BaseException) -> StateError:
    """Return the error for a question that a thread failed on; one for each, which adds its traceback."""
    failed = StateError(
        f"a read has failed: {type(error).__name__}: {error}",
        hint="try again; the database itself has not reported an error",
    )
    failed.__cause__ = error
    return failed
