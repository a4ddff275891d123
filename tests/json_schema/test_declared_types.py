"""Numbers take the types that a schema declares, at any depth and through all of its keywords."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.blueprint.schemas.validator import compile_schema
from flujo.domain import canonical

NUMBER, WHOLE, TEXT = {"type": "number"}, {"type": "integer"}, {"type": "string"}
MAYBE = {"anyOf": [NUMBER, {"type": "null"}]}
TREE: Any = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"x": NUMBER, "below": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
        }
    },
}


def declared(schema: Any, value: Any) -> bytes:
    return canonical.encode(compile_schema(schema).check(value, what="value"))


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        (NUMBER, 3, b"3.0"),
        (NUMBER, 3.5, b"3.5"),
        (NUMBER, -0.0, b"-0.0"),
        (WHOLE, 3.0, b"3"),
        (WHOLE, -0.0, b"0"),
        ({}, 3, b"3"),
        ({"minimum": 1}, 3, b"3"),
        ({"type": ["integer", "number"]}, 3, b"3"),
        ({"type": ["number", "integer"]}, 3.0, b"3.0"),
        ({"type": ["number", "null"]}, 3, b"3.0"),
        ({"type": ["number", "string"]}, "3", b'"3"'),
        ({"type": ["number", "boolean"]}, True, b"true"),
        ({"type": ["integer", "boolean"]}, 1.0, b"1"),
        (MAYBE, 3, b"3.0"),
        (MAYBE, None, b"null"),
        ({"anyOf": [WHOLE, NUMBER]}, 3, b"3"),
        ({"anyOf": [WHOLE, NUMBER]}, 3.0, b"3.0"),
        ({"anyOf": [TEXT, WHOLE]}, 3.0, b"3"),
        ({"oneOf": [NUMBER, TEXT]}, 3, b"3.0"),
        ({"oneOf": [{**WHOLE, "maximum": 5}, {**NUMBER, "minimum": 6}]}, 8, b"8.0"),
        ({"oneOf": [{**WHOLE, "maximum": 5}, {**NUMBER, "minimum": 6}]}, 3.0, b"3"),
        ({"allOf": [NUMBER, WHOLE]}, 3.0, b"3"),
        ({"allOf": [WHOLE, NUMBER]}, 3.0, b"3"),
        ({"allOf": [NUMBER, {"minimum": 1}]}, 3, b"3.0"),
        ({"const": 3}, 3.0, b"3"),
        ({"enum": [0.5, 1.0]}, 1, b"1.0"),
        ({"enum": [1, 2]}, 2.0, b"2"),
        ({"enum": [1, 2], "type": "number"}, 2, b"2.0"),
        ({"if": {"minimum": 5}, "then": NUMBER, "else": WHOLE}, 7, b"7.0"),
        ({"if": {"minimum": 5}, "then": NUMBER, "else": WHOLE}, 3.0, b"3"),
        ({"$ref": "#/$defs/n", "$defs": {"n": NUMBER}}, 3, b"3.0"),
        ({"$ref": "#n", "$defs": {"n": {"$anchor": "n", **NUMBER}}}, 3, b"3.0"),
        ({"items": NUMBER}, [1, 2.5], b"[1.0,2.5]"),
        ({"prefixItems": [NUMBER, TEXT], "items": WHOLE}, [1, "a", 2.0], b'[1.0,"a",2]'),
        ({"properties": {"a": NUMBER}}, {"a": 1, "b": 1}, b'{"a":1.0,"b":1}'),
        ({"properties": {"a": TEXT}, "additionalProperties": NUMBER}, {"a": "x", "b": 1}, b'{"a":"x","b":1.0}'),
        ({"patternProperties": {"^n": NUMBER}, "additionalProperties": WHOLE}, {"n": 1, "m": 1.0}, b'{"m":1,"n":1.0}'),
        ({"dependentSchemas": {"a": {"properties": {"b": NUMBER}}}}, {"a": 1, "b": 1}, b'{"a":1,"b":1.0}'),
        ({"anyOf": [{"properties": {"k": {"const": "a"}, "v": NUMBER}}, {"properties": {"k": {"const": "b"}, "v": WHOLE}}]}, {"k": "b", "v": 2.0}, b'{"k":"b","v":2}'),
        ({"default": 3, **TEXT}, "3", b'"3"'),
        (TREE, {"x": 1, "below": [{"x": 2, "below": []}]}, b'{"below":[{"below":[],"x":2.0}],"x":1.0}'),
        # No digit is lost: a float cannot hold these.
        (NUMBER, 2**53 + 1, b"9007199254740993"),
        (NUMBER, 2**63 - 1, b"9223372036854775807"),
        (NUMBER, 2**53, b"9007199254740992.0"),
    ],
)  # fmt: skip
def test_a_number_takes_the_type_that_its_schema_declares(schema: Any, value: Any, expected: bytes) -> None:
    assert declared(schema, value) == expected


def test_a_value_that_has_its_types_is_not_copied() -> None:
    value = {"x": 1.0, "below": [{"x": 2.5}]}
    assert compile_schema(TREE).check(value, what="value") is value


def test_the_given_value_is_not_changed() -> None:
    value = {"x": 1, "below": [{"x": 2}]}
    compile_schema(TREE).check(value, what="value")
    assert canonical.encode(value) == b'{"below":[{"x":2}],"x":1}'


def test_nested_alternatives_take_no_exponential_time() -> None:
    schema: Any = {"$ref": "#/$defs/any", "$defs": {"any": {"anyOf": [NUMBER, {"type": "array", "items": {"$ref": "#/$defs/any"}}]}}}  # fmt: skip
    value: Any = 3
    for _ in range(60):
        value = [value, 1]
    assert b"3.0" in declared(schema, value)


SCHEMAS = st.recursive(
    st.sampled_from([NUMBER, WHOLE, TEXT, MAYBE, {}, {"type": "boolean"}, {"type": ["integer", "number"]}]),
    lambda inner: st.one_of(
        inner.map(lambda each: {"type": "array", "items": each}),
        st.dictionaries(st.sampled_from("abc"), inner).map(
            lambda each: {"type": "object", "properties": each}
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda each: {"anyOf": each}),
    ),
    max_leaves=6,
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(-1e6, 1e6), st.integers(-9, 9).map(float), st.text(max_size=3)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.sampled_from("abc"), inner)),
    max_leaves=8,
)  # fmt: skip


@given(SCHEMAS, VALUES)
def test_declared_types_keep_the_value_and_are_final(schema: Any, value: Any) -> None:
    compiled = compile_schema(schema)
    if any(compiled.violations(value)):
        return
    once = compiled.check(value, what="value")
    assert canonical.is_same(canonical.encode(once), canonical.encode(value))
    assert canonical.encode(compiled.check(once, what="value")) == canonical.encode(once)
