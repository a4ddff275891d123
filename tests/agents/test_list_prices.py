"""The price of a request that is not made yet."""

from __future__ import annotations

import pytest

from flujo.agents.list_prices import expected_cost, longest_answer
from flujo.domain.prices import Price
from flujo.domain.providers import NamedProvider

PRICES = {"kennel:rex": Price(input_mtok=1, output_mtok=2), "local:big": Price(input_mtok=5, output_mtok=5)}
PROVIDERS = {
    "kennel": NamedProvider(name="kennel", kind="openai-chat", base_url="http://127.0.0.1:9/v1"),
    "openai": NamedProvider(name="openai", kind="openai-chat"),
}


@pytest.mark.parametrize(
    ("model", "cost"),
    [
        ("kennel:rex", 1_000_000 + 2_000_000),
        ("kennel:other", None),
        ("local:smollm2", 0),
        ("local:big", 10_000_000),
        ("openai-chat:gpt-4o-mini", 150_000 + 600_000),
        ("openai:gpt-4o-mini", 150_000 + 600_000),
        ("openai:in-house-7", None),
        ("nobody:gpt-4o-mini", None),
    ],
)
def test_the_price_of_the_project_comes_before_the_list(model: str, cost: int | None) -> None:
    found = expected_cost(model, (1_000_000, 1_000_000), prices=PRICES, providers=PROVIDERS)
    assert found == cost


def test_an_answer_is_bounded_by_its_setting_or_that_of_local_models() -> None:
    assert longest_answer("openai:gpt-5-mini", {"max_tokens": 7}) == 7
    assert longest_answer("openai:gpt-5-mini", {}) is None
    assert longest_answer("local:smollm2", {}) == 512
