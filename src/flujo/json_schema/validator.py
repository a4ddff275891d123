"""Builds JSON Schema validators without network access, with patterns matched in linear time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.json_schema.re2_patterns import check_pattern

if TYPE_CHECKING:
    from collections.abc import Iterator


def validator(schema: Any) -> Any:
    """Return a `jsonschema` validator of draft 2020-12 whose patterns are matched in linear time.

    A `$ref` to a URL or a file does not resolve, and `format` is not asserted.

    Raises:
        PatternRefused: RE2 does not compile one of its patterns.
    """
    from referencing import Registry

    from flujo.json_schema.linear_validator import LinearDraft

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
