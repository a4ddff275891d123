"""Follows names through JSON Schemas: their type, and whether they may be missing or null."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain as joined
from typing import TYPE_CHECKING, Any

from flujo.blueprint.schemas.algebra import NUMBER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.ports import Chain

_MAX_REFS = 16
_KINDS = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
_CEL = {"string": "string", "boolean": "bool", "null": "null"}
_NUMBERS = {"integer": "int", "number": "double"}
SCALARS = frozenset({*_CEL, *_NUMBERS})
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
        if self.nullable and not _lists_null(alone):
            alone = {"anyOf": [alone, {"type": "null"}]}
        if "$ref" not in str(alone):
            return alone
        keys = [(document, key) for document in self.documents for key in ("$defs", "definitions")]
        return {key: document[key] for document, key in keys if key in document} | alone

    def alternatives(self, *, depth: int = 4) -> tuple[Shape, ...]:
        """Return a shape for each JSON type that the value may have, null included; none if unknown."""
        if self.kind is not None:
            found = [replace(self, nullable=False)]
        elif isinstance(self.schema, dict) and depth:
            options = [shape(one, self.documents) for one in _of_one_type(self.schema)]
            each = [one.alternatives(depth=depth - 1) for one in options]
            found = list(joined(*each)) if all(each) else []
        else:
            return ()
        return (*found, _NULL) if found and self.nullable else tuple(found)

    def without_null(self) -> Shape:
        """Return the shape of the value when it is not null."""
        may_be = self.alternatives()
        others = [one for one in may_be if one.kind != "null"]
        if self.kind is not None or len(others) == len(may_be):
            return replace(self, nullable=False)
        return either(others)

    def cel_types(self) -> tuple[str, ...]:
        """Return the CEL types that the value may have: `dyn` if unknown, `double` for a number."""
        found: dict[str, None] = {}
        for one in self.alternatives():
            match one.kind:
                case "integer" | "number":
                    found[_NUMBERS[one.kind]] = None
                case "array":
                    items = element(one).cel_types()
                    found |= {f"list({'dyn' if '(' in each else each})": None for each in items}
                case _:
                    found[one.cel()] = None
        return tuple(found) or ("dyn",)

    def cel(self) -> str:
        """Return the CEL type: `dyn` for a number and for a value that may be null or of several types."""
        if self.nullable or self.kind is None:
            return "dyn"
        if self.kind == "object":
            return "map"
        if self.kind == "array":
            return f"list({element(self).cel()})"
        return _CEL.get(self.kind or "", "dyn")


_NULL = Shape({"type": "null"}, "null")


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
    other: int | None = None
    """The part that may be neither a map nor null, if a part follows; `end` is its shape."""


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
        if only is True:  # several alternatives
            return Shape(schema, None, nullable, documents)
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
            may_be = {one.kind for one in here.alternatives()}
            return (
                replace(trail, other=index - 1)
                if may_be - {"object", "null"}
                else replace(trail, end=Shape())
            )
        found = _field(here, name, index)
        if isinstance(found, NoField):
            return found
        end, is_there = found
        missing = trail.missing if is_there or index < certain or trail.missing is not None else index
        trail = replace(trail, end=end, missing=missing)
    return trail


def element(of: Shape, index: Any = None) -> Shape:
    """Return the shape of a list's items, or of a map's keys; with `index`, of that item."""
    if of.kind == "object":
        return Shape({"type": "string"}, "string")
    if of.kind != "array":
        return Shape()
    first, rest = of.schema.get("prefixItems", ()), of.schema.get("items")
    if isinstance(index, int) and 0 <= index < len(first):
        return shape(first[index], of.documents)
    if not first or (isinstance(index, int) and index >= len(first)):
        return shape(rest, of.documents)
    return shape({"anyOf": [*first, *([] if rest is False else [rest])]}, of.documents)


def either(shapes: Sequence[Shape]) -> Shape:
    """Return the shape of a value that is one of several; an integer or a number is a number."""
    if not shapes or all(one == shapes[0] for one in shapes):
        return shapes[0] if shapes else Shape()
    if not all(one.alternatives() for one in shapes):
        return Shape()
    kinds = {one.kind for one in shapes}
    if not any(one.nullable for one in shapes):
        if kinds == {"integer", "number"}:
            return shape(NUMBER)
        if len(kinds) == 1 and kinds <= SCALARS:
            return shape({"type": kinds.pop()})
    return shape({"anyOf": [one.standalone() for one in shapes]})


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
            if key == "allOf":
                known = [one for one in options if isinstance(one, dict) and one.get("type") in SCALARS]
                return (options[0] if len(options) == 1 else known[0] if known else True), False
            others = [one for one in options if not (isinstance(one, dict) and one.get("type") == "null")]
            return (others[0] if len(others) == 1 else True), len(others) < len(options)
    return None, False


def _of_one_type(schema: dict[str, Any]) -> list[Any]:
    """Return the alternatives of a schema that allows several types; none if unknown."""
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            return list(schema[key])
    if isinstance(said := schema.get("type"), list):
        return [{**schema, "type": one} for one in said]
    return [{"const": one} for one in schema.get("enum", ())]


def _lists_null(schema: dict[str, Any]) -> bool:
    """Return whether a schema itself lists null."""
    return (
        "null" in schema.get("type", ())
        or None in schema.get("enum", ())
        or {"type": "null"} in schema.get("anyOf", schema.get("oneOf", ()))
    )


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
