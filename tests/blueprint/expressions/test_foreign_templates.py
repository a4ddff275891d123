"""Placeholders of other languages in a text, and the expression that is probably meant."""

from __future__ import annotations

import pytest

from flujo.blueprint.expressions.type_checker import check_text
from flujo.blueprint.schemas.algebra import NUMBER, STRING, closed

SCOPE = closed(
    {
        "input": closed({"note": STRING, "price": NUMBER}),
        "steps": closed({"sort": closed({"output": closed({"label": STRING})})}),
        "item": STRING,
    }
)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("a {note} b", "{{ input.note }}"),
        ("a ${ note } b", "{{ input.note }}"),
        ("a {input.note} b", "{{ input.note }}"),
        ("a {item} b", "{{ item }}"),
        ("a {sort} b", "{{ steps.sort.output }}"),
        ("a ${sort.label} b", "{{ steps.sort.output.label }}"),
        ("a ${other} b", "{{ input.NAME }}"),
        ("a ${{ input.note }} b", "remove the `$`"),
    ],
)
def test_a_placeholder_that_stays_in_the_text_is_a_warning(text: str, meant: str) -> None:
    (problem,) = check_text(text, SCOPE).problems
    assert (problem.severity, problem.slug) == ("warning", "foreign-template")
    assert meant in (problem.hint or "")
    assert text[problem.start : problem.end].startswith(("{", "${"))


@pytest.mark.parametrize(
    "text",
    [
        '{"note": 1}',
        "{other}",
        "{ note, price }",
        "$5 for ${{ input.price }}",
        "{{ input.note }}",
        '{{ "${note}" }}',
        "{input.other}",
    ],
)
def test_other_braces_are_text(text: str) -> None:
    assert check_text(text, SCOPE).problems == ()
