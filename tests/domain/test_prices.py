"""Prices of a project: which of them counts for a model, and what a request costs."""

from __future__ import annotations

from decimal import Decimal

import pytest

from flujo.domain.prices import Price, price_of

CHEAP, DEAR, EXACT = (Price(input_mtok=each, output_mtok=each) for each in (1, 2, 3))


@pytest.mark.parametrize(
    ("model", "price"),
    [
        ("kennel:rex", EXACT),
        ("kennel:rex-2", DEAR),
        ("kennel:bella", CHEAP),
        ("kennels:rex", None),
        ("openai:gpt-5-mini", None),
    ],
)
def test_the_name_counts_before_the_longest_pattern(model: str, price: Price | None) -> None:
    prices = {"kennel:*": CHEAP, "kennel:rex*": DEAR, "kennel:rex": EXACT}
    assert price_of(model, prices) is price


@pytest.mark.parametrize(
    ("price", "cost"),
    [
        (Price(input_mtok=2, output_mtok=8), "0.0028"),
        (Price(input_mtok=2, output_mtok=8, cached_input_mtok=0.5), "0.0022"),
        (Price(input_mtok=2, output_mtok=8, cached_input_mtok=0.5, cache_write_mtok=3), "0.0023"),
        (Price(input_mtok=0, output_mtok=0), "0"),
    ],
)
def test_tokens_of_the_cache_have_their_own_price_where_it_is_set(price: Price, cost: str) -> None:
    found = price.cost_usd(input_tokens=1000, output_tokens=100, cached=400, written=100)
    assert found == Decimal(cost)
