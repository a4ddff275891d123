"""The one way to check values with a JSON Schema: nothing is fetched, and no pattern takes forever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.jsonschema.re2_patterns import check_pattern

if TYPE_CHECKING:
    from collections.abc import Iterator


def validator(schema: Any) -> Any:
    """Return a `jsonschema` validator of draft 2020-12 whose patterns are matched in linear time.

    `$ref` to the network or to files finds nothing, and `format` is not asserted.

    Raises:
        PatternRefused: a pattern in it cannot be used.
    """
    from referencing import Registry

    from flujo.jsonschema.linear_validator import LinearDraft  # jsonschema costs more than all else to load

    for pattern in _patterns(schema):
        check_pattern(pattern)
    return LinearDraft(schema, registry=Registry())


_DATA = frozenset({"const", "enum", "default", "examples"})


def _patterns(schema: Any) -> Iterator[str]:
    if isinstance(schema, list):
        for each in schema:
            yield from _patterns(each)
    elif isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        if isinstance(schema.get("patternProperties"), dict):
            yield from schema["patternProperties"]
        for key, inner in schema.items():
            if key not in _DATA:
                yield from _patterns(inner)
