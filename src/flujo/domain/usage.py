"""What a model call used and cost: sums that never turn an unknown price into zero."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MICRO_USD = 1_000_000
"""Costs are integers of a millionth of a dollar, so that sums are exact."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, requests and cost; `unpriced_requests` counts those whose price nobody knows."""

    input_tokens: int = 0
    output_tokens: int = 0
    requests: int = 0
    tool_calls: int = 0
    cost_micro_usd: int = 0
    unpriced_requests: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.requests + other.requests,
            self.tool_calls + other.tool_calls,
            self.cost_micro_usd + other.cost_micro_usd,
            self.unpriced_requests + other.unpriced_requests,
        )

    def __bool__(self) -> bool:
        return self != NOTHING

    @property
    def total_tokens(self) -> int:
        """Tokens in and out."""
        return self.input_tokens + self.output_tokens

    @property
    def cost_usd(self) -> float | None:
        """The cost in US dollars, or None when any request's price is unknown."""
        return None if self.unpriced_requests else self.cost_micro_usd / MICRO_USD

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are not zero: what the journal keeps."""
        return {name: getattr(self, name) for name in self.__slots__ if getattr(self, name)}

    @classmethod
    def from_json(cls, data: dict[str, Any] | None) -> Usage:
        """Return the usage that `to_json` wrote."""
        return cls(**data) if data else NOTHING


NOTHING = Usage()
