"""Combines the schemas that describe values before a run, and lists their types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Schema = Any
"""A JSON Schema, or None if unknown."""

STRING: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
INTEGER: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}


def closed(properties: Mapping[str, Schema]) -> Schema:
    """Return the schema of an object that has exactly these properties."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def union(schemas: Iterable[Schema]) -> Schema:
    """Return the schema of a value that fits one of `schemas`; None if one of them is unknown.

    Objects are merged field by field: a field that not all of them have may be missing.
    """
    found: list[Schema] = []
    for schema in schemas:
        found += [one for one in _alternatives(schema) if one not in found]
    if len(found) < 2:
        return found[0] if found else None
    # A reference is only valid inside its own schema.
    if any(not types(one) or "$ref" in str(one) for one in found):
        return None
    values = [one for one in found if types(one) != {"null"}]
    known = values[0] if len(values) == 1 else _together(values)
    return {"anyOf": [known, {"type": "null"}]} if len(values) < len(found) else known


def _alternatives(schema: Schema) -> list[Schema]:
    return schema["anyOf"] if isinstance(schema, dict) and list(schema) == ["anyOf"] else [schema]


def _together(schemas: list[Schema]) -> Schema:
    """Return the schema of values that fit one of several schemas whose types are known."""
    kinds = frozenset[str]().union(*map(types, schemas))
    if kinds == {"object"}:
        return _fields_of_all(schemas)
    if kinds == {"array"}:
        return {"type": "array", "items": union(one.get("items") for one in schemas)}
    if all("enum" in one for one in schemas):
        return {"enum": list(dict.fromkeys(value for one in schemas for value in one["enum"]))}
    kinds = kinds - {"integer"} if "number" in kinds else kinds
    return {"type": next(iter(kinds)) if len(kinds) == 1 else sorted(kinds)}


def _fields_of_all(schemas: list[Schema]) -> Schema:
    if not all(one.get("properties") and not one.get("additionalProperties") for one in schemas):
        return {"type": "object"}
    names = dict.fromkeys(name for one in schemas for name in one["properties"])
    every = {
        name: union(one["properties"][name] for one in schemas if name in one["properties"]) for name in names
    }
    required = [name for name in names if all(name in one.get("required", ()) for one in schemas)]
    return {**closed(every), "required": required}


def types(schema: Schema) -> frozenset[str]:
    """Return the JSON types that a value of `schema` may have; empty if unknown."""
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
    """Return a schema with only the JSON type of `schema`, for a value that changes.

    A variable that starts as an integer may become any number, and may also stay an integer.
    """
    kinds = types(schema)
    if kinds == {"integer"}:
        return {"type": ["integer", "number"]}
    return {"type": next(iter(kinds))} if len(kinds) == 1 and kinds != {"null"} else None


def widened(wanted: frozenset[str]) -> frozenset[str]:
    """Return the compatible types: an integer is a number, and a number may be an integer."""
    return wanted | {"number", "integer"} if wanted & {"number", "integer"} else wanted
