"""The price of a request that is not made yet: of the project, of a local model, or of the public list."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pydantic_ai.messages import ModelResponse
from pydantic_ai.usage import RequestUsage

from flujo.agents.local_model import DEFAULTS
from flujo.domain.prices import price_of
from flujo.domain.usage import MICRO_USD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flujo.domain.prices import Price
    from flujo.domain.providers import NamedProvider

_SYSTEMS = {"openai-chat": "openai", "openai-responses": "openai"}
"""Names of providers here → in the public list, where they differ."""


def expected_cost(
    model: str,
    tokens: tuple[int, int],
    *,
    prices: Mapping[str, Price],
    providers: Mapping[str, NamedProvider],
) -> int | None:
    """Return the cost of a request in millionths of a dollar; None if its price is unknown.

    Args:
        model: `provider:model`.
        tokens: those of the input and of the answer.
        prices: the prices that the project sets.
        providers: the providers that the project names. One with an address of its own is not in the list.
    """
    read, answered = tokens
    own = price_of(model, prices)
    if own is not None:
        return math.ceil(own.cost_usd(input_tokens=read, output_tokens=answered) * MICRO_USD)
    provider, _, name = model.partition(":")
    if provider == "local":
        return 0
    named = providers.get(provider)
    if named is not None:
        if named.base_url is not None:
            return None
        provider = named.kind
    asked = ModelResponse(
        parts=[],
        usage=RequestUsage(input_tokens=read, output_tokens=answered),
        model_name=name,
        provider_name=_SYSTEMS.get(provider, provider),
    )
    try:
        return math.ceil(asked.cost().total_price * MICRO_USD)
    except (LookupError, ValueError, AssertionError):
        return None


def longest_answer(model: str, settings: Mapping[str, object]) -> int | None:
    """Return the greatest number of tokens of an answer; None if nothing limits it."""
    limit = settings.get("max_tokens")
    if isinstance(limit, int) and limit > 0:
        return limit
    return int(DEFAULTS["max_tokens"]) if model.startswith("local:") else None
