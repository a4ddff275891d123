"""What a JSON Schema says about a name: what it is, and whether it may be missing or null."""

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
    """What is known of a value."""

    schema: Any = None
    """Its schema, references followed; None when nothing is known."""
    kind: str | None = None
    """Its one JSON type beside null, or None when it is unknown or one of several."""
    nullable: bool = False
    documents: tuple[Any, ...] = ()
    """The schemas around it, outermost first: a `$ref` is looked up in them."""

    @property
    def words(self) -> str:
        """What it is, for a message."""
        return _WORDS.get(self.kind or "", "a value")

    def standalone(self) -> Any:
        """Return the schema with the definitions that it refers to, or None when nothing is known."""
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
        """Return the type to declare: what may be null, of several types or a fraction is `dyn`."""
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
    """Which part of the chain."""
    shape: Shape
    """What the part before it is."""
    known: tuple[str, ...] = ()
    """The names that can be read there, when it is a map."""


@dataclass(frozen=True, slots=True)
class Trail:
    """A chain, followed: what its end is, and the first part that may be missing, or null, on the way."""

    end: Shape
    missing: int | None = None
    null: int | None = None


def shape(schema: Any, documents: tuple[Any, ...] = ()) -> Shape:
    """Return what a schema says; `documents` are the schemas around it."""
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
    """Return where a chain of names leads, or why one of them cannot be read.

    The first `certain` names are there whatever the schemas require.
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
    """Return what the items of a list are, or the keys of a map."""
    if of.kind == "object":
        return Shape({"type": "string"}, "string")
    if of.kind != "array" or "prefixItems" in of.schema:
        return Shape()
    return shape(of.schema.get("items"), of.documents)


def values(of: Shape) -> tuple[Any, ...]:
    """Return the values that something can have, when its schema lists them."""
    if not isinstance(of.schema, dict):
        return ()
    listed = [of.schema["const"]] if "const" in of.schema else of.schema.get("enum") or ()
    return (*listed, None) if of.nullable else tuple(listed)


def of_constant(value: bool | int | float | str) -> Shape:
    """Return what is known of a constant: its type."""
    return shape({"type": _KINDS[type(value)]})


def of_result(cel_type: str) -> Any:
    """Return the schema of what a program gives, from CEL's name of the type; None when it depends."""
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
    """Return the shape of a field and whether it is there for certain."""
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
    # An object of which nothing is told may have the field; one that lists others does not promise it.
    return Shape(), not properties


def _only(schema: dict[str, Any]) -> tuple[Any, bool]:
    """Return the one schema that `anyOf`, `oneOf` or `allOf` comes down to, and whether null is the other."""
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
    """Return what a `$ref` of the kind `#/$defs/Name` points to, or None when it is not to be found."""
    parts = pointer.split("/") if isinstance(pointer, str) else []
    if len(parts) != 3 or parts[0] != "#" or parts[1] not in {"$defs", "definitions"}:
        return None
    for document in documents:
        definitions = document.get(parts[1])
        if isinstance(definitions, dict) and parts[2] in definitions:
            return definitions[parts[2]]
    return None
