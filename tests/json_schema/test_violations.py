"""Each violation names the field, its expected value, and the value that came."""

from __future__ import annotations

from typing import Any

import pytest

from flujo.json_schema.validator import Validator

LAMP = {
    "type": "object",
    "properties": {"kind": {"const": "lamp"}, "watts": {"type": "integer"}},
    "required": ["watts"],
}
BOOK = {
    "type": "object",
    "properties": {"kind": {"enum": ["book"]}, "pages": {"type": "integer"}},
    "required": ["pages"],
}


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        (
            {"properties": {"n": {"type": "integer"}}},
            {"n": "three"},
            ["`n` must be `integer`, not a text: 'three'"],
        ),
        ({"type": "object"}, ["a", "b"], ["the value must be `object`, not a list of 2 items"]),
        ({"type": "string"}, {"text": "a"}, ["the value must be `string`, not a mapping with `text`"]),
        ({"enum": ["refund", "bug"]}, "praise", ["the value must be one of 'refund', 'bug', not 'praise'"]),
        ({"required": ["a", "b", "c"]}, {"b": 1}, ["the value lacks `a` and `c`"]),
        (
            {"properties": {"n": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}},
            {"n": "three"},
            ["`n` must be `integer` or `null`, not a text: 'three'"],
        ),
        ({"anyOf": [LAMP, {"type": "null"}]}, {"watts": "x"}, ["`watts` must be `integer`, not a text: 'x'"]),
        (
            {"oneOf": [LAMP, BOOK]},
            {"kind": "book", "pages": 1.5},
            ["`pages` must be `integer`, not a number: 1.5"],
        ),
        (
            {"anyOf": [LAMP, BOOK]},
            {"kind": "cup"},
            ["the value must be `object with watts` or `object with pages`, not a mapping with `kind`"],
        ),
        (
            {"$defs": {"lamp": LAMP}, "items": {"anyOf": [{"$ref": "#/$defs/lamp"}, {"type": "string"}]}},
            [{"watts": None}],
            ["`[0].watts` must be `integer`, not null"],
        ),
        (
            {"oneOf": [{"type": "integer"}, {"type": "number"}]},
            3,
            ["the value fits more than one of `integer` or `number`"],
        ),
        (
            {"oneOf": [{}, {"properties": {}}]},
            {},
            ["the value fits more than one of `a value` or `object`"],
        ),
        (
            {"oneOf": [{"properties": {}}, {"properties": {"a": True}}]},
            {},
            ["the value fits more than one of `object`"],
        ),
        (
            {"anyOf": [{"const": 1}, {"enum": ["a", "b"]}]},
            "c",
            ["the value must be `1` or `'a' | 'b'`, not a text: 'c'"],
        ),
    ],
)
def test_a_sentence_names_the_place_the_expected_and_the_actual_value(
    schema: Any, value: Any, expected: list[str]
) -> None:
    assert list(Validator(schema).violations(value)) == expected
