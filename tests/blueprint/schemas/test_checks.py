"""Users' JSON Schemas: refused if invalid or endless, otherwise compiled, never fetched."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from flujo.blueprint.schemas.checks import pointer, problems
from flujo.blueprint.schemas.keywords import KEYWORDS, TYPES
from flujo.blueprint.schemas.validator import MAX_VIOLATIONS, compile_schema
from flujo.exceptions import BlueprintError, OutputRejected

TICKET = {
    "type": "object",
    "required": ["label"],
    "properties": {"label": {"enum": ["refund", "bug"]}, "tags": {"items": {"type": "string"}}},
    "additionalProperties": False,
}


def _slugs(schema: Any) -> list[str]:
    return [problem.rule.slug for problem in problems(schema)]


def test_the_table_has_every_keyword_of_the_metaschema() -> None:
    known = {"$dynamicRef", "$dynamicAnchor", "$vocabulary"}
    for part in Draft202012Validator.META_SCHEMA["allOf"]:
        from jsonschema.validators import validator_for

        assert validator_for(part) is not None
    from jsonschema_specifications import REGISTRY

    for name in (
        "core",
        "applicator",
        "unevaluated",
        "validation",
        "meta-data",
        "format-annotation",
        "content",
    ):
        contents = REGISTRY.contents(f"https://json-schema.org/draft/2020-12/meta/{name}")
        known |= set(contents["properties"])
    known |= set(Draft202012Validator.META_SCHEMA["properties"])
    assert set(KEYWORDS) == known | {"pii"}  # Flujo's own


_ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(-2, 2)
    | st.sampled_from([*TYPES, "#", "#/$defs/a", "a", "("]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "type"]), inner, max_size=3)
    ),
    max_leaves=5,
)
_SCHEMA: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.dictionaries(st.sampled_from(sorted(KEYWORDS)), _ANY, max_size=3),
    lambda inner: st.dictionaries(
        st.sampled_from(["properties", "items", "allOf", "not", "$defs", "if", "patternProperties"]),
        inner | st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
        max_size=3,
    ),
    max_leaves=6,
)


@given(_SCHEMA)
def test_an_accepted_schema_fits_the_metaschema(schema: Any) -> None:
    if not problems(schema):
        Draft202012Validator.check_schema(schema)
        list(Draft202012Validator(schema).iter_errors({"a": [1, {"b": "x"}]}))  # and never runs in a circle


@given(_SCHEMA)
def test_a_schema_that_does_not_fit_the_metaschema_is_refused(schema: Any) -> None:
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError:
        assert [problem for problem in problems(schema) if problem.severity == "error"]


@given(_ANY)
def test_a_place_in_a_schema_is_a_json_pointer(schema: Any) -> None:
    for problem in problems(schema):
        assert pointer(problem.path).startswith("#")


def test_a_schema_from_python_has_the_same_limits() -> None:
    deep: Any = {}
    for _ in range(40):
        deep = {"items": deep}
    assert _slugs(deep) == ["schema-limit"]
    assert _slugs({"enum": [0] * 5, "properties": {str(n): {"type": "string"} for n in range(3_000)}}) == [
        "schema-limit"
    ]
    assert _slugs({"properties": 7, "items": [1]}) == ["schema-type", "schema-type"]


def test_a_valid_value_is_accepted() -> None:
    compile_schema(TICKET).check({"label": "bug", "tags": ["a"]}, what="the answer")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"label": "bgu"}, "`label` must be one of 'refund', 'bug', not 'bgu'"),
        ({}, "the value lacks `label`"),
        ({"label": "bug", "x": 1, "y": 2}, "the value has keys that are not allowed: `x` and `y`"),
        ({"label": "bug", "tags": ["a", 1]}, "`tags[1]` must be `string`, not a number: 1"),
        ([], "the value must be `object`, not an empty list"),
    ],
)
def test_an_invalid_value_is_rejected_with_place_and_reason(value: Any, words: str) -> None:
    with pytest.raises(OutputRejected) as caught:
        compile_schema(TICKET).check(value, what="output of step 'sort'")
    assert caught.value.message == f"output of step 'sort' does not fit its schema: {words}"


@pytest.mark.parametrize(
    ("schema", "value", "words"),
    [
        ({"minimum": 3}, 2, "is below 3: 2"),
        ({"maxLength": 3}, "abcd", "has more than 3 characters"),
        ({"pattern": "^a+$"}, "b", "does not match `'^a+$'`"),
        ({"const": {"a": 1}}, 2, "must be {'a': 1}, not a number: 2"),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, 2, "must be `null` or `string`, not a number: 2"),
        ({"items": False}, [1], "has more items than are allowed"),
        ({"properties": {"a": False}}, {"a": 1}, "the value is not allowed"),
        ({"propertyNames": {"maxLength": 1}}, {"ab": 1}, "has more than 1 character"),
        ({"dependentRequired": {"a": ["b"]}}, {"a": 1}, "lacks keys that its other keys require"),
        ({"type": ["integer", "null"]}, "x", "must be `integer` or `null`, not a text"),
    ],
)
def test_each_keyword_has_a_reason(schema: Any, value: Any, words: str) -> None:
    with pytest.raises(OutputRejected) as caught:
        compile_schema(schema).check(value, what="it")
    assert words in caught.value.message


def test_a_message_lists_five_violations_and_mentions_more() -> None:
    with pytest.raises(OutputRejected) as caught:
        compile_schema({"items": {"type": "string"}}).check([1] * 9, what="it")
    assert len(caught.value.facts["violations"]) == MAX_VIOLATIONS
    assert caught.value.message.endswith("· and more")


def test_long_values_are_shortened() -> None:
    with pytest.raises(OutputRejected) as caught:
        compile_schema({"enum": ["a"]}).check("x" * 10_000, what="it")
    assert len(caught.value.message) < 200


def test_a_value_nested_beyond_the_stack_is_rejected_without_a_crash() -> None:
    value: Any = []
    for _ in range(900):
        value = [value]
    with pytest.raises(OutputRejected, match="nested too deeply"):
        compile_schema({"items": {"$ref": "#"}}).check(value, what="it")


def test_an_unusable_schema_raises_a_typed_error() -> None:
    with pytest.raises(BlueprintError) as caught:
        compile_schema({"items": {"type": "strng"}})
    assert "`strng` is not a type of JSON Schema (at `items.type`)" in caught.value.message
    with pytest.raises(BlueprintError, match="an object"):
        compile_schema([])
    with pytest.raises(BlueprintError, match="points outside"):
        compile_schema({"$ref": "http://127.0.0.1:9/x.json"})
