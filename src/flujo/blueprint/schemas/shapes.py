"""Follows names through JSON Schemas: their type, and whether they may be missing or null."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flujo.domain.ports import Chain

_MAX_REFS = 16
_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
_CEL = {"string": "string", "integer": "int", "boolean": "bool", "null": "null"}
_WORDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "a boolean",
    "array": "a list",
    "object": "a map",
    "null": "null",
}


@dataclass(frozen=True, slots=True)
class Shape:
    """The known type of a value."""

    schema: Any = None
    """Its schema with references resolved; None if unknown."""
    kind: str | None = None
    """Its only JSON type besides null, or None if unknown or one of several."""
    nullable: bool = False
    documents: tuple[Any, ...] = ()
    """The enclosing schemas, outermost first, in which a `$ref` is looked up."""

    @property
    def words(self) -> str:
        """Its type, for a message."""
        return _WORDS.get(self.kind or "", "a value")

    def standalone(self) -> Any:
        """Return the schema with the definitions that it refers to, or None if unknown."""
        if not isinstance(self.schema, dict) or not self.schema:
            return None
        alone = self.schema
        if self.nullable and "null" not in alone.get("type", ()) and None not in alone.get("enum", ()):
            alone = {"anyOf": [alone, {"type": "null"}]}
        if "$ref" not in str(alone):
            return alone
        keys = [(document, key) for document in self.documents for key in ("$defs", "definitions")]
        return {key: document[key] for document, key in keys if key in document} | alone

    def cel(self) -> str:
        """Return the CEL type: `dyn` for a value that may be null, of several types, or a fraction."""
        if self.nullable or self.kind in {None, "number"}:
            return "dyn"
        if self.kind == "object":
            return "map"
        if self.kind == "array":
            return f"list({element(self).cel()})"
        return _CEL.get(self.kind or "", "dyn")


@dataclass(frozen=True, slots=True)
class NoField:
    """A name that cannot be read, and the reason."""

    at: int
    """The index of the part in the chain."""
    shape: Shape
    """The shape of the part before it."""
    known: tuple[str, ...] = ()
    """The names that can be read there, if it is a map."""


@dataclass(frozen=True, slots=True)
class Trail:
    """A followed chain: the shape of its end, and the first part that may be missing or null."""

    end: Shape
    missing: int | None = None
    null: int | None = None


def shape(schema: Any, documents: tuple[Any, ...] = ()) -> Shape:
    """Return the shape of a schema; `documents` are the enclosing schemas."""
    nullable = False
    for _ in range(_MAX_REFS):
        if not isinstance(schema, dict) or not schema:
            return Shape(None, None, nullable, documents)
        documents = (*documents, schema)
        if "$ref" in schema:
            schema = _referred(schema["$ref"], documents)
            continue
        only, null = _only(schema)
        nullable = nullable or null
        if only is None:
            return _typed(schema, nullable, documents)
        schema = only
    return Shape(None, None, nullable, documents)


def follow(start: Shape, chain: Chain, *, certain: int = 0) -> Trail | NoField:
    """Follow a chain of names; return its end, or the part that cannot be read.

    The first `certain` names exist whatever the schemas require.
    """
    trail = Trail(start)
    for index, name in enumerate(chain):
        here = trail.end
        if here.nullable and trail.null is None:
            trail = replace(trail, null=index - 1)
        if here.kind is None:
            return replace(trail, end=Shape())
        found = _field(here, name, index)
        if isinstance(found, NoField):
            return found
        end, is_there = found
        missing = trail.missing if is_there or index < certain or trail.missing is not None else index
        trail = replace(trail, end=end, missing=missing)
    return trail


def element(of: Shape) -> Shape:
    """Return the shape of a list's items, or of a map's keys."""
    if of.kind == "object":
        return Shape({"type": "string"}, "string")
    if of.kind != "array" or "prefixItems" in of.schema:
        return Shape()
    return shape(of.schema.get("items"), of.documents)


def values(of: Shape) -> tuple[Any, ...]:
    """Return the possible values, if the schema lists them."""
    if not isinstance(of.schema, dict):
        return ()
    listed = [of.schema["const"]] if "const" in of.schema else of.schema.get("enum") or ()
    return (*listed, None) if of.nullable else tuple(listed)


def of_constant(value: bool | int | float | str) -> Shape:
    """Return the shape of a constant."""
    return shape({"type": _KINDS[type(value)]})


def of_result(cel_type: str) -> Any:
    """Return the schema of a program's result, from CEL's type name; None if it is dynamic."""
    plain = {"BOOL": "boolean", "INT": "integer", "UINT": "integer", "DOUBLE": "number", "STRING": "string"}
    if cel_type in plain:
        return {"type": plain[cel_type]}
    if cel_type == "NULL":
        return {"type": "null"}
    if cel_type.startswith("LIST<"):
        items = of_result(cel_type[len("LIST<") : -1])
        return {"type": "array"} | ({"items": items} if items else {})
    return {"type": "object"} if cel_type.startswith("MAP<") else None


def _field(here: Shape, name: str, index: int) -> tuple[Shape, bool] | NoField:
    """Return the shape of a field, and whether it always exists."""
    if here.kind != "object":
        return NoField(index, here)
    properties = here.schema.get("properties") or {}
    rest = here.schema.get("additionalProperties")
    if name in properties:
        return shape(properties[name], here.documents), name in here.schema.get("required", ())
    if isinstance(rest, dict) and rest:
        return shape(rest, here.documents), False
    if rest is False or (properties and rest is None and "patternProperties" not in here.schema):
        return NoField(index, here, tuple(properties))
    # An object without declared fields may have the field; one that lists other fields may lack it.
    return Shape(), not properties


def _only(schema: dict[str, Any]) -> tuple[Any, bool]:
    """Return the only non-null schema of `anyOf`, `oneOf` or `allOf`, and whether null is allowed."""
    for key in ("anyOf", "oneOf", "allOf"):
        options = schema.get(key)
        if isinstance(options, list):
            others = [one for one in options if not (isinstance(one, dict) and one.get("type") == "null")]
            null = key != "allOf" and len(others) < len(options)
            return (others[0] if len(others) == 1 else True), null
    return None, False


def _typed(schema: dict[str, Any], nullable: bool, documents: tuple[Any, ...]) -> Shape:
    said = schema.get("type")
    if said is None and ("enum" in schema or "const" in schema):
        values = [schema["const"]] if "const" in schema else schema["enum"]
        said = [_KINDS.get(type(one), "null") for one in values]
    if said is None:
        said = [kind for kind, key in (("object", "properties"), ("array", "items")) if key in schema]
    names = {said} if isinstance(said, str) else set(said)
    nullable = nullable or ("null" in names and len(names) > 1)
    kinds = names - {"null"} if len(names) > 1 else names
    return Shape(schema, kinds.pop() if len(kinds) == 1 else None, nullable, documents)


def _referred(pointer: Any, documents: tuple[Any, ...]) -> Any:
    """Return the target of a `$ref` such as `#/$defs/Name`, or None if it does not exist."""
    parts = pointer.split("/") if isinstance(pointer, str) else []
    if len(parts) != 3 or parts[0] != "#" or parts[1] not in {"$defs", "definitions"}:
        return None
    for document in documents:
        definitions = document.get(parts[1])
        if isinstance(definitions, dict) and parts[2] in definitions:
            return definitions[parts[2]]
    return None
