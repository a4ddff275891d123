"""What a hold counts in budgets of several runs: the same rules for every store.

Each hold keeps what it has added to counters. A write of the hold adds the difference to what it should
count now, so a write that is repeated adds nothing. A hold counts in the windows in which it was reserved,
also when it is settled in a later one.

An attempt that has ended is final. A new one at the same place begins from nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, TypeAlias

from flujo.domain import canonical
from flujo.domain.commands import command
from flujo.domain.ledger import HoldState
from flujo.domain.shared_budgets import counted
from flujo.domain.usage import MICRO_USD, MOST, format_amount
from flujo.exceptions import SharedBudgetExceeded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from flujo.domain.ledger import Hold
    from flujo.domain.shared_budgets import Share

Key: TypeAlias = tuple[str, str, int]
"""A counter: its name, its scope, and the start of its window. The order of keys is the order of locks."""


@dataclass(frozen=True, slots=True)
class Before:
    """A hold as it is stored."""

    state: HoldState
    added: Mapping[Key, int]
    """What it counts, by counter: as held while it is open, as used afterwards."""


@dataclass(slots=True)
class Counter:
    """A counter as this transaction has locked it."""

    used: int = 0
    held: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """What a write of a hold adds to counters."""

    hold: Hold
    before: Before | None
    added: Mapping[Key, int]
    """What the hold counts afterwards."""

    @property
    def keys(self) -> set[Key]:
        """The counters that it touches."""
        return {*self.added, *(self.before.added if self.before else ())}

    def apply(self, counters: Mapping[Key, Counter]) -> None:
        """Add the difference."""
        if self.before is not None:
            for key, amount in self.before.added.items():
                _add(counters[key], self.before.state, -amount)
        for key, amount in self.added.items():
            _add(counters[key], self.hold.state, amount)


def change(hold: Hold, before: Before | None, now: float) -> Change:
    """Return what a write of a hold changes; `now` is the database's time."""
    if before is not None and before.state is not HoldState.HELD:
        if hold.state is not HoldState.HELD and _amounts(hold, before.added) == before.added:
            return Change(hold, before, before.added)  # the same write once more
        before = None
    windows = {} if before is None else {(name, scope): window for name, scope, window in before.added}
    keys = list(before.added) if before is not None else []
    for share in hold.shares:
        start = share.window.start(now)
        for _, name, _ in share.most():
            keys.append((name, share.scope, windows.get((name, share.scope), start)))
    return Change(hold, before, _amounts(hold, keys))


def exceeded(of: Change, counters: Mapping[Key, Counter]) -> SharedBudgetExceeded | None:
    """Return why a hold cannot be reserved, if a counter has no room for what it adds; nothing is changed."""
    places = {(name, scope): key for key in of.added for name, scope in [key[:2]]}
    for share in of.hold.shares:
        for limit, name, most in share.most():
            key = places[name, share.scope]
            before = 0 if of.before is None else of.before.added.get(key, 0)
            more, there = of.added[key] - before, counters[key]
            spare = counted(name, of.hold.spare) if share.on_exhausted == "finish" else 0
            if more > 0 and there.used + there.held + more + spare > most:
                return _error(share, limit, key, there, more + spare)
    return None


def encoded(added: Mapping[Key, int]) -> bytes:
    """Return what a hold counts, for the database."""
    return canonical.encode([[*key, amount] for key, amount in sorted(added.items())])


def decoded(data: bytes) -> dict[Key, int]:
    """Return what `encoded` wrote."""
    return {(name, scope, window): amount for name, scope, window, amount in canonical.decode(data)}


def locked(changes: Iterable[Change]) -> Sequence[Key]:
    """Return the counters of changes in the order in which they are locked."""
    return sorted({key for each in changes for key in each.keys})


def _amounts(hold: Hold, keys: Iterable[Key]) -> dict[Key, int]:
    total = hold.usage + hold.used
    return {key: counted(key[0], total) for key in keys}


def _add(there: Counter, state: HoldState, amount: int) -> None:
    if state is HoldState.HELD:
        there.held = max(0, min(there.held + amount, MOST))
    else:
        there.used = max(0, min(there.used + amount, MOST))


def _error(share: Share, limit: str, key: Key, there: Counter, more: int) -> SharedBudgetExceeded:
    ends_at = share.window.end(key[2])
    of = "" if share.scope == "{}" else f" of {share.scope}"
    span = "" if ends_at is None else f" for each {share.window.span}"
    until = "" if ends_at is None else f"; the next {share.window.span} begins {_moment(ends_at)}"
    most = dict(share.limits.given())[limit]

    def shown(units: int) -> str:
        return format_amount(limit, in_limit_units(limit, units))

    return SharedBudgetExceeded(
        f"budget `{share.rule}`{of} allows {format_amount(limit, most)} (`{limit}`){span}: "
        f"{shown(there.used)} used and up to {shown(there.held)} held, and the next request may need "
        f"{shown(more)}{until}",
        hint=f"wait for the next window, raise `{limit}` of the rule in flujo.toml, or for this run alone: "
        f"`{command('flujo', 'resume', 'RUN', '--set', f'budget.{share.rule}.{limit}=AMOUNT')}`",
        limit=limit,
        allowed=most,
        spent=in_limit_units(limit, there.used),
        held=in_limit_units(limit, there.held),
        needed=in_limit_units(limit, more),
        rule=share.rule,
        scope="" if share.scope == "{}" else share.scope,
        window_ends_at=ends_at,
    )


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def in_limit_units(limit: str, units: int) -> Decimal:
    """Return the amount of a counter in the unit of its limit."""
    return Decimal(units) / MICRO_USD if limit == "total_cost_usd_limit" else Decimal(units)
