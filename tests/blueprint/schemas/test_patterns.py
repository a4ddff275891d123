"""Patterns that may take exponential time are refused; common ones are accepted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.blueprint.schemas.patterns import pattern_problem


@pytest.mark.parametrize(
    "pattern",
    [
        "^(a+)+$", "(a*)*", "(a|a)*", "(a|aa)+", "((a+))+", "(.*)*", "(a+b?)+", "([a-z]+)*$", "(a?a?)*", r"(\w+\s?)*",
        "(a{1,20}){50}", "(?:a+)+", "(?P<n>a+)+", "(a+){2,}", r"([^,]+,?)+", "(a|b|ab)*", "(x(a+)y?)*z",
    ],
)  # fmt: skip
def test_a_nested_quantifier_is_refused(pattern: str) -> None:
    assert "nested quantifier" in str(pattern_problem(pattern))


@pytest.mark.parametrize(
    "pattern",
    [
        "^a+$", "^[a-z0-9]+(-[a-z0-9]+)*$", r"^([a-z]+\.)+[a-z]+$", "^(foo|bar)+$", r"^\d{4}-\d{2}$", "(a|b)*",
        r"^https?://\S+$", "(ab)+", "[+*]+", r"(\d{3})+", r"^[A-Z]{2}(\d{2})+$", "[(]+[)]+", "(/[^/]+)*", "",
        r"^\(\d+\)$", "(a+)?", "(a+){3}", "[[a]", r"^caf\u00e9\Z",
    ],
)  # fmt: skip
def test_common_patterns_are_accepted(pattern: str) -> None:
    assert pattern_problem(pattern) is None


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(", "compile"),
        ("a" * 1_001, "1000"),
        ("*", "compile"),
        (r"^(?=.*\d).{8,}$", "RE2"),
        (r"(a)\1", "RE2"),
    ],
)
def test_a_refused_pattern_has_a_reason(pattern: str, words: str) -> None:
    assert words in str(pattern_problem(pattern))


@given(st.text(st.sampled_from("ab()[]{}|*+?\\.^$,1-P<=!:"), max_size=30))
def test_any_text_is_accepted_or_refused(pattern: str) -> None:
    problem = pattern_problem(pattern)
    assert problem is None or problem.isprintable()
