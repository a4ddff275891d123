"""RE2 matches users' patterns in the notations of JSON Schema and Python."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.json_schema.re2_patterns import PatternRefused, is_found


@pytest.mark.parametrize(
    "pattern", [r"(?=x)", r"(?<!x)y", r"(a)\1", "a++", "a{1001}", "(a{1,100}){1,100}", "("]
)
def test_a_pattern_that_cannot_be_linear_is_refused(pattern: str) -> None:
    with pytest.raises(PatternRefused):
        is_found(pattern, "")


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"^\d{4}\Z", "2026", True),
        (r"\u00e9$", "caf\u00e9", True),
        (r"\\u00e9", "\u00e9", False),
        ("^ok$", "ok\0 and more", False),
        ("more", "ok\0 and more", True),
        ("^ok$", "ok\n", False),
        ("^.$", "\ud800", True),
        ("^[\U0001f600]$", "\U0001f600", True),
        ("", "", True),
        ("a\0", "a\0b", True),
    ],
)
def test_notations_of_json_schema_and_python_have_their_own_meaning(
    pattern: str, text: str, found: bool
) -> None:
    assert is_found(pattern, text) is found


@given(st.from_regex(r"(a|b|\.|\[ab\]|\[\^a\]){1,4}[?*+]?[ab]?", fullmatch=True), st.text("ab", max_size=6))
def test_a_pattern_that_python_accepts_matches_as_in_python(pattern: str, text: str) -> None:
    assert is_found(pattern, text) is (re.search(pattern, text) is not None)
