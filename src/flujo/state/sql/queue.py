"""Queues in SQL: which runs are claimed next, within the limits that all workers share.

The limits of a queue are judged under a lock on its row of `limits`, so the workers count one after another.
They count the runs themselves, so a worker that dies holds no place. That lock comes after those
of the rows of runs. The candidates are locked after it, but a claim never waits for one of them.

A claim reads the runs that no process holds, and those of processes that are dead. It reads all that are held
only when the first lease may have ended.
"""

from __future__ import annotations

import math
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from flujo.domain.queues import QueueState
from flujo.domain.run import RunStatus
from flujo.state.sql.functions import database_now, lease_now
from flujo.state.sql.queries import Owners, has_owner, owners
from flujo.state.sql.tables import CAN_GO_ON, IS_CLAIMABLE, limits, runs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from flujo.domain.queues import ClaimOrder, QueueLimits, Rate

_LOCK, _STARTED = "", "started"
"""The keys of a queue's rows in `limits`: the one that is locked, and those that count starts."""
_MICROSECONDS = 1_000_000

_is_queued = sa.and_(
    sa.text(CAN_GO_ON),
    runs.c.queue.is_not(None),
    # A task that is to be cancelled at a pause is not claimed by workers.
    sa.or_(runs.c.answered, runs.c.status.not_in([str(RunStatus.PAUSED), str(RunStatus.WAITING)])),
)
is_held_by_none = sa.text(IS_CLAIMABLE)
_running: sa.ColumnElement[str] = sa.literal_column(f"'{RunStatus.RUNNING}'")
_is_running = runs.c.status == _running
# The index by owner holds fewer runs than that by status; `coalesce` keeps databases from the second.
_is_executed = sa.func.coalesce(runs.c.status, "") == _running
_is_held = sa.and_(
    _is_executed,
    runs.c.owner.is_not(None),
    runs.c.lease_until > lease_now(runs.c.owner),
)
_is_suspect = sa.and_(_is_running, runs.c.owner.is_not(None), runs.c.suspicions > 0)


Source = sa.ColumnElement[bool] | sa.TextClause
"""A condition that finds some of the runs to claim."""


class Lapses:
    """When a lease of a run in a queue can end next; until then no run of a living process is lost.

    A lease is renewed until the process releases the run, which has no owner from then on. A run that is
    claimed later has a later lease, unless `lease_s` is shorter there: then `lease_s` here is the limit.

    Args:
        lease_s: how long a lease lasts, in seconds.
        clock: returns monotonic seconds.
    """

    def __init__(self, lease_s: float, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._lease_s = lease_s
        self._next: dict[tuple[str, frozenset[str]], float] = {}
        """By the queue and the closures that were excluded."""

    def is_possible(self, name: str, without: Collection[str]) -> bool:
        """Return whether a lease may have ended in a queue."""
        return self.clock() >= self._next.get((name, frozenset(without)), 0.0)

    def note(self, name: str, without: Collection[str], at: float, left_s: float) -> None:
        """Note in how many seconds from `at` the first lease ends."""
        if len(self._next) >= _MAX_LAPSES:
            self._next.clear()  # the closures that a worker excludes have changed often
        self._next[name, frozenset(without)] = at + min(left_s, self._lease_s)


_MAX_LAPSES = 1000


def lock_limits(connection: sa.Connection, orders: Iterable[ClaimOrder]) -> None:
    """Let no other worker claim from the queues with shared limits before this transaction ends."""
    names = sorted({_row(name) for each in orders for name, rules in each.queues if rules.are_shared})
    if not names:
        return
    locking = (
        sa.select(limits.c.name)
        .where(limits.c.name.in_(names), limits.c.key == _LOCK, limits.c.window == 0)
        .order_by(limits.c.name)
        .with_for_update()
    )
    found = set(connection.scalars(locking))
    if missing := [name for name in names if name not in found]:
        rows = [{"name": name, "key": _LOCK, "window": 0, "used": 0, "held": 0} for name in missing]
        connection.execute(_insert(connection).on_conflict_do_nothing(), rows)
        connection.execute(locking)


def choose(connection: sa.Connection, order: ClaimOrder, now: float, lapses: Lapses) -> list[str]:
    """Lock and return the runs to claim, in their order; `lock_limits` comes before.

    Args:
        connection: in a write transaction.
        order: what is to be claimed.
        now: the database's time.
        lapses: of this process.
    """
    known = owners(connection)
    found: list[tuple[float, str, str]] = []
    for name, rules in order.queues:
        began = lapses.clock()
        reads_held = order.suspects or lapses.is_possible(name, order.without)
        found += _next_of(connection, name, rules, order, now, known, _sources(known, reads_held=reads_held))
        if reads_held:
            lapses.note(name, order.without, began, _shortest_lease(connection, name, order.without, known))
    chosen = sorted(found)[: order.limit]
    for name, rules in order.queues:
        count = sum(queue == name for _, _, queue in chosen)
        if count and rules.rate is not None:
            _note_starts(connection, name, rules.rate, count, now)
    return [run_id for _, run_id, _ in chosen]


def _next_of(
    connection: sa.Connection,
    name: str,
    rules: QueueLimits,
    order: ClaimOrder,
    now: float,
    known: Owners,
    sources: Sequence[Source],
) -> list[tuple[float, str, str]]:
    most, busy = order.limit, set[str]()
    if rules.are_shared:
        # By owner, because the index of queues also holds everything that waits in them.
        is_executed = sa.and_(has_owner, runs.c.owner.in_(known.others), runs.c.queue == name, _is_held)
        held = sa.select(runs.c.queue_key).where(is_executed)
        keys = list(connection.scalars(held))
        room = rules.room(len(keys), 0 if rules.rate is None else _started(connection, name, rules.rate, now))
        most = most if room is None else min(most, room)
        busy = {key for key in keys if key is not None} if rules.one_per_key else busy
    taken: list[tuple[float, str, str]] = []
    while len(taken) < most:
        left = most - len(taken)
        free = [candidates(connection, name, order, now, each, busy, taken, left) for each in sources]
        rows = [(rank, run_id, key) for each in free for run_id, rank, key in connection.execute(each)]
        fresh = sorted(rows, key=itemgetter(0, 1))[:left]
        for rank, run_id, key in fresh:
            if not rules.one_per_key or key is None or key not in busy:
                taken.append((rank, run_id, name))
                busy.update([key] if rules.one_per_key and key is not None else [])
        if not rules.one_per_key or not fresh:
            break
    return taken


def candidates(
    connection: sa.Connection,
    name: str,
    order: ClaimOrder,
    now: float,
    source: Source,
    busy: Collection[str],
    taken: Sequence[tuple[float, str, str]],
    most: int,
) -> sa.Select[Any, Any, Any]:
    """Return what locks and reads the next runs of a queue from one source: run id, rank and key."""
    conditions: list[Any] = [source, runs.c.queue == name, runs.c.available_at <= now]
    conditions.append(_is_suspect if order.suspects else ~_is_suspect)
    if order.without:
        conditions.append(runs.c.closure.not_in(list(order.without)))
    if busy:
        conditions.append(sa.or_(runs.c.queue_key.is_(None), runs.c.queue_key.not_in(sorted(busy))))
    if taken:
        conditions.append(runs.c.run_id.not_in([run_id for _, run_id, _ in taken]))
    chosen = (
        sa.select(runs.c.run_id, runs.c.rank, runs.c.queue_key)
        .where(*conditions)
        .order_by(runs.c.rank, runs.c.run_id)
        .limit(most)
    )
    if connection.dialect.name == "postgresql":
        chosen = chosen.with_for_update(skip_locked=True, key_share=True)
    return chosen


def _sources(known: Owners, *, reads_held: bool) -> list[Source]:
    """Return conditions that a run to claim meets one of, each served by an index."""
    if reads_held:
        return [sa.and_(_is_queued, _is_free(known.dead))]
    of_dead = sa.and_(has_owner, runs.c.owner.in_(known.dead), _is_executed)
    return [is_held_by_none, of_dead] if known.dead else [is_held_by_none]


def _shortest_lease(connection: sa.Connection, name: str, without: Collection[str], known: Owners) -> float:
    """Return in how many seconds the first lease of a run in a queue ends; not those of dead owners."""
    held: list[Any] = [has_owner, runs.c.owner.in_(known.others), runs.c.queue == name, _is_executed]
    if without:
        held.append(runs.c.closure.not_in(list(without)))
    left = sa.func.min(runs.c.lease_until - lease_now(runs.c.owner))
    shortest = connection.scalar(sa.select(left).where(*held))
    return math.inf if shortest is None else float(shortest)


def _is_free(dead: Collection[str]) -> sa.ColumnElement[bool]:
    """Return the condition that no living owner executes the run."""
    expired = runs.c.lease_until <= lease_now(runs.c.owner)
    return sa.or_(~_is_running, runs.c.owner.is_(None), expired, runs.c.owner.in_(list(dead)))


def _started(connection: sa.Connection, name: str, rate: Rate, now: float) -> int:
    since = int((now - rate.per_s) * _MICROSECONDS)
    counted = sa.select(sa.func.coalesce(sa.func.sum(limits.c.used), 0)).where(
        limits.c.name == _row(name), limits.c.key == _STARTED, limits.c.window > since
    )
    return int(connection.scalar(counted) or 0)


def _note_starts(connection: sa.Connection, name: str, rate: Rate, count: int, now: float) -> None:
    """Count starts at this moment, and forget those that no span of `rate` reaches any more."""
    since = int((now - rate.per_s) * _MICROSECONDS)
    old = limits.delete().where(
        limits.c.name == _row(name), limits.c.key == _STARTED, limits.c.window <= since
    )
    connection.execute(old)
    window = int(now * _MICROSECONDS)
    row = {"name": _row(name), "key": _STARTED, "window": window, "used": count, "held": 0}
    added = _insert(connection).values(row)
    same = ["name", "key", "window"]
    connection.execute(
        added.on_conflict_do_update(index_elements=same, set_={"used": limits.c.used + added.excluded.used})
    )


def _row(name: str) -> str:
    return f"queue:{name}"


def _insert(connection: sa.Connection) -> Any:
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(limits)


def next_available(
    connection: sa.Connection,
    names: Sequence[str],
    without: Collection[str],
    suspects: bool | None,
    lapses: Lapses,
) -> float | None:
    """Return in how many seconds a run of the queues can be claimed; None when there is none."""
    known = owners(connection)
    reads_held = bool(suspects) or any(lapses.is_possible(name, without) for name in names)
    conditions: list[Any] = [runs.c.queue.in_(names)]
    if without:
        conditions.append(runs.c.closure.not_in(list(without)))
    if suspects is not None:
        conditions.append(_is_suspect if suspects else ~_is_suspect)
    earliest = sa.select(sa.func.min(runs.c.available_at) - database_now()).where(*conditions)
    found = [connection.scalar(earliest.where(each)) for each in _sources(known, reads_held=reads_held)]
    return min((max(0.0, float(left)) for left in found if left is not None), default=None)


def states(connection: sa.Connection) -> list[QueueState]:
    """Return the queues that have runs which have not ended, by name."""
    dead = owners(connection).dead
    now = database_now()
    is_ready = sa.and_(_is_queued, _is_free(dead))
    is_due = sa.and_(is_ready, runs.c.available_at <= now)
    paused = [str(RunStatus.PAUSED), str(RunStatus.WAITING)]

    def count(condition: sa.ColumnElement[bool]) -> Any:
        return sa.func.count(sa.case((condition, 1)))

    counted = (
        sa.select(
            runs.c.queue,
            count(is_due).label("depth"),
            count(sa.and_(is_ready, runs.c.available_at > now)).label("delayed"),
            count(sa.and_(_is_held, runs.c.owner.not_in(dead))).label("in_flight"),
            count(sa.and_(runs.c.status.in_(paused), ~runs.c.answered)).label("paused"),
            count(runs.c.status == str(RunStatus.PARKED)).label("parked"),
            (now - sa.func.min(sa.case((is_due, runs.c.available_at)))).label("oldest_s"),
        )
        .where(
            runs.c.queue.is_not(None),
            runs.c.status.in_(
                [*paused, *map(str, (RunStatus.ACCEPTED, RunStatus.RUNNING, RunStatus.PARKED))]
            ),
        )
        .group_by(runs.c.queue)
        .order_by(runs.c.queue)
    )
    return [QueueState(**row) for row in connection.execute(counted).mappings()]
