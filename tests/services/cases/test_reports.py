"""A comparison of several evaluators: one is enough to be worse, all are needed to be better or equal."""

from __future__ import annotations

import pytest

from flujo.domain.gate import Verdict
from flujo.services.cases.reports import Comparison, compared

Scores = dict[str, float]


def compare(pairs: list[tuple[Scores, Scores]], price: float | None = 0.01) -> Comparison:
    return compared(pairs, ["polite", "right"], 0.05, against="main", price=price)


EQUAL = ({"polite": 1.0, "right": 1.0}, {"polite": 1.0, "right": 1.0})
LESS_RIGHT = ({"polite": 1.0, "right": 0.0}, {"polite": 1.0, "right": 1.0})


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        ([EQUAL] * 200, Verdict.BETTER_OR_EQUAL),
        ([LESS_RIGHT] * 200, Verdict.WORSE),
        ([EQUAL] * 20, Verdict.CANNOT_TELL),
        ([], Verdict.CANNOT_TELL),
    ],
)
def test_the_verdict_is_that_of_all_evaluators(pairs: list[tuple[Scores, Scores]], verdict: Verdict) -> None:
    assert compare(pairs).verdict is verdict


def test_an_undecided_comparison_says_how_many_cases_it_needs_and_what_they_cost() -> None:
    found = compare([EQUAL] * 20)
    assert found.more is not None
    assert found.more_usd == pytest.approx(found.more * 0.01)
    assert compare([EQUAL] * (20 + found.more)).verdict is Verdict.BETTER_OR_EQUAL
    assert compare([EQUAL] * 20, price=None).more_usd is None


def test_pairs_without_two_scores_leave_the_denominator() -> None:
    without: list[tuple[Scores, Scores]] = [({}, EQUAL[1])] * 5
    found = compare([*without, *[LESS_RIGHT] * 30])
    assert (found.left_out, found.by_evaluator["right"].mean) == (5, -1.0)
