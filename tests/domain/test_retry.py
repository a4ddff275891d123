"""Delays between attempts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flujo.domain.retry import RetryPolicy


@given(st.integers(1, 50), st.floats(0, 1, exclude_max=True))
def test_a_delay_stays_between_zero_and_the_cap_with_its_jitter(failures: int, chance: float) -> None:
    policy = RetryPolicy(initial_s=0.5, factor=2, max_s=30, jitter=0.2)
    assert 0 <= policy.delay_s(failures, chance) <= 30 * 1.2


def test_delays_double_until_the_cap() -> None:
    policy = RetryPolicy(initial_s=1, factor=2, max_s=5, jitter=0)
    assert [policy.delay_s(n, 0.5) for n in range(1, 6)] == [1, 2, 4, 5, 5]


def test_fixed_delays_stay_and_none_do_not_wait() -> None:
    assert [RetryPolicy(backoff="fixed", initial_s=3, jitter=0).delay_s(n, 0) for n in (1, 9)] == [3, 3]
    assert RetryPolicy(backoff="none").delay_s(4, 0.9) == 0


def test_the_other_side_may_ask_for_a_longer_delay_up_to_the_cap() -> None:
    policy = RetryPolicy(backoff="fixed", initial_s=2, max_s=10, jitter=0)
    asked = [policy.delay_s(1, 0, asked_s=seconds) for seconds in (None, 0.0, 1.0, 7.0, 3600.0)]
    assert asked == [2, 2, 2, 7, 10]
