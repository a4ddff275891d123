"""Converts a type annotation in source text to a JSON Schema, without imports.

Supports JSON types: `str`, `list[int]`, `dict[str, float]`, `Literal["a", "b"]`, `X | None`. A user's class
could be anything; `flujo types` imports the module and records its schema.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from flujo.blueprint.schemas.algebra import union

if TYPE_CHECKING:
    from flujo.blueprint.schemas.algebra import Schema

_PLAIN = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}
_LISTS = frozenset({"list", "List", "Sequence", "set", "frozenset", "tuple"})
_MAPS = frozenset({"dict", "Dict", "Mapping"})


def schema_of(annotation: ast.expr | None) -> Schema:
    """Return the schema of an annotation, or None if it is not a JSON type."""
    match annotation:
        case ast.Constant(value=None):
            return {"type": "null"}
        case ast.Constant(value=str(text)):
            return _quoted(text)
        case ast.Name(id=name) if name in _PLAIN:
            return {"type": _PLAIN[name]}
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return union((schema_of(left), schema_of(right)))
        case ast.Subscript(value=ast.Name(id=name) | ast.Attribute(attr=name), slice=inside):
            return _generic(name, inside)
        case _:
            return None


def is_whole(schema: Schema) -> bool:
    """Return whether a schema of this module is complete, including the items of lists and maps."""
    if schema is None:
        return False
    if "anyOf" in schema:
        return all(map(is_whole, schema["anyOf"]))
    inside = {"array": "items", "object": "additionalProperties"}.get(str(schema.get("type")))
    return inside is None or is_whole(schema.get(inside))


def _generic(name: str, inside: ast.expr) -> Schema:
    if name == "Optional":
        return union((schema_of(inside), {"type": "null"}))
    if name == "Literal":
        given = inside.elts if isinstance(inside, ast.Tuple) else [inside]
        values = [one.value for one in given if isinstance(one, ast.Constant)]
        return {"enum": values} if len(values) == len(given) else None
    if name in _LISTS and not isinstance(inside, ast.Tuple):
        items = schema_of(inside)
        return {"type": "array"} | ({"items": items} if items else {})
    if name in _MAPS and isinstance(inside, ast.Tuple) and len(inside.elts) == 2:
        rest = schema_of(inside.elts[1])
        return {"type": "object"} | ({"additionalProperties": rest} if rest else {})
    return None


def _quoted(text: str) -> Schema:
    try:
        return schema_of(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
