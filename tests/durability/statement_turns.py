"""Executes transactions of several Postgres connections in every order of their statements and commits.

Each transaction runs in a thread of its own, which waits for its turn before each statement. A statement that
waits for a lock of another transaction keeps its turn until that one ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import psycopg
import sqlalchemy as sa

from durability.interleaving import following
from flujo.state.sql.database import Database, begin_write

if TYPE_CHECKING:
    import random

Work = Callable[[sa.Connection], object]

_WAITING = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
_PATIENCE_S = 60.0


@dataclass(eq=False)
class _Session:
    """A transaction in a thread of its own."""

    database: Database
    work: Work
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    at_gate: threading.Event = field(default_factory=threading.Event)
    ended: bool = False
    error: BaseException | None = None
    result: object = None

    def __post_init__(self) -> None:
        self.connection = self.database.connect()
        self.driver = cast("psycopg.Connection[Any]", self.connection.connection.dbapi_connection)
        self.pid = int(self.driver.info.backend_pid)
        self.driver.cursor_factory = _gated(self.gate)
        self.thread = threading.Thread(target=self._transact, daemon=True)
        self.thread.start()

    def gate(self) -> None:
        """Wait for the next turn."""
        self.at_gate.set()
        self.turn.acquire()

    def _transact(self) -> None:
        try:
            with begin_write(self.connection) as transaction:
                self.result = self.work(self.connection)
                self.gate()
                transaction.commit()
        except BaseException as error:  # noqa: BLE001 - the schedule reports it
            self.error = error
        self.ended = True
        self.at_gate.set()


def _gated(gate: Callable[[], None]) -> type[psycopg.Cursor[Any]]:
    class Cursor(psycopg.Cursor[Any]):
        def execute(self, query: Any, *arguments: Any, **options: Any) -> Any:
            gate()
            return super().execute(query, *arguments, **options)

        def executemany(self, query: Any, params_seq: Any, **options: Any) -> None:
            gate()
            super().executemany(query, params_seq, **options)

    return Cursor


@dataclass
class Schedule:
    """One order of the statements: the chosen session of each turn, with the number of choices."""

    taken: list[tuple[int, int]]
    results: list[object]
    waits: int
    """How many statements waited for a lock."""


def every_order(
    databases: Sequence[Database], watcher: psycopg.Connection[Any], begin: Callable[[], Sequence[Work]]
) -> Iterator[Schedule]:
    """Yield each order after it was executed; `begin` prepares one and returns its transactions."""
    choices: list[int] | None = []
    while choices is not None:
        schedule = _execute(databases, watcher, begin(), _first(choices))
        yield schedule
        choices = following(schedule.taken)


def _first(choices: Sequence[int]) -> Callable[[int], int]:
    rest = iter(choices)
    return lambda _: next(rest, 0)


def some_orders(
    databases: Sequence[Database],
    watcher: psycopg.Connection[Any],
    begin: Callable[[], Sequence[Work]],
    chance: random.Random,
) -> Iterator[Schedule]:
    """Yield one random order after another; see `every_order`."""
    while True:
        yield _execute(databases, watcher, begin(), chance.randrange)


def _execute(
    databases: Sequence[Database],
    watcher: psycopg.Connection[Any],
    works: Sequence[Work],
    choose: Callable[[int], int],
) -> Schedule:
    with _sessions(databases, works) as sessions:
        taken: list[tuple[int, int]] = []
        waits = 0
        while not all(session.ended for session in sessions):
            ready = [session for session in sessions if not session.ended and session.at_gate.is_set()]
            assert ready, "every transaction waits for another one"
            choice = choose(len(ready))
            taken.append((choice, len(ready)))
            chosen = ready[choice]
            chosen.at_gate.clear()
            chosen.turn.release()
            waits += _rested(chosen, watcher)
            # One that waited before may have got its lock by this turn.
            for session in sessions:
                _rested(session, watcher)
        for session in sessions:
            if session.error is not None:
                raise session.error
        return Schedule(taken, [session.result for session in sessions], waits)


@contextmanager
def _sessions(databases: Sequence[Database], works: Sequence[Work]) -> Iterator[list[_Session]]:
    sessions = [_Session(database, work) for database, work in zip(databases, works, strict=True)]
    try:
        for session in sessions:
            assert session.at_gate.wait(_PATIENCE_S)
        yield sessions
    finally:
        for session in sessions:
            for _ in range(100):
                session.turn.release()
        for session in sessions:
            session.thread.join(_PATIENCE_S)
            session.driver.cursor_factory = psycopg.Cursor
            session.connection.close()


def _rested(session: _Session, watcher: psycopg.Connection[Any]) -> bool:
    """Wait until a session is at its next gate, at its end, or waits for a lock; return whether it waits."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        if session.at_gate.wait(0.001):
            return False
        [waits] = watcher.execute(_WAITING, (session.pid,)).fetchone() or [False]
        if waits:
            return not session.at_gate.wait(0.002)
    raise AssertionError("a statement neither ended nor waited for a lock")
