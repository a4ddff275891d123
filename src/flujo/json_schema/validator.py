"""Validates and coerces JSON without network access, with patterns in linear time and a limit of steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.json_schema.coercion import converted
from flujo.json_schema.complexity import DATA, TOO_LONG, CheckTooLong, begin, check_complexity
from flujo.json_schema.declared_types import declared, mentions_numbers
from flujo.json_schema.re2_patterns import check_pattern
from flujo.json_schema.violations import sentences

if TYPE_CHECKING:
    from collections.abc import Iterator


class Validator:
    """Checks values against a JSON Schema of draft 2020-12.

    A `$ref` to a URL or a file does not resolve, and `format` is not asserted.

    Raises:
        PatternRefused: RE2 does not compile one of its patterns.
        SchemaTooComplex: it applies too many schemas to one value.
    """

    def __init__(self, schema: Any) -> None:
        from referencing import Registry

        from flujo.json_schema.linear_validator import LinearDraft

        check_complexity(schema)
        for pattern in _patterns(schema):
            check_pattern(pattern)
        self._draft = LinearDraft(schema, registry=Registry())
        self._has_numbers = mentions_numbers(schema)

    def violations(self, value: Any) -> Iterator[str]:
        """Yield what does not fit, as sentences: which field, what it must be, and what it is."""
        begin(value)
        try:
            yield from sentences(self._draft, value)
        except RecursionError:
            yield "the value is nested too deeply to be checked"
        except CheckTooLong:
            yield TOO_LONG

    def coerced(self, value: Any) -> tuple[Any, tuple[str, ...]]:
        """Return `value`, with wrong types corrected if it then fits, and a note for each change.

        `flujo.json_schema.coercion` lists the rules. A value that fits is returned unchanged.
        """
        begin(value)
        try:
            if self._draft.is_valid(value):
                return value, ()
            new, notes = converted(value, self._draft)
            return (new, notes) if notes and self._draft.is_valid(new) else (value, ())
        except (RecursionError, CheckTooLong):
            return value, ()  # `violations` reports it

    def declared(self, value: Any) -> Any:
        """Return a valid value with its numbers in the types that the schema declares; see `declared_types`.

        Raises:
            CheckTooLong: the choice between alternatives takes too many steps.
        """
        if not self._has_numbers:
            return value
        begin(value)
        return declared(self._draft, value)


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
            if key not in DATA:
                yield from _patterns(inner)
