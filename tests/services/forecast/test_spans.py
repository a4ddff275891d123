"""Spans hold every number that the operations on their ends hold."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from flujo.services.forecast.spans import Span, any_of, total

SPANS = st.builds(
    lambda least, more: Span(least, None if more is None else least + more),
    st.integers(0, 50),
    st.none() | st.integers(0, 50),
)


def _ends(span: Span) -> list[int]:
    return [span.least, span.least + 7 if span.most is None else span.most]


def _holds(span: Span, number: int) -> bool:
    return span.least <= number and (span.most is None or number <= span.most)


@given(SPANS, SPANS, st.integers(0, 80))
def test_the_result_holds_every_result_of_numbers_in_the_spans(one: Span, other: Span, limit: int) -> None:
    for a in _ends(one):
        assert _holds(one.or_nothing(), a)
        assert _holds(one.or_nothing(), 0)
        assert _holds(one.within(limit), min(a, limit))
        assert _holds(any_of([one, other]), a)
        for b in _ends(other):
            assert _holds(one + other, a + b)
            assert _holds(total([one, other, one]), a + b + a)
            assert _holds(one.times(other), a * b)
