"""The allowed values of each keyword of JSON Schema, with the messages for others."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeGuard

from flujo.blueprint.diagnostics import one_of, suggest
from flujo.blueprint.reading.syntax_rules import REGEX, REMOTE_REF, SCHEMA_DRAFT, SCHEMA_TYPE
from flujo.blueprint.schemas.patterns import pattern_problem
from flujo.domain.personal_data import CHOICES, PII
from flujo.domain.wording import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.blueprint.diagnostics import Rule

DRAFT = "https://json-schema.org/draft/2020-12/schema"
TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")

Wrong = tuple["Rule", str, str | None]
"""The broken rule, the message, and a hint."""

# The keywords of draft 2020-12, and the older ones in its metaschema, by the shape of their value.
_SHAPES: dict[str, tuple[str, ...]] = {
    "draft": ("$schema",),
    "base": ("$id",),
    "anchor": ("$anchor",),
    "reference": ("$ref",),
    "dynamic": ("$dynamicRef", "$dynamicAnchor", "$vocabulary", "$recursiveRef", "$recursiveAnchor"),
    "split in two": ("dependencies",),
    "types": ("type",),
    "anything": ("const", "default"),
    "list": ("enum", "examples"),
    "text": ("$comment", "title", "description", "format", "contentEncoding", "contentMediaType"),
    "boolean": ("deprecated", "readOnly", "writeOnly", "uniqueItems"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "number above 0": ("multipleOf",),
    "count": (
        "minLength", "maxLength", "minItems", "maxItems", "minContains", "maxContains", "minProperties",
        "maxProperties",
    ),
    "pattern": ("pattern",),
    "names": ("required",),
    "named names": ("dependentRequired",),
    "schema": (
        "not", "if", "then", "else", "items", "contains", "unevaluatedItems", "additionalProperties",
        "propertyNames", "unevaluatedProperties", "contentSchema",
    ),
    "schemas": ("allOf", "anyOf", "oneOf", "prefixItems"),
    "named schemas": ("$defs", "definitions", "properties", "dependentSchemas"),
    "patterned schemas": ("patternProperties",),
    "masking": (PII,),  # Flujo's own
}  # fmt: skip
KEYWORDS = {keyword: shape for shape, keywords in _SHAPES.items() for keyword in keywords}

_ANCHOR = re.compile(r"[A-Za-z_][A-Za-z0-9._-]*", re.ASCII)


def wrong(keyword: str, value: Any) -> Wrong | None:
    """Return the problem of the value of a keyword without subschemas, or None."""
    shape = KEYWORDS[keyword]
    if shape in _IS:
        fits = _IS[shape](value)
        return (
            None
            if fits
            else (SCHEMA_TYPE, f"`{keyword}` must be {_WORDS[shape]}, not {kind_of(value)}", None)
        )
    return _JUDGES[shape](keyword, value)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a JSON value is a number, which booleans are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def short(text: str) -> str:
    """Return a text that fits into a message."""
    return text if len(text) <= 60 else f"{text[:59]}…"


# One function per keyword that needs more than a type check ----------------------------------------------


def _wrong_draft(_: str, value: Any) -> Wrong | None:
    if value in (DRAFT, DRAFT + "#"):
        return None
    return (
        SCHEMA_DRAFT,
        "only draft 2020-12 is supported, and `$schema` names another one",
        f"write `{DRAFT}`",
    )


def _not_supported(keyword: str, _: Any) -> Wrong:
    return REMOTE_REF, f"`{keyword}` is not supported", "use `$ref` with `#/$defs/…`"


def _split_in_two(keyword: str, _: Any) -> Wrong:
    hint = "use `dependentRequired` or `dependentSchemas`"
    return SCHEMA_DRAFT, f"`{keyword}` belongs to an older draft, and checks nothing in 2020-12", hint


def _wrong_masking(_: str, value: Any) -> Wrong | None:
    if value in CHOICES:
        return None
    hint = suggest(value, CHOICES, what="the choices are") if isinstance(value, str) else None
    return SCHEMA_TYPE, f"`{PII}` must be {one_of(CHOICES)}", hint


def _wrong_pattern(_: str, value: Any) -> Wrong | None:
    if not isinstance(value, str):
        return SCHEMA_TYPE, f"`pattern` must be a text, not {kind_of(value)}", None
    return (REGEX, f"the pattern {problem}", None) if (problem := pattern_problem(value)) else None


def _wrong_reference(_: str, value: Any) -> Wrong | None:
    if not isinstance(value, str):
        return SCHEMA_TYPE, f"`$ref` must be a text, not {kind_of(value)}", None
    if value.startswith("#"):
        return None
    return (
        REMOTE_REF,
        f"`$ref: {short(value)}` points outside the schema",
        "copy it to `$defs` and refer to `#/$defs/NAME`; a blueprint can refer to a file of its project: "
        "`./schemas/ticket.json`",
    )


def _wrong_types(_: str, value: Any) -> Wrong | None:
    names = value if isinstance(value, list) else [value]
    for name in names:
        if name not in TYPES:
            shown = f"`{short(name)}`" if isinstance(name, str) else kind_of(name)
            hint = suggest(name, TYPES, what="types") if isinstance(name, str) else f"one of {one_of(TYPES)}"
            return SCHEMA_TYPE, f"{shown} is not a type of JSON Schema", hint
    if not names or len(set(names)) < len(names):
        return SCHEMA_TYPE, "`type` must be one type or a list of different types", None
    return None


def _is_names(value: Any) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(name, str) for name in value)
        and len(set(value)) == len(value)
    )


_WORDS = {
    "text": "a text",
    "base": "a URI without a fragment",
    "anchor": "a name",
    "boolean": "`true` or `false`",
    "number": "a number",
    "number above 0": "a number above 0",
    "count": "a whole number from 0",
    "list": "a list",
    "names": "a list of different texts",
    "named names": "a mapping of lists of different texts",
}
_IS: dict[str, Any] = {
    "text": lambda value: isinstance(value, str),
    "base": lambda value: isinstance(value, str) and "#" not in value.removesuffix("#"),
    "anchor": lambda value: isinstance(value, str) and _ANCHOR.fullmatch(value) is not None,
    "boolean": lambda value: isinstance(value, bool),
    "number": is_number,
    "number above 0": lambda value: is_number(value) and value > 0,
    "count": lambda value: is_number(value) and value >= 0 and value % 1 == 0,
    "list": lambda value: isinstance(value, list),
    "names": _is_names,
    "named names": lambda value: isinstance(value, dict) and all(map(_is_names, value.values())),
    "anything": lambda _: True,
}
_JUDGES: dict[str, Callable[[str, Any], Wrong | None]] = {
    "draft": _wrong_draft,
    "dynamic": _not_supported,
    "split in two": _split_in_two,
    "reference": _wrong_reference,
    "types": _wrong_types,
    "pattern": _wrong_pattern,
    "masking": _wrong_masking,
}
