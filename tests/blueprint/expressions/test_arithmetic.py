"""Arithmetic with an int and a float, in expressions as a run evaluates them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.blueprint.expressions.arithmetic import FUNCTIONS, compute
from flujo.blueprint.expressions.evaluators import compile_expression
from flujo.exceptions import ExpressionFailed


def value(source: str, **names: Any) -> Any:
    return compile_expression(source)(lambda chain: names[chain[0]])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("i * 1.5", 4.5),
        ("f + i", 5.5),
        ("i - f", 0.5),
        ("i / f", 1.2),
        ("f / i", 2.5 / 3),
        ("[1, 2].map(n, n * f)", [2.5, 5.0]),
        ("f * i > 7.0 && '_*_' + '_+_' == '_*__+_'", True),
        ("i / 2 + f", 3.5),
        ("'a' + 'b' == 'ab' ? f * i : 0.0", 7.5),
        ("([i] + [f]).map(n, n * f)", [7.5, 6.25]),
        ("loop * 1.5", 6.0),
    ],
)
def test_an_int_beside_a_float_counts_as_a_float(source: str, expected: Any) -> None:
    result = value(source, i=3, f=2.5, loop=4)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("f * i + 'a'", "`+` does not take a number with a fraction and text"),
        ("f * i % 2", "`%` does not take a number with a fraction and a whole number"),
        ("f * (i / 0)", "divides by zero"),
        ("f * (i % 0)", "divides by zero"),
        ("f * (big + i)", "64 bits"),
        ("f / 0", "not a finite number"),
        ("big2 * i", "64 bits"),
    ],
)
def test_mixed_arithmetic_that_has_no_value_says_why(source: str, reason: str) -> None:
    with pytest.raises(ExpressionFailed) as failed:
        value(source, i=3, f=2.5, big=2**63 - 1, big2=2**63)
    assert reason in failed.value.message


INTEGERS = st.one_of(st.integers(-9, 9), st.integers(-(2**63), 2**63 - 1))


@given(st.sampled_from(sorted(FUNCTIONS)), INTEGERS, INTEGERS)
def test_integers_are_computed_as_cel_computes_them(operator: str, left: int, right: int) -> None:
    try:
        expected: Any = value(f"a {operator.strip('_')} b", a=left, b=right)
    except ExpressionFailed:
        with pytest.raises(ArithmeticError):
            compute(operator, left, right)
        return
    assert compute(operator, left, right) == expected


@given(st.sampled_from(sorted(set(FUNCTIONS) - {"_%_"})), st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_floats_are_computed_as_cel_computes_them(operator: str, left: float, right: float) -> None:
    result = compute(operator, left, right)
    if math.isfinite(result):
        assert value(f"a {operator.strip('_')} b", a=left, b=right) == result
