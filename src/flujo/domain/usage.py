"""Usage and cost of model calls, and the limits of runs. An unknown price never counts as zero."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any, Literal

from flujo.exceptions import SettingsError

MICRO_USD = 1_000_000
"""Costs are integers in millionths of a dollar, so that sums are exact."""

MOST = 2**63 - 1
"""The largest count: the journal holds integers of 64 bits. Sums stop there, and at zero."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, requests and cost; `unpriced_requests` counts those of unknown price."""

    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    tool_calls: int = 0
    cost_micro_usd: int = 0
    unpriced_requests: int = 0

    def __add__(self, other: Usage) -> Usage:
        if other is NOTHING:  # the usual case: only agents have usage
            return self
        return Usage(
            _sum(self.input_tokens, other.input_tokens),
            _sum(self.output_tokens, other.output_tokens),
            _sum(self.requests, other.requests),
            _sum(self.tool_calls, other.tool_calls),
            _sum(self.cost_micro_usd, other.cost_micro_usd),
            _sum(self.unpriced_requests, other.unpriced_requests),
        )

    def __bool__(self) -> bool:
        return self is not NOTHING and self != NOTHING

    def beyond(self, other: Usage) -> Usage:
        """Return the difference to `other`, field by field and never below zero."""
        more = {name: max(0, getattr(self, name) - getattr(other, name)) for name in self.__slots__}
        return Usage(**more)

    @property
    def total_tokens(self) -> int:
        """Tokens in and out."""
        return self.input_tokens + self.output_tokens

    @property
    def cost_usd(self) -> float | None:
        """The cost in US dollars, or None when any request's price is unknown."""
        return None if self.unpriced_requests else self.cost_micro_usd / MICRO_USD

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are not zero, for the journal."""
        return {name: getattr(self, name) for name in self.__slots__ if getattr(self, name)}

    @classmethod
    def from_json(cls, data: dict[str, Any] | None) -> Usage:
        """Return the usage that `to_json` wrote."""
        return NOTHING if data is None else cls(**data)


NOTHING = Usage()


def _sum(one: int, other: int) -> int:
    return max(0, min(one + other, MOST))


UnknownPrice = Literal["refuse", "allow"]


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageLimits:
    """The limits of a run, over all its executions. None means no limit.

    Args:
        total_cost_usd_limit: US dollars, for all models together.
        total_tokens_limit: tokens in and out.
        requests_limit: requests to models.
        tool_calls_limit: tool calls of models.
        wall_time_s_limit: seconds of work, without waiting for a human.
        unknown_price: under a cost limit, whether requests to a model of unknown price are refused, or
            allowed and their cost reported as unknown.

    Raises:
        SettingsError: a limit is not a number above zero, or `unknown_price` is not `refuse` or `allow`.
    """

    total_cost_usd_limit: float | None = None
    total_tokens_limit: int | None = None
    requests_limit: int | None = None
    tool_calls_limit: int | None = None
    wall_time_s_limit: float | None = None
    unknown_price: UnknownPrice = "refuse"

    def __post_init__(self) -> None:
        for name, limit in self.given():
            if not _is_limit(name, limit):
                kind = "a number" if name in _FRACTIONS else "a whole number"
                raise SettingsError(
                    f"`{name}` is {limit!r}; a limit must be {kind} above 0",
                    hint="for no limit, leave it out",
                )
        if self.unknown_price not in ("refuse", "allow"):
            raise SettingsError(f"`unknown_price` is {self.unknown_price!r}; it must be `refuse` or `allow`")

    def __bool__(self) -> bool:
        return any(True for _ in self.given())

    @property
    def count(self) -> bool:
        """Whether requests need a reservation: anything other than time is limited."""
        return any(name != "wall_time_s_limit" for name, _ in self.given())

    @property
    def bound_answers(self) -> bool:
        """Whether the length of answers must be limited."""
        return self.total_cost_usd_limit is not None or self.total_tokens_limit is not None

    @property
    def refuses_unpriced(self) -> bool:
        """Whether requests of unknown price are refused."""
        return self.total_cost_usd_limit is not None and self.unknown_price == "refuse"

    @property
    def most(self) -> Usage:
        """The largest usage that the limits allow; what has no limit counts as nothing."""
        return Usage(
            output_tokens=self.total_tokens_limit or 0,
            requests=self.requests_limit or 0,
            tool_calls=self.tool_calls_limit or 0,
            cost_micro_usd=int(Decimal(str(self.total_cost_usd_limit or 0)) * MICRO_USD),
        )

    def given(self) -> Iterator[tuple[str, float]]:
        """Yield the limits that are set, by name."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_limit") and value is not None:
                yield field.name, value

    def passed_by(self, spent: Usage, more: Usage) -> str | None:
        """Return the name of the first limit that `more` would exceed, or None."""
        total = spent + more
        for name, limit in self.given():
            if name in _AMOUNTS and amount(name, more) and amount(name, total) > Decimal(str(limit)):
                return name
        return None


_FRACTIONS = ("total_cost_usd_limit", "wall_time_s_limit")
_AMOUNTS = {
    "total_cost_usd_limit": "cost_micro_usd",
    "total_tokens_limit": "total_tokens",
    "requests_limit": "requests",
    "tool_calls_limit": "tool_calls",
}

_UNITS = {
    "total_tokens_limit": "token",
    "requests_limit": "request",
    "tool_calls_limit": "tool call",
}


def _is_limit(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, float):
        return name in _FRACTIONS and math.isfinite(value) and value > 0
    return isinstance(value, int) and value > 0


def amount(limit: str, used: Usage) -> Decimal:
    """Return the exact amount of `used` that counts toward a limit, in the limit's unit."""
    value = Decimal(getattr(used, _AMOUNTS[limit]))
    return value / MICRO_USD if limit == "total_cost_usd_limit" else value


def format_amount(limit: str, value: float | Decimal) -> str:
    """Return an amount toward a limit with its unit."""
    if limit == "total_cost_usd_limit":
        digits = f"{Decimal(str(value)):.6f}"
        return f"${digits[:-4]}{digits[-4:].rstrip('0')}"
    return f"{value:,.0f} {_UNITS[limit]}{'' if value == 1 else 's'}"


def uncovered(limits: UsageLimits | None, part: UsageLimits | None) -> tuple[str, ...]:
    """Return the limits on amounts for which a part has none of its own, or a larger one.

    `unknown_price` is among them when the part allows what the limits refuse. A limit on time is not.
    """
    if limits is None:
        return ()
    given = dict(part.given()) if part is not None else {}
    missing = [
        name
        for name, most in limits.given()
        if name in _AMOUNTS and (name not in given or given[name] > most)
    ]
    allows = part is not None and limits.refuses_unpriced and not part.refuses_unpriced
    return (*missing, "unknown_price") if allows and not missing else tuple(missing)


def tightest(*several: UsageLimits | None) -> UsageLimits | None:
    """Return the smallest of `several` limits by name; None when there are none."""
    all_given = [limits for limits in several if limits]
    lowest: dict[str, Any] = {}
    for limits in all_given:
        for name, limit in limits.given():
            lowest[name] = min(limit, lowest.get(name, limit))
    refuses = any(limits.refuses_unpriced for limits in all_given)
    allows = "total_cost_usd_limit" in lowest and not refuses
    return UsageLimits(**lowest, unknown_price="allow" if allows else "refuse") if lowest else None
