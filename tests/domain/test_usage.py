"""Usage: sums that never turn an unknown price into zero."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flujo.domain.usage import MOST, NOTHING, Usage

usages = st.builds(Usage, *[st.integers(0, 1000) for _ in range(6)])


@given(usages, usages, usages)
def test_sums_do_not_depend_on_the_order(a: Usage, b: Usage, c: Usage) -> None:
    assert (a + b) + c == c + (b + a)


@given(usages)
def test_usage_survives_the_journal(usage: Usage) -> None:
    assert Usage.from_json(usage.to_json()) == usage


def test_a_sum_stops_at_the_largest_integer_of_the_journal_and_at_zero() -> None:
    absurd = NOTHING + Usage(input_tokens=10**30, output_tokens=-5, cost_micro_usd=MOST)
    assert absurd == Usage(input_tokens=MOST, cost_micro_usd=MOST)
    assert absurd + absurd == absurd


def test_one_unknown_price_makes_the_whole_cost_unknown() -> None:
    known = Usage(requests=1, cost_micro_usd=1_500_000)
    assert known.cost_usd == 1.5
    assert (known + Usage(requests=1, unpriced_requests=1)).cost_usd is None


def test_nothing_used_costs_nothing_and_is_false() -> None:
    assert not NOTHING
    assert NOTHING.cost_usd == 0
    assert Usage(requests=1)
