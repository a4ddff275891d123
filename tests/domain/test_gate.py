"""The gate: what two versions' scores of the same cases prove, and when they prove nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flujo.domain.gate import (
    BATCH,
    MARGIN,
    WORSE_ERROR,
    Verdict,
    decide,
    interval,
    judge,
)

differences = st.lists(st.floats(-1, 1), max_size=60)
margins = st.floats(0, 0.5)


def test_without_pairs_the_gate_cannot_tell() -> None:
    found = judge([])
    assert (found.verdict, found.pairs, found.mean, found.more) == (Verdict.CANNOT_TELL, 0, 0.0, None)
    assert (found.low, found.high) == (-1, 1)


def test_equal_scores_of_many_cases_are_equal() -> None:
    found = decide([0.0] * 200)
    assert found.verdict is Verdict.BETTER_OR_EQUAL
    assert found.pairs == 90  # it stopped there


def test_equal_scores_of_few_cases_prove_nothing_and_the_number_of_missing_ones_is_estimated() -> None:
    found = judge([0.0] * 30)
    assert found.verdict is Verdict.CANNOT_TELL
    assert found.more is not None
    assert decide([0.0] * (30 + found.more)).verdict is Verdict.BETTER_OR_EQUAL


@pytest.mark.parametrize(("change", "verdict"), [(-1.0, Verdict.WORSE), (1.0, Verdict.BETTER_OR_EQUAL)])
def test_a_plain_difference_is_decided_by_the_first_batch(change: float, verdict: Verdict) -> None:
    found = decide([change] * 100)
    assert (found.verdict, found.pairs, found.more) == (verdict, BATCH, None)


def test_a_loss_within_the_margin_is_not_worse() -> None:
    assert decide([-0.04] * 2000, margin=0.05).verdict is Verdict.BETTER_OR_EQUAL
    assert decide([-0.06] * 2000, margin=0.05).verdict is Verdict.WORSE


def test_several_evaluators_share_the_chance_of_a_wrong_worse() -> None:
    at = next(n for n in range(1, 50) if judge([-0.5] * n).verdict is Verdict.WORSE)
    assert judge([-0.5] * at, evaluators=20).verdict is Verdict.CANNOT_TELL


@given(differences, margins, st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_order_of_the_pairs_does_not_matter(
    values: list[float], margin: float, shuffle: random.Random
) -> None:
    mixed = list(values)
    shuffle.shuffle(mixed)
    assert judge(mixed, margin) == judge(values, margin)


@given(differences, margins)
@settings(max_examples=60, deadline=None)
def test_a_version_cannot_be_worse_than_the_other_both_ways(values: list[float], margin: float) -> None:
    one, other = judge(values, margin), judge([-each for each in values], margin)
    assert {one.verdict, other.verdict} != {Verdict.WORSE}
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-5)


@given(differences)
@settings(max_examples=60, deadline=None)
def test_the_interval_holds_the_mean_and_lies_within_the_bounds(values: list[float]) -> None:
    found = judge(values)
    assert -1 <= found.low <= found.mean + 1e-5
    assert found.mean - 1e-5 <= found.high <= 1


@given(st.lists(st.floats(0, 1), max_size=60))
@settings(max_examples=40, deadline=None)
def test_the_interval_of_scores_lies_within_0_and_1(scores: list[float]) -> None:
    low, high = interval(scores)
    assert 0 <= low <= high <= 1


def test_a_version_compared_with_itself_is_worse_in_at_most_the_promised_part() -> None:
    rng = random.Random(18)
    wrong = 0
    for _ in range(500):
        pairs = [float(rng.random() < 0.8) - float(rng.random() < 0.8) for _ in range(60)]
        wrong += decide(pairs, MARGIN).verdict is Verdict.WORSE
    assert wrong <= 500 * WORSE_ERROR
