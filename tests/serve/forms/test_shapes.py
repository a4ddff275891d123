"""What a form shows for a JSON Schema."""

from __future__ import annotations

from typing import Any

import pytest

from flujo.serve.forms.shapes import Shape, shape_of


def kinds(shape: Shape) -> Any:
    """Return the kinds of a shape and of what is inside."""
    if shape.members:
        return {name: kinds(inner) for name, inner, _ in shape.members}
    if shape.item is not None:
        return [kinds(shape.item)]
    if shape.variants:
        return tuple(kinds(each) for each in shape.variants)
    return str(shape.kind)


TREE = {
    "$defs": {
        "tree": {"type": "object", "properties": {"sub": {"$ref": "#/$defs/tree"}, "n": {"type": "null"}}}
    },
    "$ref": "#/$defs/tree",
}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string"}, "long_text"),
        ({"type": "string", "maxLength": 20}, "text"),
        ({"type": "string", "format": "date"}, "text"),
        ({"type": "string", "pattern": "^a+$"}, "text"),
        ({"type": "boolean"}, "choice"),
        ({"enum": ["a", None]}, "choice"),
        ({"const": 1}, "fixed"),
        ({"type": ["integer", "null"]}, "integer"),
        ({"type": ["integer", "string"]}, ("integer", "long_text")),
        (
            {"properties": {"a": {"const": 1}, "b": {"type": "number"}}, "required": ["b"]},
            {"a": "choice", "b": "number"},
        ),
        ({"items": {"type": "array", "items": {"enum": [1]}}}, [["choice"]]),
        ({"oneOf": [{"const": 1, "title": "One"}, {"const": 2}]}, "choice"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "integer"),
        ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, ("integer", "long_text")),
        ({"allOf": [{"type": "integer"}], "title": "n"}, "integer"),
        ({"$defs": {"n~/": {"type": "number"}}, "$ref": "#/$defs/n~0~1"}, "number"),
        (TREE, {"sub": "json", "n": "choice"}),
        (True, "json"),
        ({}, "json"),
        ({"type": "object"}, "json"),
        ({"type": "object", "properties": {"a": {}}, "required": ["b"]}, "json"),
        ({"type": "array"}, "json"),
        ({"type": "array", "prefixItems": [{}], "items": {}}, "json"),
        ({"allOf": [{}, {}]}, "json"),
        ({"if": {}, "properties": {"a": {}}}, "json"),
        ({"anyOf": [{"type": "null"}]}, "json"),
        ({"oneOf": [{"type": "string"}], "properties": {"a": {}}}, "json"),
        ({"$ref": "https://example.com/schema"}, "json"),
        ({"$ref": "#/nowhere"}, "json"),
    ],
)
def test_each_schema_has_fields_or_one_for_json(schema: Any, expected: Any) -> None:
    assert kinds(shape_of(schema)) == expected


def test_titles_descriptions_and_null_come_from_the_schema() -> None:
    shape = shape_of(
        {"oneOf": [{"const": 1, "title": "One"}, {"const": 2}, {"type": "null"}], "title": "How many"}
    )
    assert (shape.label, shape.nullable, [each.label for each in shape.options]) == (
        "How many",
        True,
        ["One", "2"],
    )
    [(name, inner, required)] = shape_of(
        {"properties": {"a": {"description": "why", "type": "string"}}}
    ).members
    assert (name, inner.label, inner.description, required) == ("a", "a", "why", False)


def test_a_deep_schema_ends_in_a_field_for_json() -> None:
    schema: Any = {"type": "string"}
    for _ in range(40):
        schema = {"items": schema}
    assert "json" in str(kinds(shape_of(schema)))
