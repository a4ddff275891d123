"""Infers the schema of a value in a blueprint, from an expression's type or a literal."""

from __future__ import annotations

from typing import Any

from flujo.blueprint.expressions.evaluators import check_text
from flujo.blueprint.schemas.algebra import BOOLEAN, INTEGER, Schema, closed, union


def schema_of(value: Any, tree: Schema) -> Schema:
    """Return the schema of `value` after its expressions are evaluated in `tree`."""
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
