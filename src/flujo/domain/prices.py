"""Prices of models that a project sets itself: contracts of its own, and servers that it operates."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

ANY = "*"
"""At the end of a name: all models whose names begin with the rest."""
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a model costs in US dollars for a million tokens."""

    input_mtok: float
    output_mtok: float
    cached_input_mtok: float | None = None
    """Of input that the provider read from its cache; None: as other input."""
    cache_write_mtok: float | None = None
    """Of input that the provider wrote to its cache; None: as other input."""

    def cost_usd(
        self, *, input_tokens: int, output_tokens: int, cached: int = 0, written: int = 0
    ) -> Decimal:
        """Return the cost of a request in US dollars.

        Args:
            input_tokens: all tokens of the input, also those of the cache.
            output_tokens: the tokens of the answer.
            cached: how many tokens of the input were read from the provider's cache.
            written: how many of them were written to it.
        """
        parts = (
            (max(0, input_tokens - cached - written), self.input_mtok),
            (cached, self.input_mtok if self.cached_input_mtok is None else self.cached_input_mtok),
            (written, self.input_mtok if self.cache_write_mtok is None else self.cache_write_mtok),
            (output_tokens, self.output_mtok),
        )
        return sum((tokens * Decimal(str(price)) for tokens, price in parts), Decimal()) / _MILLION

    def to_json(self) -> dict[str, Any]:
        """Return the prices that are set, for the lock."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}


def price_of(model: str, prices: Mapping[str, Price]) -> Price | None:
    """Return the price of `provider:model`: that of its name, or of the longest name with `*` that fits."""
    if model in prices:
        return prices[model]
    fitting = [name for name in prices if name.endswith(ANY) and model.startswith(name.removesuffix(ANY))]
    return prices[max(fitting, key=len)] if fitting else None
