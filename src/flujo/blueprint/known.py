"""Schemas of what is known of a value before a run: put together from others, and asked for their types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.blueprint.expressions import check_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Schema = Any
"""A JSON Schema, or None when nothing is known."""

STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
INTEGER: Schema = {"type": "integer"}


def closed(properties: Mapping[str, Schema]) -> Schema:
    """Return the schema of an object that has exactly these properties."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def schema_of(value: Any, tree: Schema) -> Schema:
    """Return the schema of what a key that holds a value becomes, in the scope `tree`."""
    match value:
        case str():
            return check_text(value, tree).schema
        case bool():
            return BOOLEAN
        case int():
            return INTEGER
        case float():
            return {"type": "number"}
        case dict():
            return closed({key: schema_of(item, tree) for key, item in value.items()})
        case list():
            return {"type": "array", "items": union(schema_of(item, tree) for item in value)}
        case _:
            return None


def union(schemas: Iterable[Schema]) -> Schema:
    """Return what is known of a value that fits one of `schemas`: the one that all are, or nothing."""
    first, *others = list(schemas) or [None]
    return first if all(other == first for other in others) else None


def types(schema: Schema) -> frozenset[str]:
    """Return the JSON types that a value of `schema` may have; empty when nothing is known."""
    if not isinstance(schema, dict):
        return frozenset()
    said = schema.get("type")
    if isinstance(said, str):
        return frozenset({said})
    if isinstance(said, list):
        return frozenset(said)
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    names = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    return frozenset(names.get(type(value), "null") for value in values or ())


def kind_of(schema: Schema) -> Schema:
    """Return the one JSON type of `schema` and nothing more: what stays of a value that changes."""
    kinds = frozenset("number" if kind == "integer" else kind for kind in types(schema))
    return {"type": next(iter(kinds))} if len(kinds) == 1 and kinds != {"null"} else None
