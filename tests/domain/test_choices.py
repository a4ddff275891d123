"""Choices from data in the schema of an answer: found in schemas, not in the data inside them."""

from __future__ import annotations

from typing import Any

from flujo.domain import choices
from flujo.domain.values import Expr

WRITTEN: dict[str, Any] = {
    "type": "object",
    "properties": {
        "one": {"enum": "{{ input.teams }}"},
        "two": {"type": "string", "enum": " {{ input.people }} "},
        "three": {"enum": ["{{ kept }}"]},
    },
    "anyOf": [{"default": {"enum": "{{ data }}"}}, {"items": {"enum": "text"}}],
}


def test_each_choice_from_data_is_an_expression_and_is_written_again() -> None:
    tree = choices.with_expressions(WRITTEN)
    assert tree["properties"]["one"] == {"enum": Expr("input.teams")}
    assert choices.with_expressions(tree) == tree
    assert choices.as_text(tree)["properties"]["two"] == {"type": "string", "enum": "{{ input.people }}"}
    assert list(choices.written(WRITTEN)) == [
        (("properties", "one", "enum"), "{{ input.teams }}"),
        (("properties", "two", "enum"), " {{ input.people }} "),
    ]


def test_until_the_question_is_opened_a_choice_is_text() -> None:
    known = choices.fixed(WRITTEN)
    assert known["properties"]["one"] == known["properties"]["two"] == {"type": "string"}
    assert known["anyOf"] is WRITTEN["anyOf"]
    plain = {"enum": [1]}
    assert choices.fixed(plain) is plain


def test_the_schema_of_an_open_question_has_the_lists() -> None:
    opened = choices.asked(choices.with_expressions(WRITTEN), lambda each: [each.source])
    assert opened["properties"]["one"] == {"enum": ["input.teams"]}
    assert opened["properties"]["three"] == {"enum": ["{{ kept }}"]}
