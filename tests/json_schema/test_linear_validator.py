"""Matching a user's pattern takes linear time, in every keyword with a pattern."""

import string
from importlib.metadata import version
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from flujo.json_schema.validator import Validator

HOSTILE = [
    "^(a{1,30}){1,30}$", "^(a+)+$", "^(a|aa)+$", "^(a|a?)+$", "^([a-zA-Z]+)*$", "^(a?){30}a{30}$", "^(.*a){12}$",
    r"^(\w+\s?)*$", "^(([a-z])+.)+[A-Z]([a-z])+$", "^a*a*a*a*a*a*a*a*$", r"(a*)*b", "^(a{0,9}){0,9}(a{0,9}){0,9}b$",
]  # fmt: skip


def fits(value: Any, schema: Any) -> bool:
    """Return whether a value has no violation."""
    return not any(Validator(schema).violations(value))


@pytest.mark.parametrize("pattern", HOSTILE)
@pytest.mark.parametrize(
    "keyword", ["pattern", "patternProperties", "additionalProperties", "unevaluatedProperties"]
)
def test_a_hostile_pattern_terminates(pattern: str, keyword: str) -> None:
    """A backtracking engine needs exponential time for each of these."""
    text = "a" * 50_000 + "!"
    if keyword == "pattern":
        assert not fits(text, {"pattern": pattern})
        return
    patterns = {"patternProperties": {pattern: {"type": "integer"}}}
    refused = {keyword: False} if keyword != "patternProperties" else {"minProperties": 2}
    assert not fits({text: 1}, {**patterns, **refused})


NAMES = st.sampled_from(["a", "ab", "b", "c"])
LEAVES = st.sampled_from([True, False, {"type": "integer"}, {"type": "string"}])
SCHEMAS = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(NAMES, LEAVES, max_size=2),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "b$", "."]), LEAVES, max_size=2),
            "additionalProperties": LEAVES,
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(NAMES, LEAVES, max_size=1),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "if": inner,
            "then": inner,
            "else": inner,
            "dependentSchemas": st.dictionaries(NAMES, inner, max_size=1),
            "$ref": st.just("#/$defs/one"),
            "unevaluatedProperties": LEAVES,
        },
    ),
    max_leaves=4,
)
VALUES = st.dictionaries(NAMES, st.one_of(st.integers(0, 1), st.sampled_from(string.digits)), max_size=3)


@given(SCHEMAS, VALUES)
def test_a_schema_accepts_the_same_values_as_the_reference_implementation(
    schema: dict[str, Any], value: Any
) -> None:
    schema = {
        **schema,
        "$defs": {"one": {"properties": {"b": {"type": "integer"}}, "patternProperties": {"^c": True}}},
    }
    assert fits(value, schema) is Draft202012Validator(schema).is_valid(value)


def test_jsonschema_4_26_keeps_its_resolver() -> None:
    """`linear_validator` reads the private `_resolver`: review it when a new version breaks this test."""
    schema = {"$defs": {"one": {"type": "integer"}}}
    resolved = Draft202012Validator(schema)._resolver.lookup("#/$defs/one")
    assert version("jsonschema").startswith("4.26.")
    assert resolved.contents == {"type": "integer"}
    assert (
        Validator(schema)
        ._draft.evolve(schema={"$ref": "#/$defs/one"}, _resolver=resolved.resolver)
        .is_valid(1)
    )
