"""Budgets of several runs in SQL: counters in `limits`, locked after the rows of the runs of a batch.

`limits('budget:RULE', SCOPE, WINDOW)` counts millionths of a dollar, `budget:RULE/tokens` tokens and
`budget:RULE/requests` requests. The locks are taken in the order of name, scope and window, and before those
of queues, so two batches never wait for each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from flujo.domain.ledger import HoldState
from flujo.domain.shared_budgets import PREFIX, Counted
from flujo.state import codec, shared_budgets
from flujo.state.shared_budgets import Before, Change, Counter, Key
from flujo.state.sql.functions import database_now
from flujo.state.sql.tables import budget_holds, limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.journal import RunId
    from flujo.domain.ledger import Hold
    from flujo.exceptions import SharedBudgetExceeded

_Place = tuple[str, str, int]
"""A hold: its run, its path and its number."""

_runs: sa.BindParameter[str] = sa.bindparam("runs", expanding=True)
_paths: sa.BindParameter[str] = sa.bindparam("paths", expanding=True)
_stored = sa.select(
    budget_holds.c.run_id,
    budget_holds.c.path,
    budget_holds.c.number,
    budget_holds.c.state,
    budget_holds.c.shares,
).where(budget_holds.c.run_id.in_(_runs), budget_holds.c.path.in_(_paths), budget_holds.c.shares.is_not(None))
_key = (limits.c.name, limits.c.key, limits.c.window)
_locking = (
    sa.select(*_key, limits.c.used, limits.c.held)
    .where(
        limits.c.name.in_(sa.bindparam("names", expanding=True)),
        limits.c.key.in_(sa.bindparam("scopes", expanding=True)),
        limits.c.window.in_(sa.bindparam("windows", expanding=True)),
    )
    .order_by(*_key)
    .with_for_update()
)
_writing = (
    limits.update()
    .where(
        limits.c.name == sa.bindparam("of_name"),
        limits.c.key == sa.bindparam("of_scope"),
        limits.c.window == sa.bindparam("of_window"),
    )
    .values(used=sa.bindparam("new_used"), held=sa.bindparam("new_held"))
)


class Counting:
    """The counters that the holds of one transaction touch, locked."""

    def __init__(self, connection: sa.Connection, holds: Sequence[tuple[RunId, Hold]], now: float) -> None:
        self._connection = connection
        self._now = now
        self._before = _stored_before(connection, holds)
        changes = [self._change(run_id, hold) for run_id, hold in holds]
        self._counters = _locked(connection, shared_budgets.locked(changes))
        self.rows: list[dict[str, Any]] = []
        """The rows of the holds that count."""

    def settle(self, run_id: RunId, hold: Hold) -> None:
        """Count a hold without a look at the limits: of an attempt that has ended."""
        self._apply(run_id, self._change(run_id, hold))

    def reserve(self, run_id: RunId, hold: Hold) -> SharedBudgetExceeded | None:
        """Count a hold if all its limits have room; return the error of the first that has none."""
        change = self._change(run_id, hold)
        refusal = shared_budgets.exceeded(change, self._counters)
        if refusal is None:
            self._apply(run_id, change)
        return refusal

    def write(self) -> None:
        """Write the counters."""
        rows = [
            {
                "of_name": name,
                "of_scope": scope,
                "of_window": window,
                "new_used": there.used,
                "new_held": there.held,
            }
            for (name, scope, window), there in self._counters.items()
        ]
        if rows:
            self._connection.execute(_writing, rows)

    def _change(self, run_id: RunId, hold: Hold) -> Change:
        return shared_budgets.change(hold, self._before.get(_place(run_id, hold)), self._now)

    def _apply(self, run_id: RunId, change: Change) -> None:
        change.apply(self._counters)
        hold = change.hold
        self._before[_place(run_id, hold)] = Before(hold.state, change.added)
        row = codec.hold_row(run_id, hold)
        self.rows.append({**row, "shares": shared_budgets.encoded(change.added)})


def counters(connection: sa.Connection) -> list[Counted]:
    """Return every counter of a rule."""
    found = connection.execute(
        sa.select(*_key, limits.c.used, limits.c.held)
        .where(limits.c.name >= PREFIX, limits.c.name < PREFIX[:-1] + ";")
        .order_by(*_key)
    )
    return [
        Counted(name=row.name, scope=row.key, window=row.window, used=row.used, held=row.held)
        for row in found
    ]


def now(connection: sa.Connection) -> float:
    """Return the time of the database, in seconds since the epoch."""
    return float(connection.scalar(sa.select(database_now())) or 0.0)


def _place(run_id: RunId, hold: Hold) -> _Place:
    return run_id, hold.path, hold.number


def _stored_before(connection: sa.Connection, holds: Sequence[tuple[RunId, Hold]]) -> dict[_Place, Before]:
    asked = {
        "runs": sorted({run_id for run_id, _ in holds}),
        "paths": sorted({hold.path for _, hold in holds}),
    }
    return {
        (row.run_id, row.path, row.number): Before(
            HoldState(row.state), shared_budgets.decoded(bytes(row.shares))
        )
        for row in connection.execute(_stored, asked)
    }


def _locked(connection: sa.Connection, keys: Sequence[Key]) -> dict[Key, Counter]:
    """Lock counters, after creating those that are missing; both in the order of the keys."""
    if not keys:
        return {}
    insert = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(limits)
    new = [
        {"name": name, "key": scope, "window": window, "used": 0, "held": 0} for name, scope, window in keys
    ]
    connection.execute(insert.on_conflict_do_nothing(), new)
    names, scopes, windows = (sorted(set(each)) for each in zip(*keys, strict=True))
    found = connection.execute(_locking, {"names": names, "scopes": scopes, "windows": windows})
    there = {(row.name, row.key, row.window): Counter(row.used, row.held) for row in found}
    return {key: there[key] for key in keys}
