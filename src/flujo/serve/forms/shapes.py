"""What a form shows for a JSON Schema (draft 2020-12): a tree of shapes.

A part of a schema that has no form, such as one of any keys or one that contains itself, is a field for JSON.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from flujo.domain.context_references import ContextReference
from flujo.domain.wording import json_short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Kind(StrEnum):
    """How a value is filled in."""

    TEXT = "text"
    """One line."""
    LONG_TEXT = "long_text"
    INTEGER = "integer"
    NUMBER = "number"
    CHOICE = "choice"
    """One of listed values."""
    FIXED = "fixed"
    """The only value that is possible."""
    OBJECT = "object"
    LIST = "list"
    UNION = "union"
    """One of several shapes, which is chosen first."""
    FILE = "file"
    """An uploaded file, as the reference to it."""
    JSON = "json"
    """Any value, as JSON."""


@dataclass(frozen=True, slots=True)
class Option:
    """A value that can be chosen."""

    value: Any
    label: str


@dataclass(frozen=True, slots=True)
class Shape:
    """How a value of a schema is filled in."""

    kind: Kind
    schema: Mapping[str, Any] = field(default_factory=dict)
    """The schema without its references, for limits and texts."""
    label: str = ""
    nullable: bool = False
    options: tuple[Option, ...] = ()
    """Of a choice or a fixed value."""
    members: tuple[tuple[str, Shape, bool], ...] = ()
    """Of an object: each key, its shape, and whether it is required."""
    item: Shape | None = None
    """Of a list."""
    variants: tuple[Shape, ...] = ()
    """Of a union."""

    @property
    def description(self) -> str:
        """What the schema says about it."""
        return str(self.schema.get("description", ""))


ANY_TEXT = Shape(Kind.LONG_TEXT)
"""The answer to a question without a schema."""

_MAX_DEPTH = 8
_LONGEST_LINE = 120
_NOT_SHOWN = ("if", "patternProperties", "prefixItems", "dependentSchemas", "$dynamicRef")
"""Keywords that can ask for more than a form shows. The others only limit its values."""
_ANNOTATIONS = {"title", "description", "default", "examples", "$defs", "definitions", "type", "deprecated"}


def shape_of(schema: Any, *, takes_files: bool = False) -> Shape:
    """Return what a form shows for a schema.

    Args:
        schema: the schema.
        takes_files: whether a file is uploaded for a `ContextReference`, instead of filling in its parts.
    """
    return _Reader(schema, takes_files).shape(schema, "", (), 0)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads a schema; references begin at its root."""

    root: Any
    takes_files: bool

    def shape(self, schema: Any, name: str, refs: tuple[str, ...], depth: int) -> Shape:
        """Return the shape of a part of the schema.

        Args:
            schema: the part.
            name: the key of the value in its object, or an empty text.
            refs: the references that lead to it.
            depth: how many objects and lists it is in.
        """
        schema, refs = self._resolved(schema, refs)
        if not isinstance(schema, dict):
            return Shape(Kind.JSON, {}, name)
        title = "" if self.takes_files and _is_reference(schema) else schema.get("title", "")
        label = str(title or name)
        if depth > _MAX_DEPTH or "allOf" in schema or any(key in schema for key in _NOT_SHOWN):
            return Shape(Kind.JSON, schema, label)
        if "const" in schema:
            return Shape(Kind.FIXED, schema, label, options=(_option(schema["const"]),))
        if "enum" in schema:
            return _choice(schema, label, [_option(each) for each in schema["enum"]])
        for union in ("oneOf", "anyOf"):
            if union in schema:
                return self._union(schema, schema[union], union, label, (refs, depth))
        return self._typed(schema, label, refs, depth)

    def _resolved(self, schema: Any, refs: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
        """Return what a reference or an `allOf` of one part means, with the keywords beside it.

        None for a reference to itself or out of the schema, and for keywords that both have.
        """
        while isinstance(schema, dict) and ("$ref" in schema or _is_single(schema, "allOf")):
            keyword = "$ref" if "$ref" in schema else "allOf"
            if keyword == "$ref":
                ref = str(schema["$ref"])
                inner = None if ref in refs else self._target(ref)
                refs = (*refs, ref)
            else:
                [inner] = schema["allOf"]
            beside = _without(schema, keyword)
            if not isinstance(inner, dict) or inner.keys() & beside.keys() - _ANNOTATIONS:
                return None, refs
            schema = {**inner, **beside}
        return schema, refs

    def _typed(self, schema: dict[str, Any], label: str, refs: tuple[str, ...], depth: int) -> Shape:
        given = schema.get(
            "type", "object" if "properties" in schema else "array" if "items" in schema else ""
        )
        types = [given] if isinstance(given, str) else [str(each) for each in given]
        kinds = [each for each in types if each != "null"]
        if not kinds and "null" in types:
            return Shape(Kind.FIXED, schema, label, options=(_option(None),))
        if len(kinds) > 1:
            parts = [{**_without(schema, "default", "title"), "type": each, "title": each} for each in kinds]
            made = tuple(self.shape(part, "", refs, depth + 1) for part in parts)
            return Shape(Kind.UNION, schema, label, nullable="null" in types, variants=made)
        made_shape = self._of_type(kinds[0], schema, label, (refs, depth))
        return replace(made_shape, nullable="null" in types)

    def _of_type(
        self, kind: str, schema: dict[str, Any], label: str, place: tuple[tuple[str, ...], int]
    ) -> Shape:
        refs, depth = place
        match kind:
            case "boolean":
                return Shape(Kind.CHOICE, schema, label, options=(Option(True, "yes"), Option(False, "no")))
            case "integer" | "number":
                return Shape(Kind(kind), schema, label)
            case "string":
                return Shape(Kind.TEXT if _is_one_line(schema) else Kind.LONG_TEXT, schema, label)
            case "array" if isinstance(schema.get("items"), dict):
                item = self.shape(schema["items"], "", refs, depth + 1)
                return Shape(Kind.LIST, schema, label, item=item)
            case "object" if self.takes_files and _is_reference(schema):
                return Shape(Kind.FILE, schema, label)
            case "object" if schema.get("properties"):
                required = schema.get("required", ())
                # A schema is stored with its keys in order, so required members come first instead.
                names = sorted(schema["properties"], key=lambda name: name not in required)
                members = tuple(
                    (
                        name,
                        self._member(schema["properties"][name], name, name in required, place),
                        name in required,
                    )
                    for name in names
                )
                if set(required) <= schema["properties"].keys():
                    return Shape(Kind.OBJECT, schema, label, members=members)
        return Shape(Kind.JSON, schema, label)

    def _member(self, schema: Any, name: str, is_required: bool, place: tuple[tuple[str, ...], int]) -> Shape:
        """Return the shape of a member: a fixed value that may be left out is a choice."""
        refs, depth = place
        shape = self.shape(schema, name, refs, depth + 1)
        return replace(shape, kind=Kind.CHOICE) if shape.kind is Kind.FIXED and not is_required else shape

    def _union(
        self,
        schema: dict[str, Any],
        parts: Sequence[Any],
        keyword: str,
        label: str,
        place: tuple[tuple[str, ...], int],
    ) -> Shape:
        refs, depth = place
        if schema.keys() - _ANNOTATIONS - {keyword}:
            return Shape(Kind.JSON, schema, label)
        others = [each for each in parts if each not in ({"type": "null"}, {"const": None})]
        is_nullable = len(others) < len(parts)
        if others and all(isinstance(each, dict) and "const" in each for each in others):
            options = [
                Option(each["const"], str(each.get("title", _written(each["const"])))) for each in others
            ]
            return replace(_choice(schema, label, options), nullable=is_nullable)
        if len(others) == 1 and isinstance(others[0], dict):
            inner = {**others[0], **_without(schema, keyword, "type")}
            return replace(self.shape(inner, label, refs, depth), nullable=is_nullable)
        variants = tuple(
            self.shape(each, f"variant {number}", refs, depth + 1) for number, each in enumerate(others, 1)
        )
        if not variants:
            return Shape(Kind.JSON, schema, label)
        return Shape(Kind.UNION, schema, label, nullable=is_nullable, variants=variants)

    def _target(self, ref: str) -> Any:
        """Return the part that a reference means; None for one out of the schema."""
        if not ref.startswith("#"):
            return None
        found = self.root
        for part in filter(None, ref.removeprefix("#").split("/")):
            key = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(found, dict) or key not in found:
                return None
            found = found[key]
        return found


def _is_reference(schema: Mapping[str, Any]) -> bool:
    """Return whether a schema is that of a `ContextReference`."""
    named = schema.get("properties") or {}
    return named.keys() <= ContextReference.model_fields.keys() and {"provider_id", "key"} <= {
        *named.keys() & set(schema.get("required", ()))
    }


def _is_single(schema: dict[str, Any], keyword: str) -> bool:
    return isinstance(schema.get(keyword), list) and len(schema[keyword]) == 1


def _without(schema: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: each for key, each in schema.items() if key not in keys}


def _choice(schema: Mapping[str, Any], label: str, options: Sequence[Option]) -> Shape:
    given = tuple(each for each in options if each.value is not None)
    return Shape(Kind.CHOICE, schema, label, nullable=len(given) < len(options), options=given)


def _option(value: Any) -> Option:
    return Option(value, _written(value))


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) and value else json_short(value)


def _is_one_line(schema: Mapping[str, Any]) -> bool:
    """Return whether a text has one line: an unlimited one may have several, which one line would lose."""
    return (
        schema.get("format") in INPUT_TYPES
        or "pattern" in schema
        or int(schema.get("maxLength", _LONGEST_LINE + 1)) <= _LONGEST_LINE
    )


INPUT_TYPES = {
    "date": "date",
    "email": "email",
    "uri": "url",
    "date-time": "text",
    "time": "text",
    "uuid": "text",
}
"""The types of HTML fields by `format`. A browser's field for date and time has no zone; the format has."""
