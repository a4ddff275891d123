"""Words for what does not fit a JSON Schema: which field, what it must be, and what it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain.wording import kind_of, listed, plural, short
from flujo.json_schema.complexity import referred

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_REASONS = {
    "minimum": "is below {}",
    "maximum": "is above {}",
    "exclusiveMinimum": "is not above {}",
    "exclusiveMaximum": "is not below {}",
    "multipleOf": "is not a multiple of {}",
    "minLength": "has fewer than {} characters",
    "maxLength": "has more than {} characters",
    "pattern": "does not match `{}`",
    "minItems": "has fewer than {} items",
    "maxItems": "has more than {} items",
    "items": "has more items than are allowed",
    "uniqueItems": "has duplicate items",
    "contains": "has too few or too many items that fit `contains`",
    "unevaluatedItems": "has items that are not allowed",
    "minProperties": "has fewer than {} keys",
    "maxProperties": "has more than {} keys",
    "dependentRequired": "lacks keys that its other keys require",
    "unevaluatedProperties": "has keys that are not allowed",
    "not": "must not fit the schema in `not`",
}
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_KINDS: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": (int, float),
    "boolean": bool,
    "null": type(None),
}
_UNIONS = ("anyOf", "oneOf")
_MAX_DEPTH = 8
"""How many alternatives inside alternatives are followed."""


def sentences(draft: Any, value: Any) -> Iterator[str]:
    """Yield each violation as a sentence that starts with its place in the value.

    A value that can only be meant as one of several alternatives is compared with that one.

    Args:
        draft: the validator of the schema.
        value: JSON data.
    """
    seen = set()
    for sentence in _sentences(draft, draft.schema, value, "", 0):
        if sentence not in seen:  # `required` is violated once per missing key
            seen.add(sentence)
            yield sentence


def _sentences(draft: Any, root: Any, value: Any, place: str, depth: int) -> Iterator[str]:
    for error in draft.iter_errors(value):
        here = place + "".join(
            f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path
        )
        if error.validator in _UNIONS and depth < _MAX_DEPTH:
            meant = _meant(error.validator_value, error.instance, root)
            if meant is not None:
                inner = list(_sentences(draft.evolve(schema=meant), root, error.instance, here, depth + 1))
                if inner:  # a value that fits several alternatives of `oneOf` has no violation inside
                    yield from inner
                    continue
        subject = f"`{here.removeprefix('.')}`" if here else "the value"
        yield f"{subject} {_reason(error, root)}"


def _meant(alternatives: Sequence[Any], value: Any, root: Any) -> Any:
    """Return the only alternative of the value's type, or the only one whose fixed fields it has, or None."""
    found = [end for each in alternatives if _takes_type(end := _resolved(each, root), value)]
    if len(found) > 1 and isinstance(value, dict):
        found = [each for each in found if _has_fixed_fields(each, value, root)]
    # A union inside is followed by its own error.
    return found[0] if len(found) == 1 and not found[0].keys() & {"enum", "const"} else None


def _resolved(schema: Any, root: Any) -> Any:
    for _ in range(_MAX_DEPTH):
        if not isinstance(schema, dict) or "$ref" not in schema:
            break
        schema = referred(schema["$ref"], root)
    return schema


def _takes_type(schema: Any, value: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    kinds = schema.get("type", "object" if "properties" in schema else ())
    names = [kinds] if isinstance(kinds, str) else kinds
    return any(
        isinstance(value, _KINDS[name]) and isinstance(value, bool) == (name == "boolean") for name in names
    )


def _has_fixed_fields(schema: dict[str, Any], value: dict[str, Any], root: Any) -> bool:
    """Return whether the fields with listed values, such as a discriminator, have one of them."""
    fixed = []
    for name, each in schema.get("properties", {}).items():
        inner = _resolved(each, root)
        if not isinstance(inner, dict):
            continue
        options = inner.get("enum", [inner["const"]] if "const" in inner else None)
        if options is not None and name in value:
            fixed.append(value[name] in options)
    return bool(fixed) and all(fixed)


def _reason(error: Any, root: Any) -> str:
    """Return why one keyword refuses a value."""
    wanted, value = error.validator_value, error.instance
    match error.validator:
        case "type":
            names = wanted if isinstance(wanted, list) else [wanted]
            return f"must be {listed(names, 'or')}, not {_found(value)}"
        case "enum":
            return f"must be one of {', '.join(map(_short, wanted))}, not {_short(value)}"
        case "const":
            return f"must be {_short(wanted)}, not {_found(value)}"
        case "anyOf" | "oneOf":
            expected = listed(dict.fromkeys(_expected(each, root) for each in wanted), "or", most=6)
            fits_several = error.validator == "oneOf" and "more than one" in error.message
            return (
                f"fits more than one of {expected}"
                if fits_several
                else f"must be {expected}, not {_found(value)}"
            )
        case "required":
            return f"lacks {listed([name for name in wanted if name not in value], 'and')}"
        case "additionalProperties":
            odd = [name for name in value if name not in error.schema.get("properties", {})]
            return f"has keys that are not allowed: {listed(odd, 'and')}"
        case None:  # the schema `false`, for which jsonschema has no place
            return "is not allowed"
        case keyword:
            reason = _REASONS.get(keyword, f"breaks `{keyword}`").format(_short(wanted))
            if keyword in _COUNTS and wanted == 1:
                reason = reason.removesuffix("s")
            return reason if isinstance(value, dict | list) else f"{reason}: {_short(value)}"


def _expected(schema: Any, root: Any) -> str:
    """Return an alternative in a few words."""
    schema = _resolved(schema, root)
    if not isinstance(schema, dict):
        return "nothing" if schema is False else "any value"
    if "const" in schema or "enum" in schema:
        return " | ".join(map(_short, schema.get("enum", [schema.get("const")])))
    if required := schema.get("required"):
        return f"object with {', '.join(required)}"
    kinds = schema.get("type", "object" if "properties" in schema else "a value")
    return kinds if isinstance(kinds, str) else " | ".join(kinds)


def _found(value: Any) -> str:
    """Return a value for a message: its type, and for texts and numbers the value itself."""
    match value:
        case str() | int() | float() if not isinstance(value, bool):
            return f"{kind_of(value)}: {_short(value)}"
        case bool():
            return f"{kind_of(value)}: {str(value).lower()}"
        case dict() if value:
            return f"{kind_of(value)} with {listed(value, 'and', most=6)}"
        case list():
            return f"{kind_of(value)} of {plural(len(value), 'item')}" if value else "an empty list"
        case _:
            return kind_of(value)


def _short(value: Any) -> str:
    return short(repr(value) if isinstance(value, str) else str(value))
