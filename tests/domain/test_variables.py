"""Variables in texts of flujo.toml."""

from __future__ import annotations

import pytest

from flujo.domain.variables import is_variable, variables


@pytest.mark.parametrize(
    ("text", "names", "is_one"),
    [
        ("${KEY}", ["KEY"], True),
        ("Bearer ${KEY_2}", ["KEY_2"], False),
        ("${USER}:${PASSWORD}", ["USER", "PASSWORD"], False),
        ("$KEY, ${2ND}, ${}, ${a-b}", [], False),
        ("${KEY}\n", ["KEY"], False),
    ],
)
def test_a_variable_is_a_name_in_braces(text: str, names: list[str], is_one: bool) -> None:
    assert (variables(text), is_variable(text)) == (names, is_one)
