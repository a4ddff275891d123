"""Converts the numbers of a valid value to the types that its schema declares.

JSON has one type of numbers, and expressions have two: 3 / 2 is 1, and 3.0 / 2.0 is 1.5. So a `number` is a
float and an `integer` is an int, however they were written. No digit is lost: an integer that a float cannot
hold stays an integer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.json_schema.complexity import DATA
from flujo.json_schema.re2_patterns import is_found

if TYPE_CHECKING:
    from collections.abc import Iterator

_NUMERIC = frozenset({"integer", "number"})
_EXACT = 2**64
"""Integers from here on cannot be stored, and may be too large for a float."""


def mentions_numbers(schema: Any) -> bool:
    """Return whether a schema, without the targets of its references, declares a number."""
    if isinstance(schema, list):
        return any(map(mentions_numbers, schema))
    if not isinstance(schema, dict):
        return False
    return bool(_own(schema)) or any(
        mentions_numbers(inner) for key, inner in schema.items() if key not in DATA
    )


def declared(validator: Any, value: Any) -> Any:
    """Return `value` with its numbers in their declared types; the same object when nothing changes.

    Args:
        validator: a jsonschema validator of draft 2020-12 with the schema.
        value: JSON data that fits the schema; not changed.
    """
    if isinstance(value, bool | str | None):
        return value
    if isinstance(value, int | float):
        return _as(_wanted(validator, value), value)
    schema = validator.schema
    if not isinstance(schema, dict):
        return value
    value = _members(validator, schema, value)
    for each in _in_place(validator, schema, value):
        value = declared(each, value)
    for options in _choices(validator, schema):
        value = _chosen(options, value)
    return value


def _members(validator: Any, schema: dict[str, Any], value: Any) -> Any:
    """Return a list or a mapping with its members converted."""
    changed: dict[Any, Any] = {}
    for key, inner in _inner(schema, value):
        old = changed.get(key, value[key])
        new = declared(validator.evolve(schema=inner), old)
        if new is not old:
            changed[key] = new
    if not changed:
        return value
    if isinstance(value, list):
        return [changed.get(index, item) for index, item in enumerate(value)]
    return {**value, **changed}


def _inner(schema: dict[str, Any], value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the keys and indexes of a value, each with a schema of its member."""
    if isinstance(value, list):
        first = schema.get("prefixItems", ())
        yield from zip(range(len(value)), first, strict=False)
        if _matters(schema.get("items")):
            yield from ((index, schema["items"]) for index in range(len(first), len(value)))
        return
    properties, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    yield from ((key, inner) for key, inner in properties.items() if key in value and _matters(inner))
    for pattern, inner in patterns.items():
        yield from ((key, inner) for key in value if is_found(pattern, key))
    if _matters(rest := schema.get("additionalProperties")):
        for key in value.keys() - properties.keys():
            if not any(is_found(pattern, key) for pattern in patterns):
                yield key, rest


def _matters(schema: Any) -> bool:
    """Return whether a schema may declare a number; a plain one of another type does not."""
    return isinstance(schema, dict) and not (
        schema.keys() <= {"type", "title", "description", "default"} and not _own(schema)
    )


def _in_place(validator: Any, schema: dict[str, Any], value: Any) -> Iterator[Any]:
    """Yield a validator for each schema that applies to the same value and must hold."""
    if "$ref" in schema:
        resolved = validator._resolver.lookup(schema["$ref"])  # private, as in `linear_validator`
        yield validator.evolve(schema=resolved.contents, _resolver=resolved.resolver)
    for inner in schema.get("allOf", ()):
        yield validator.evolve(schema=inner)
    if "if" in schema:
        condition = validator.evolve(schema=schema["if"])
        holds = condition.is_valid(value)
        if holds:
            yield condition
        if (then := "then" if holds else "else") in schema:
            yield validator.evolve(schema=schema[then])
    if isinstance(value, dict):
        for key, inner in schema.get("dependentSchemas", {}).items():
            if key in value:
                yield validator.evolve(schema=inner)


def _choices(validator: Any, schema: dict[str, Any]) -> Iterator[list[Any]]:
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            yield [validator.evolve(schema=inner) for inner in schema[keyword] if inner != {"type": "null"}]


def _chosen(options: list[Any], value: Any) -> Any:
    """Return a list or mapping as an alternative that it fits declares it; one that changes nothing wins."""
    found = value
    for option in options:
        if len(options) == 1 or option.is_valid(value):
            new = declared(option, value)
            if new is value:
                return value
            found = new if found is value else found
    return found


def _wanted(validator: Any, value: int | float) -> str | None:
    """Return the type that a schema declares for a number: `integer`, `number`, or None for either."""
    schema = validator.schema
    if not isinstance(schema, dict):
        return None
    own = _own(schema)
    wanted = {next(iter(own)) if len(own) == 1 else None}
    wanted |= {_wanted(each, value) for each in _in_place(validator, schema, value)}
    for options in _choices(validator, schema):
        ways = {_wanted(each, value) for each in options if len(options) == 1 or each.is_valid(value)}
        # A value that one alternative declares as it is stays as it is.
        wanted.add(None if None in ways or _type(value) in ways else next(iter(ways), None))
    return "integer" if "integer" in wanted else "number" if "number" in wanted else None


def _own(schema: dict[str, Any]) -> frozenset[str]:
    """Return the types of numbers that a schema itself declares: by `type`, else by its constants."""
    said = schema.get("type")
    if said is None:
        values = [schema["const"]] if "const" in schema else schema.get("enum", ())
        said = [_type(value) for value in values if isinstance(value, int | float)]
    return _NUMERIC.intersection([said] if isinstance(said, str) else said)


def _type(value: Any) -> str:
    return "boolean" if isinstance(value, bool) else "integer" if isinstance(value, int) else "number"


def _as(wanted: str | None, value: int | float) -> int | float:
    if wanted == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    if wanted == "number" and isinstance(value, int) and abs(value) < _EXACT and float(value) == value:
        return float(value)
    return value
