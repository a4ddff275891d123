"""How many tokens a prompt has, from what is known before the run."""

from __future__ import annotations

from typing import Any

import pytest

from flujo.domain.values import Text
from flujo.services.forecast.prompts import UNKNOWN_TOKENS, Known, bytes_of_tokens, tokens_of
from flujo.services.forecast.spans import Span

KNOWN = Known(
    input={"who": "Ada" * 100, "rows": [1, 2, 3]},
    previous=bytes_of_tokens(50),
    outputs={"draft": bytes_of_tokens(50), "code": None},
)


@pytest.mark.parametrize(
    ("source", "bytes_"),
    [
        ("input.who", Span(300, 300)),
        ("input.rows[1]", Span(1, 1)),
        ("input.rows[7]", None),
        ("input.who + 'x'", None),
        ("previous", bytes_of_tokens(50)),
        ("previous.name", bytes_of_tokens(50).or_nothing()),
        ("steps.draft.output", bytes_of_tokens(50)),
        ("steps.code.output", None),
        ("context.name", None),
    ],
)
def test_the_length_of_a_value_is_known_where_it_can_be(source: str, bytes_: Span | None) -> None:
    assert KNOWN.bytes_of(source) == bytes_


def test_the_items_of_a_list_in_the_input_are_counted() -> None:
    assert KNOWN.count_of("input.rows") == Span(3, 3)
    assert KNOWN.count_of("input.who") is None
    assert Known().count_of("input.rows") is None


@pytest.mark.parametrize(
    ("value", "is_assumed"),
    [
        (Text("Good day, {{ input.who }}."), False),
        (Text("{{ context.name }}"), True),
        (Text("{{ context.name }}", literal=True), False),
        ({"a": Text("x"), "b": (Text("{{ item }}"), 3)}, True),
        (None, False),
    ],
)
def test_an_unknown_value_is_assumed_and_marked(value: Any, is_assumed: bool) -> None:
    tokens, assumed = tokens_of((value,), (), KNOWN)
    assert assumed == is_assumed
    assert tokens.most is not None
    assert (tokens.most >= UNKNOWN_TOKENS) == is_assumed


def test_the_tokens_of_a_text_are_between_six_and_two_bytes_each() -> None:
    alone, _ = tokens_of((), (), KNOWN)
    text, _ = tokens_of((Text("x" * 1200),), (), KNOWN)
    assert alone.most is not None
    assert text == Span(alone.least + 200, alone.most + 600)
