"""Budgets of several runs: which runs a rule counts, in which window, and what it counts of them.

A rule (`[[budgets.rule]]`) has one amount for each scope: for each user, blueprint or value of metadata that
it names in `per`. A scope has counters for each window: what its runs have used, and what is held for their
requests in progress.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal
from zoneinfo import ZoneInfo

from flujo.domain import canonical
from flujo.domain.usage import MICRO_USD, MOST, UsageLimits

if TYPE_CHECKING:
    from flujo.domain.usage import Usage

RULE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
"""What names a rule."""

Span = Literal["day", "month", "none"]
"""How long a window is; `none` is one window without an end."""

OnExhausted = Literal["fail", "pause", "finish"]
"""What happens to a step whose request has no room; `finish` fails every kind of step but `granular`."""

_BLUEPRINT, _USER, _METADATA = "blueprint", "user", "metadata."


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The properties of a run that rules look at."""

    blueprint: str
    """The name of its blueprint or pipeline."""
    user: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def property(self, name: str) -> Any:
        """Return the value of a name in `per`; None when the run lacks it."""
        if name == _BLUEPRINT:
            return self.blueprint
        return self.user if name == _USER else self.metadata.get(name.removeprefix(_METADATA))


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The runs that a rule counts; a property that is None or empty is ignored."""

    blueprint: str | None = None
    user: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def covers(self, run: Facts) -> bool:
        """Return whether a run has all these properties."""
        return (
            self.blueprint in (None, run.blueprint)
            and self.user in (None, run.user)
            and all(
                name in run.metadata and run.metadata[name] == value for name, value in self.metadata.items()
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The spans of time that have an amount of their own each, in a time zone."""

    span: Span = "month"
    zone: str = "UTC"

    def start(self, now: float) -> int:
        """Return the start of the window of a moment; seconds since the epoch, 0 without a window."""
        if self.span == "none":
            return 0
        there = datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo(self.zone))
        day = there.day if self.span == "day" else 1
        return int(datetime(there.year, there.month, day, tzinfo=there.tzinfo).timestamp())

    def end(self, start: int) -> int | None:
        """Return the end of the window that begins at `start`, which is the start of the next one."""
        if self.span == "none":
            return None
        # A moment well inside the next window, so that no change of the clock moves it out of it.
        return self.start(start + (36 * 3600 if self.span == "day" else 35 * 86_400))


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One rule as it counts a run: its scope and its limits."""

    rule: str
    scope: str
    """The scope as canonical JSON: the value of each name in `per`."""
    window: Window
    limits: UsageLimits
    on_exhausted: OnExhausted = "fail"

    def most(self) -> Iterator[tuple[str, str, int]]:
        """Yield each limited amount: its name of a `UsageLimits` field, its counter, and the limit."""
        for limit, value in self.limits.given():
            yield limit, counter(self.rule, limit), in_units(limit, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetRule:
    """A budget that all runs which it counts share, for each of its scopes."""

    name: str
    limits: UsageLimits
    match: Match = field(default_factory=Match)
    per: tuple[str, ...] = ()
    """`blueprint`, `user` or `metadata.KEY`: each value of them has an amount of its own."""
    window: Window = field(default_factory=Window)
    on_exhausted: OnExhausted = "fail"

    def share(self, run: Facts) -> Share | None:
        """Return how the rule counts a run; None when it does not.

        Runs that lack a property of `per` have one scope in common, so that none of them is uncounted.
        """
        if not self.match.covers(run):
            return None
        scope = canonical.encode({name: run.property(name) for name in self.per}).decode()
        return Share(
            rule=self.name,
            scope=scope,
            window=self.window,
            limits=self.limits,
            on_exhausted=self.on_exhausted,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One counter of a rule: what the runs of a scope have used in a window."""

    name: str
    """The counter's name: that of its rule, and of what it counts."""
    scope: str
    window: int
    """The start of the window, seconds since the epoch; 0 without one."""
    used: int
    """In millionths of a dollar, tokens or requests."""
    held: int
    """The same, for requests in progress and those of processes that have died."""


def is_property(name: str) -> bool:
    """Return whether a name may be in `per`."""
    return name in (_BLUEPRINT, _USER) or (name.startswith(_METADATA) and len(name) > len(_METADATA))


def counter(rule: str, limit: str) -> str:
    """Return the name of the counter for one limit of a rule."""
    return PREFIX + rule + _COUNTED[limit][0]


def counted(name: str, used: Usage) -> int:
    """Return what a counter counts of a usage."""
    return int(getattr(used, _AMOUNT_OF[name.partition("/")[2]]))


def limit_of(name: str) -> tuple[str, str]:
    """Return the rule of a counter, and the name of its limit."""
    rule, _, what = name.removeprefix(PREFIX).partition("/")
    return rule, next(limit for limit, (end, _) in _COUNTED.items() if end.removeprefix("/") == what)


def in_units(limit: str, value: float) -> int:
    """Return a limit in the unit of its counter."""
    factor = MICRO_USD if limit == "total_cost_usd_limit" else 1
    return min(int(Decimal(str(value)) * factor), MOST)


PREFIX = "budget:"
_COUNTED: Mapping[str, tuple[str, str]] = {
    "total_cost_usd_limit": ("", "cost_micro_usd"),
    "total_tokens_limit": ("/tokens", "total_tokens"),
    "requests_limit": ("/requests", "requests"),
}
"""The limits of a rule: the end of the counter's name, and the field of a usage that it counts."""
LIMITS = tuple(_COUNTED)
"""The limits that a rule may have, by their names in `UsageLimits`."""
_AMOUNT_OF = {end.removeprefix("/"): amount for end, amount in _COUNTED.values()}
