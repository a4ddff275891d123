"""The schema of a value in a blueprint: of an expression by its type, of a literal by what it is."""

from __future__ import annotations

from typing import Any

from flujo.blueprint.expressions.evaluators import check_text
from flujo.blueprint.schemas.algebra import BOOLEAN, INTEGER, Schema, closed, union


def schema_of(value: Any, tree: Schema) -> Schema:
    """Return the schema of the result of filling in `value` with the names of `tree`."""
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
