"""One function converts values of the wrong type for all schemas, and only where their meaning is certain."""

from __future__ import annotations

import copy
from decimal import Decimal
from enum import IntEnum
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter

from flujo.json_schema.validator import Validator

WORDS = {"type": "array", "items": {"type": "string"}}
ITEM = {"type": "object", "properties": {"name": {"type": "string"}, "tags": WORDS}, "required": ["name"]}
UNCHANGED: Any = object()


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    age: float | None = None


class Owner(BaseModel):
    """What pydantic writes: nullable types as `anyOf`, classes and enums as `$ref`."""

    pet: Cat | Dog
    level: Level | None = None
    count: int | None = None
    friends: list[Owner] = []


OWNER = TypeAdapter(Owner).json_schema()


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "integer"}, "3", 3),
        ({"type": "integer"}, " +3 ", 3),
        ({"type": "integer"}, "3.0", 3),
        ({"type": "integer"}, "3.5", UNCHANGED),
        ({"type": "integer"}, "1,000", UNCHANGED),
        ({"type": "integer"}, "1_000", UNCHANGED),
        ({"type": "integer"}, "٣", UNCHANGED),
        ({"type": "integer"}, "", UNCHANGED),
        ({"type": "integer"}, "9" * 19, UNCHANGED),
        ({"type": "integer"}, True, UNCHANGED),
        ({"type": "number"}, "0.7", 0.7),
        ({"type": "number"}, "70%", UNCHANGED),
        ({"type": "number"}, "NaN", UNCHANGED),
        ({"type": "number"}, "1e999", UNCHANGED),
        ({"type": "boolean"}, "True", True),
        ({"type": "boolean"}, "yes", UNCHANGED),
        ({"type": "boolean"}, 1, UNCHANGED),
        ({"type": "null"}, "null", None),
        ({"type": "null"}, "", UNCHANGED),
        ({"type": "string"}, 7, "7"),
        ({"type": "string"}, True, "true"),
        ({"type": "string"}, 1.10, UNCHANGED),
        ({"type": "string"}, None, UNCHANGED),
        ({"type": "string"}, ["a"], UNCHANGED),
        ({"type": "object"}, '{"a": 1}', {"a": 1}),
        ({"type": "object"}, "[1]", UNCHANGED),
        ({"type": "object"}, '{"a": 1, "a": 2}', UNCHANGED),
        # unions and references
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "3", 3),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "null", None),
        ({"oneOf": [{"type": "number"}, {"type": "boolean"}]}, "true", True),
        ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "3", UNCHANGED),
        ({"anyOf": [{"type": "boolean"}, {"enum": ["TRUE"]}]}, "true", UNCHANGED),
        ({"type": ["integer", "null"]}, "3", 3),
        ({"type": ["array", "null"]}, "null", UNCHANGED),
        ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, "3", 3),
        ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, "2", UNCHANGED),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}, "3", 3),
        ({"$ref": "#", "type": "integer"}, "3", UNCHANGED),
        ({"if": {"type": "string"}, "then": {"enum": ["a"]}, "else": {"type": "null"}}, "A", "a"),
        # listed values
        ({"enum": [1, 2]}, "2", 2),
        ({"enum": ["1", "2"]}, 2, "2"),
        ({"enum": [1, "1"]}, " 1", UNCHANGED),
        ({"enum": ["a", "A"]}, "a ", UNCHANGED),
        ({"enum": ["Refund", "bug"]}, " refund ", "Refund"),
        ({"enum": ["refund"]}, "refunds", UNCHANGED),
        ({"enum": [1]}, True, UNCHANGED),
        ({"enum": [True]}, 1, UNCHANGED),
        ({"enum": [True, "no"]}, "TRUE", True),
        ({"enum": ["a", None]}, "null", None),
        ({"const": 1}, "1", 1),
        ({"const": "yes"}, "Yes", "yes"),
        # lists
        (WORDS, "a", ["a"]),
        (WORDS, 7, ["7"]),
        (WORDS, "a, b", UNCHANGED),
        (WORDS, "a b", UNCHANGED),
        (WORDS, "a\nb", UNCHANGED),
        (WORDS, '["a", "b"]', ["a", "b"]),
        (WORDS, "['a', 'b']", UNCHANGED),
        (WORDS, "[a", UNCHANGED),
        (WORDS, None, UNCHANGED),
        (WORDS, {"items": ["a", "b"]}, ["a", "b"]),
        (WORDS, {"items": []}, []),
        (WORDS, {"items": ["a"], "count": 1}, UNCHANGED),
        (WORDS, {"items": ["a"], "more": ["b"]}, UNCHANGED),
        (WORDS, {"items": {"items": ["a"]}}, UNCHANGED),
        ({"type": "array"}, {"candidates": [1, 2]}, [1, 2]),
        ({"type": "array"}, {"error": "none"}, UNCHANGED),
        ({"type": "array"}, {"reason": "so", "candidates": [1]}, UNCHANGED),
        ({"type": "array", "items": {"enum": ["Billing team", "b"]}}, "billing team", ["Billing team"]),
        ({"type": "array", "items": {"type": "integer"}}, "5", [5]),
        ({"type": "array", "items": {"type": "integer"}}, ["5", 6], [5, 6]),
        ({"type": "array", "items": ITEM}, {"name": "x"}, [{"name": "x"}]),
        ({"type": "array", "items": ITEM}, {"name": "x", "tags": ["a"]}, [{"name": "x", "tags": ["a"]}]),
        ({"type": "array", "items": ITEM}, {"results": [{"name": "x"}]}, [{"name": "x"}]),
        ({"type": "array", "items": ITEM}, {"tags": ["a"]}, UNCHANGED),
        ({"type": "array", "items": {"type": "object"}}, {"items": [{"a": 1}], "total": 1}, UNCHANGED),
        (
            {"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "boolean"}},
            ["1", "true"],
            [1, True],
        ),
        # insides
        ({"properties": {"n": {"type": "integer"}}}, {"n": "1", "m": "2"}, {"n": 1, "m": "2"}),
        ({"additionalProperties": {"type": "integer"}}, {"n": "1"}, {"n": 1}),
        ({"patternProperties": {"^n": {"type": "integer"}}}, {"n1": "1", "m": "2"}, {"n1": 1, "m": "2"}),
        ({"properties": {"n": {"type": "integer"}}, "required": ["m"]}, {"n": "1"}, UNCHANGED),
        # as pydantic writes them
        (OWNER, {"pet": {"kind": "Cat", "lives": "9"}}, {"pet": {"kind": "cat", "lives": 9}}),
        (OWNER, {"pet": {"kind": "dog", "age": "null"}}, {"pet": {"kind": "dog", "age": None}}),
        (
            OWNER,
            {
                "pet": {"kind": "dog"},
                "level": "2",
                "friends": [{"pet": {"kind": "dog", "age": "1.5"}, "count": "4"}],
            },
            {
                "pet": {"kind": "dog"},
                "level": 2,
                "friends": [{"pet": {"kind": "dog", "age": 1.5}, "count": 4}],
            },
        ),
        (OWNER, {"pet": {"kind": "dog"}, "level": "3"}, UNCHANGED),
        (TypeAdapter(Decimal | None).json_schema(), "1.10", UNCHANGED),
    ],
)
def test_a_value_is_converted_where_its_meaning_is_certain(schema: Any, value: Any, expected: Any) -> None:
    before = copy.deepcopy(value)
    new, notes = Validator(schema).coerced(value)
    assert repr(value) == repr(before)
    if expected is UNCHANGED:
        assert (repr(new), notes) == (repr(value), ())
    else:
        assert repr(new) == repr(expected)
        assert notes
        assert not any(Validator(schema).violations(new))


def test_each_change_is_noted_with_its_place() -> None:
    schema = {"properties": {"a": {"type": "array", "items": {"type": "integer"}}, "b": {"const": "x"}}}
    _, notes = Validator(schema).coerced({"a": ["1", 2, "3"], "b": "X"})
    assert notes == ('read "1" as 1 at a.0', 'read "3" as 3 at a.2', 'read "X" as "x" at b')


def test_many_changes_are_counted() -> None:
    new, notes = Validator({"type": "array", "items": {"type": "integer"}}).coerced(["1"] * 250)
    assert new == [1] * 250
    assert notes[-1] == "and 150 more"


def test_alternatives_inside_alternatives_take_bounded_time() -> None:
    node: dict[str, Any] = {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "x": {"$ref": "#/$defs/a"}},
    }
    schema = {"$defs": {"a": {"anyOf": [node] * 4}}, "$ref": "#/$defs/a"}
    value: dict[str, Any] = {"n": "1"}
    for _ in range(30):
        value = {"x": value}
    assert Validator(schema).coerced(value) == (value, ())


VALUES = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.text("1a ,", max_size=3)
SCHEMAS = st.recursive(
    st.sampled_from([{"type": kind} for kind in ("integer", "number", "boolean", "string", "null", "array")])
    | st.lists(VALUES, min_size=1, max_size=3).map(lambda values: {"enum": values}),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3).map(lambda each: {"anyOf": each})
        | inner.map(lambda each: {"type": "array", "items": each})
        | inner.map(lambda each: {"type": "object", "properties": {"a": each}})
    ),
    max_leaves=5,
)
DATA = st.recursive(
    VALUES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner)
)


@given(schema=SCHEMAS, value=DATA)
def test_a_value_that_fits_is_unchanged_and_a_changed_value_fits(schema: Any, value: Any) -> None:
    validator = Validator(schema)
    fits = not any(validator.violations(value))
    new, notes = validator.coerced(value)
    assert bool(notes) != (repr(new) == repr(value))
    if fits:
        assert not notes
    if notes:
        assert not any(validator.violations(new))
        assert validator.coerced(new) == (new, ())
