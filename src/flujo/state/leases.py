"""The leases of the runs that this process executes, renewed while their event loops are responsive.

An event loop that is blocked for too long makes no progress, so the leases of its runs expire and another
process may resume them. A timer in each loop is its heartbeat.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from flujo.domain.process_counts import COUNTS
from flujo.state.sql.functions import (
    among,
    database_now,
    driver_text,
    fetch,
    ids_parameter,
    lease_now,
    schema_of,
)
from flujo.state.sql.statements import IS_TIMED, driver
from flujo.state.sql.tables import budget_holds, runs

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

LEASE_S = 30.0
RENEW_S = 10.0
LOOK_S = 1.0
"""How often a process that executes runs polls for cancel requests and followers.

The indexes that it reads are usually empty.
"""

# One parameter for all ids: a statement has at most 65,535 on Postgres, and 32,766 on SQLite.
_mine = sa.and_(runs.c.owner == sa.bindparam("me"), among(runs.c.run_id))
_locked = sa.select(runs.c.run_id).where(_mine).order_by(runs.c.run_id).with_for_update(key_share=True)
"""In the order in which batches lock rows, some of them of other owners: an UPDATE locks in any order."""
_renew = (
    runs.update()
    .where(_mine)
    .values(lease_until=lease_now(runs.c.owner) + sa.bindparam("lease_s", type_=sa.Double()))
)
_held = sa.select(runs.c.run_id).where(_mine)
_end_times = (
    budget_holds.update()
    .where(
        IS_TIMED,
        sa.exists().where(
            runs.c.run_id == budget_holds.c.run_id, runs.c.fence == budget_holds.c.number, _mine
        ),
    )
    .values(settled_at=database_now())
)
_release = runs.update().where(_mine).values(owner=sa.null(), lease_until=sa.null())


def _lock(connection: sa.Connection, given: dict[str, Any]) -> None:
    """Lock the rows of runs before they are changed; SQLite has one lock for all rows."""
    if connection.dialect.name == "postgresql":
        _change(connection, _locked, given)


def _change(connection: sa.Connection, statement: Any, given: dict[str, Any]) -> int:
    """Execute a statement about runs, and return how many rows it has found."""
    cursor = driver(connection)
    cursor.execute(driver_text(statement, schema_of(connection)), given)
    return int(cursor.rowcount)


def elapsed_s() -> float:
    """Return monotonic seconds, including those in which the machine slept where the system reports them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if _KNOWS_SLEEP else time.monotonic()


_KNOWS_SLEEP = hasattr(time, "CLOCK_BOOTTIME")


class Heartbeat:
    """The heartbeat of one event loop: a timer that runs while the loop holds runs."""

    def __init__(self, loop: asyncio.AbstractEventLoop, every_s: float) -> None:
        self._loop = loop
        self._every_s = every_s
        self._timer: asyncio.TimerHandle | None = None
        self._last = time.monotonic()
        self.held: dict[str, float] = {}
        """Runs, each with a time at or before the start of its lease."""
        self.on_wish: dict[str, Callable[[], None]] = {}
        """Callbacks by run, called in the loop when there is a request for the run."""
        self.on_watched: dict[str, Callable[[bool], None]] = {}
        """Callbacks by run, called in the loop when the run becomes watched, or no longer is."""

    def start(self) -> None:
        """Start the timer; called inside the loop."""
        if self._timer is None:
            self._beat()

    def stop(self) -> None:
        """Stop the timer; called inside the loop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def silent_s(self) -> float:
        """Return the seconds since the timer last ran."""
        return time.monotonic() - self._last

    def _beat(self) -> None:
        self._last = time.monotonic()
        self._timer = self._loop.call_later(self._every_s, self._beat)


class Leases:
    """The runs that one store holds.

    Args:
        owner: the token in the rows.
        lease_s: how long a lease lasts without renewal.
        renew_s: how often all of them are renewed, in one statement; the leases of a loop that is blocked for
            longer than this are not renewed.
    """

    def __init__(self, owner: str, lease_s: float = LEASE_S, renew_s: float = RENEW_S) -> None:
        self.owner = owner
        self.lease_s = lease_s
        self.renew_s = renew_s
        self._lock = threading.Lock()
        self._heartbeats: dict[asyncio.AbstractEventLoop, Heartbeat] = {}
        self._next_renewal = time.monotonic() + renew_s
        self._next_look = time.monotonic()
        self._watched: frozenset[str] = frozenset()
        """The runs that were watched at the last look."""

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the timer of a loop before it holds a run; called inside the loop."""
        heartbeat = self._heartbeats.get(loop)
        if heartbeat is None:
            heartbeat = Heartbeat(loop, self.renew_s / 10)
            with self._lock:
                self._forget_closed_loops()
                self._heartbeats[loop] = heartbeat
        heartbeat.start()

    def hold(self, run_id: str, loop: asyncio.AbstractEventLoop, since: float) -> None:
        """Add a run that is executed in `loop`, with a lease that began after `since` (by `elapsed_s`)."""
        with self._lock:
            heartbeat = self._heartbeats.get(loop)
            if heartbeat is not None:
                heartbeat.held[run_id] = since

    def holds(self, run_id: str) -> bool:
        """Return whether a run is executed here."""
        with self._lock:
            return any(run_id in heartbeat.held for heartbeat in self._heartbeats.values())

    def lasts(self, run_id: str, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether the lease of a run that is executed in `loop` is certainly valid."""
        # Without the lock, because every step calls it; in the worst case the database is queried as well.
        heartbeat = self._heartbeats.get(loop)
        since = None if heartbeat is None else heartbeat.held.get(run_id)
        return since is not None and elapsed_s() - since < self.lease_s

    def let_go(self, run_id: str) -> None:
        """Remove a run that is no longer executed here."""
        with self._lock:
            for heartbeat in self._heartbeats.values():
                heartbeat.held.pop(run_id, None)
                heartbeat.on_wish.pop(run_id, None)
                heartbeat.on_watched.pop(run_id, None)

    def seconds_to_renewal(self) -> float:
        """Return how long the writer may sleep before it renews leases."""
        return max(0.0, self._next_renewal - time.monotonic())

    def seconds_to_look(self) -> float:
        """Return how long the writer may sleep before it polls for requests."""
        with self._lock:
            if not any(beat.held for beat in self._heartbeats.values()):
                return self.renew_s
        return max(0.0, self._next_look - time.monotonic())

    def on_wish(self, run_id: str, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        """Call `callback` in `loop` when there is a request for a run; called inside the loop."""
        with self._lock:
            heartbeat = self._heartbeats.get(loop)
            if heartbeat is not None and run_id in heartbeat.held:
                heartbeat.on_wish[run_id] = callback

    def begin_look(self) -> None:
        """Note that the writer polls for requests now."""
        self._next_look = time.monotonic() + LOOK_S

    def tell_wishes(self, run_ids: Iterable[str]) -> None:
        """Call the callbacks of these runs in their loops, each once."""
        with self._lock:
            found = [
                (loop, callback)
                for loop, beat in self._heartbeats.items()
                for run_id in run_ids
                if (callback := beat.on_wish.pop(run_id, None)) is not None
            ]
        for loop, callback in found:
            with suppress(RuntimeError):  # the loop is closed, and its runs with it
                loop.call_soon_threadsafe(callback)

    def on_watched(
        self, run_id: str, loop: asyncio.AbstractEventLoop, callback: Callable[[bool], None]
    ) -> None:
        """Call `callback` in `loop` when a run becomes watched, or no longer is; called inside the loop."""
        with self._lock:
            heartbeat = self._heartbeats.get(loop)
            if heartbeat is None or run_id not in heartbeat.held:
                return
            heartbeat.on_watched[run_id] = callback
            is_watched = run_id in self._watched
        if is_watched:
            callback(True)

    def tell_watched(self, run_ids: Iterable[str]) -> None:
        """Note the runs that are watched now, and call the callbacks of those for which that has changed."""
        watched = frozenset(run_ids)
        if watched == self._watched:
            return
        with self._lock:
            changed, self._watched = watched ^ self._watched, watched
            found = [
                (loop, callback, run_id in watched)
                for loop, beat in self._heartbeats.items()
                for run_id in changed
                if (callback := beat.on_watched.get(run_id)) is not None
            ]
        for loop, callback, is_watched in found:
            with suppress(RuntimeError):  # as above
                loop.call_soon_threadsafe(callback, is_watched)

    def begin_renewal(self) -> list[str]:
        """Return the runs whose leases must be renewed now: those of responsive loops."""
        self._next_renewal = time.monotonic() + self.renew_s
        with self._lock:
            living = [beat for beat in self._heartbeats.values() if beat.silent_s() <= self.renew_s]
            return sorted(run_id for beat in living for run_id in beat.held)

    def renew(self, connection: sa.Connection, ids: list[str]) -> None:
        """Renew leases in one statement; remove the runs that another owner has claimed."""
        given = {"me": self.owner, **ids_parameter(connection, ids)}
        _lock(connection, given)
        if _change(connection, _renew, {**given, "lease_s": self.lease_s}) != len(ids):
            held = {row["run_id"] for row in fetch(connection, _held, given)}
            for run_id in set(ids) - held:
                self.let_go(run_id)

    def renewed(self, ids: list[str], since: float) -> None:
        """Note that the leases of runs were renewed after `since` (by `elapsed_s`)."""
        COUNTS.renewals += len(ids)
        with self._lock:
            for beat in self._heartbeats.values():
                beat.held.update(dict.fromkeys(beat.held.keys() & ids, since))

    def end(self) -> list[str]:
        """Remove and return all held runs."""
        with self._lock:
            ids = sorted(run_id for beat in self._heartbeats.values() for run_id in beat.held)
            ended, self._heartbeats = self._heartbeats, {}
        for loop, beat in ended.items():
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(beat.stop)
        return ids

    def give_back(self, connection: sa.Connection, ids: list[str]) -> None:
        """Release leases, so that any process may claim the runs at once."""
        given = {"me": self.owner, **ids_parameter(connection, ids)}
        _lock(connection, given)
        _change(connection, _end_times, given)
        _change(connection, _release, given)

    def stop_watching(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop the timer of a loop; called inside the loop."""
        with self._lock:
            heartbeat = self._heartbeats.get(loop)
        if heartbeat is not None:
            heartbeat.stop()

    def _forget_closed_loops(self) -> None:
        # No loop holds their runs, so the leases expire.
        self._heartbeats = {loop: beat for loop, beat in self._heartbeats.items() if not loop.is_closed()}
