"""Transactions that a tool writes in.

On SQLite only one transaction can write, so the writer's thread lends its own and calls the tool. On Postgres
a transaction has a connection of its own. Either way the run's row is locked and its fence compared after the
tool has written, and one commit has the tool's rows and the entry of the call.
"""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
import threading
import time
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from sqlalchemy import exc

from flujo.domain.executor import CodeExit
from flujo.exceptions import FlujoError, StateBackendUnavailable, TransactionRefused
from flujo.state import rules
from flujo.state.sql import lost_commits
from flujo.state.sql.database import begin_write
from flujo.state.writer.requests import Lend

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import sqlalchemy as sa

    from flujo.domain.journal import RunId
    from flujo.domain.run import Write
    from flujo.state.sql.database import Database
    from flujo.state.writer.batch import Batches
    from flujo.state.writer.writer import Writer

T = TypeVar("T")

ON_POSTGRES_S = 30.0
"""How long a tool may keep its transaction, unless it has a timeout of its own."""

ON_SQLITE_S = 5.0
"""How long a tool may keep the writer of a SQLite file."""


def refused(what: str) -> NoReturn:
    """Refuse what only Flujo may do with a transaction.

    Raises:
        TransactionRefused: always.
    """
    raise TransactionRefused(
        f"a transactional tool called `{what}`, but Flujo ends its transaction, with the entry of the call",
        hint="remove it; an exception rolls the transaction back",
    )


_COMMIT_S = 1.0
"""How long the thread waits for the commit after that."""


class LentConnection:
    """The writer's connection to a SQLite file, as a tool gets it: it executes statements."""

    def __init__(self, driver: sqlite3.Connection) -> None:
        self._driver: sqlite3.Connection | None = driver
        self.row_factory: Any = None
        """The `row_factory` of cursors, as in `sqlite3`."""

    def cursor(self) -> sqlite3.Cursor:
        """Return a cursor of the transaction.

        Raises:
            TransactionRefused: the call has ended.
        """
        if self._driver is None:
            raise TransactionRefused("the connection of a transactional tool was used after its call")
        cursor = self._driver.cursor()
        cursor.row_factory = self.row_factory
        return cursor

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Execute a statement, and return its cursor."""
        return self.cursor().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        """Execute a statement for each of the parameters, and return its cursor."""
        return self.cursor().executemany(sql, parameters)

    def executescript(self, _: str, /) -> NoReturn:
        """Raise `TransactionRefused`: a script begins with a commit."""
        refused("executescript()")

    def __enter__(self) -> NoReturn:
        """Raise `TransactionRefused`: the end of the block would commit."""
        refused("with connection")

    def __exit__(self, *_: object) -> None:
        """Do nothing: no block has begun."""

    def commit(self) -> NoReturn:
        """Raise `TransactionRefused`."""
        refused("commit()")

    def rollback(self) -> NoReturn:
        """Raise `TransactionRefused`."""
        refused("rollback()")

    def close(self) -> NoReturn:
        """Raise `TransactionRefused`."""
        refused("close()")

    def take_away(self) -> None:
        """Refuse every further statement."""
        self._driver = None


_OUTSIDE = (sqlite3.SQLITE_TRANSACTION, sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_PRAGMA)


def _statements_only(action: int, *_: object) -> int:
    """Deny statements that change the transaction, or the connection beyond it."""
    return sqlite3.SQLITE_DENY if action in _OUTSIDE else sqlite3.SQLITE_OK


class LentWriter:
    """A transaction in the thread that writes a SQLite file, and the executor of its tool.

    Args:
        writer: whose thread is lent.
        run_id: the run that calls the tool.
        timeout_s: after which the thread continues without the tool, as soon as the tool returns.
    """

    def __init__(self, writer: Writer, run_id: RunId, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._steps: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        self._running = threading.Lock()
        self._interrupt: Callable[[], None] | None = None
        """Stops the statement that the tool executes at this moment."""
        self._is_over = False
        self._lent: LentConnection | None = None
        self._begun: asyncio.Future[Any] = self._loop.create_future()
        self._ended = writer.submit(Lend(run_id, self._serve), self._loop)

    @property
    def executor(self) -> LentWriter:
        """This: the tool is called by the thread."""
        return self

    def connection(self, *, is_async: bool) -> LentConnection:
        """Return the connection.

        Raises:
            TransactionRefused: an async callable cannot be called by the thread.
        """
        if is_async:
            raise TransactionRefused("an async callable cannot write in a transaction of a SQLite file")
        assert self._lent is not None  # noqa: S101 - for the type checker; the transaction has begun
        return self._lent

    async def begun(self) -> None:
        """Wait until the thread has begun the transaction.

        Raises:
            StateBackendUnavailable: the database does not answer.
        """
        try:
            await self._first(self._begun)
        except BaseException:
            self.roll_back()
            raise

    async def submit(self, work: Callable[[], T]) -> T:
        """Return what `work` gives in the thread; the port `Executor`."""
        step: asyncio.Future[T] = self._loop.create_future()
        self._steps.put((partial(contextvars.copy_context().run, work), step))
        return await self._first(step)

    async def check(self) -> None:
        """Take the connection away from the tool."""
        await self.submit(self._take_away)

    async def commit(self, write: Write) -> None:
        """Commit a write and what the tool wrote; see the port."""
        await self.submit(lambda: self._commit(write))

    def roll_back(self) -> None:
        """End the transaction, unless it has ended; the thread does it when the tool returns."""
        self._is_over = True
        if self._lent is not None:
            self._lent.take_away()
        with self._running:
            if self._interrupt is not None:
                self._interrupt()
        self._steps.put(None)

    async def _first(self, step: asyncio.Future[T]) -> T:
        await asyncio.wait([step, self._ended], return_when=asyncio.FIRST_COMPLETED)
        if step.done():
            return step.result()
        if self._ended.cancelled() or self._ended.exception() is None:
            raise TransactionRefused(
                f"a transactional tool took longer than {self.timeout_s:g} s, the maximum on SQLite",
                hint="do slow work in another tool, or use Postgres",
            )
        self._ended.result()
        raise AssertionError

    # In the thread ---------------------------------------------------------------------------------------

    def _serve(self, connection: sa.Connection, commit: Callable[[Write], None]) -> None:
        """Do what the tool's task asks for, until the transaction has ended or its time is over."""
        driver: Any = connection.connection.dbapi_connection
        deadline = time.monotonic() + self.timeout_s + _COMMIT_S
        self._lent, self._driver, self._finish = LentConnection(driver), driver, commit
        driver.set_authorizer(_statements_only)
        try:
            self._deliver(self._begun, None, None)
            while not self._is_over:
                try:
                    step = self._steps.get(timeout=max(0.0, deadline - time.monotonic()))
                except Empty:
                    return
                if step is None:
                    return
                self._do(*step)
        finally:
            self._take_away()

    def _do(self, work: Callable[[], Any], step: asyncio.Future[Any]) -> None:
        with self._running:
            self._interrupt = self._driver.interrupt
        try:
            result, error = _called(work)
        finally:
            with self._running:
                self._interrupt = None
        self._deliver(step, result, error)

    def _take_away(self) -> None:
        if self._lent is not None:
            self._lent.take_away()
        self._driver.set_authorizer(None)

    def _commit(self, write: Write) -> None:
        self._take_away()
        self._is_over = True
        self._finish(write)

    def _deliver(self, future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
        def settle() -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        try:
            self._loop.call_soon_threadsafe(settle)
        except RuntimeError:
            pass  # the loop is closed, and the task with it


def _called(work: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """Return the value of foreign code, or its error."""
    try:
        return work(), None
    except sqlite3.DatabaseError as error:
        return None, _clear(error)
    except BaseException as error:  # noqa: BLE001 - foreign code; the waiter gets the exception
        # A future does not accept StopIteration, and an exit in a callable must not end the thread.
        is_usual = isinstance(error, Exception) and not isinstance(error, StopIteration)
        return None, error if is_usual else CodeExit(error)  # type: ignore[return-value]  # an Exception


def _clear(error: sqlite3.DatabaseError) -> Exception:
    if str(error) != "not authorized":
        return error
    clear = TransactionRefused(
        "a transactional tool executed a statement that ends or leaves its transaction",
        hint="remove BEGIN, COMMIT, ROLLBACK, ATTACH and PRAGMA; Flujo commits, and an exception rolls back",
    )
    clear.__cause__ = error
    return clear


class OwnConnection:
    """A transaction on a connection of its own, on Postgres.

    Args:
        database: opens the connection.
        batches: applies the write.
        in_thread: calls a function in a thread, and returns its result.
        timeout_s: the maximum duration of the call.
        on_end: called once, when the connection is closed.
    """

    executor = None

    def __init__(
        self,
        database: Database,
        batches: Batches,
        in_thread: Callable[..., Awaitable[Any]],
        timeout_s: float,
        on_end: Callable[[], None],
    ) -> None:
        self.timeout_s = timeout_s
        self._database = database
        self._batches = batches
        self._in_thread = in_thread
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._is_ended = False

    async def begun(self) -> None:
        """Connect, and begin the transaction.

        Raises:
            StateBackendUnavailable: the database does not answer.
        """
        beginning = asyncio.ensure_future(self._in_thread(self._begin))
        try:
            await asyncio.shield(beginning)
        except BaseException:
            beginning.add_done_callback(self._given_up)
            raise

    def _given_up(self, beginning: asyncio.Future[None]) -> None:
        if beginning.cancelled() or beginning.exception() is not None:
            self._on_end()
        else:
            self.roll_back()

    def connection(self, *, is_async: bool) -> Any:
        """Return the connection: a `psycopg.Connection`, or a `psycopg.AsyncConnection`."""
        return self._guarded.lend(is_async=is_async)

    async def check(self) -> None:
        """Take the connection back, and let the database judge what the tool wrote; see the port."""
        await self._in_thread(self._guarded.take_back)

    async def commit(self, write: Write) -> None:
        """Commit a write and what the tool wrote; see the port."""
        try:
            await self._in_thread(self._commit, write)
        finally:
            self.roll_back()

    def roll_back(self) -> None:
        """End the transaction by closing its connection; the thread of a tool may still use it until then."""
        if not self._is_ended:
            self._is_ended = True
            # A thread of its own: it may wait for the tool, and outlive the event loop.
            threading.Thread(target=self._close, name="flujo-transaction", daemon=True).start()

    # In a thread -----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        with self._database.errors():
            self._connection = self._database.connect()
            try:
                self._connection.detach()  # a tool may hold it for long, and changes its session
                self._transaction = begin_write(self._connection)
                driver: Any = self._connection.connection.dbapi_connection
                self._guarded = driver.guarded(self.timeout_s)
            except BaseException:
                self._connection.close()
                raise

    def _commit(self, write: Write) -> None:
        try:
            with self._database.errors():
                [outcome] = self._batches.apply(self._connection, [write]).outcomes
                if isinstance(outcome, FlujoError):
                    raise outcome
                try:
                    self._transaction.commit()
                except exc.IntegrityError as error:
                    raise rules.refused_commit(error.orig) from error
        except StateBackendUnavailable:
            with self._database.errors(), self._database.connect() as other:
                tables, number = self._database.table_prefix, self._guarded.number
                if not lost_commits.was_committed(other, tables, number, [write.run_id]):
                    raise
        self._batches.holes.succeeded(write)

    def _close(self) -> None:
        self._guarded.close()
        self._connection.invalidate()
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._on_end)
