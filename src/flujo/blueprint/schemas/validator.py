"""Compiled JSON Schemas, which validate values and report violations in plain words."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from flujo.blueprint.diagnostics import one_of
from flujo.blueprint.schemas.checks import problems
from flujo.blueprint.schemas.keywords import kind_of
from flujo.domain.wording import short
from flujo.exceptions import BlueprintError, OutputRejected
from flujo.json_schema.complexity import CheckTooLong
from flujo.json_schema.validator import Validator

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOO_LONG = "the value takes too many steps to be checked"

MAX_VIOLATIONS = 5
"""How many violations one message lists."""

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
    "const": "is not {}",
    "anyOf": "fits none of the alternatives",
    "oneOf": "fits none, or more than one, of the alternatives",
    "not": "must not fit the schema in `not`",
}


def compile_schema(schema: Any) -> CompiledSchema:
    """Compile a JSON Schema.

    Raises:
        BlueprintError: it is not a JSON Schema of draft 2020-12, or Flujo does not support it.
    """
    found = [problem for problem in problems(schema) if problem.severity == "error"]
    if found:
        first = found[0]
        where = f" (at `{'.'.join(map(str, first.path))}`)" if first.path else ""
        raise BlueprintError(f"a JSON Schema cannot be used: {first.message}{where}", hint=first.hint)
    return CompiledSchema(schema)


class CompiledSchema:
    """A JSON Schema that checks values. References are never fetched, and `format` is not checked."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        self._validator = Validator(schema)

    def check(self, value: Any, *, what: str) -> Any:
        """Return `value`, which must fit, with each `integer` as an int and each `number` as a float.

        Args:
            value: JSON data.
            what: how the message names the value, `output of step 'sort'`.

        Raises:
            OutputRejected: with up to five violations in the message and in `violations`.
        """
        found = list(itertools.islice(self.violations(value), MAX_VIOLATIONS + 1))
        if not found:
            try:
                return self._validator.declared(value)
            except CheckTooLong:
                found = [_TOO_LONG]
        shown = found[:MAX_VIOLATIONS]
        more = " · and more" if len(found) > MAX_VIOLATIONS else ""
        raise OutputRejected(
            f"{what} does not fit its schema: {' · '.join(shown)}{more}",
            hint="change the schema, or the source of the value",
            violations=tuple(shown),
        )

    def violations(self, value: Any) -> Iterator[str]:
        """Yield the violations, as sentences that start with the place in the value."""
        try:
            for error in self._validator.iter_errors(value):
                place = "".join(
                    f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path
                )
                yield (
                    f"`{place.removeprefix('.')}` {_reason(error)}"
                    if place
                    else f"the value {_reason(error)}"
                )
        except RecursionError:
            yield "the value is nested too deeply to be checked"
        except CheckTooLong:
            yield _TOO_LONG


def _reason(error: Any) -> str:
    """Return why one keyword refuses a value."""
    wanted, value = error.validator_value, error.instance
    match error.validator:
        case "type":
            names = wanted if isinstance(wanted, list) else [wanted]
            return f"must be {one_of(names)}, not {kind_of(value)}"
        case "enum":
            return f"must be one of {', '.join(map(_short, wanted))}, not {_short(value)}"
        case "required":
            return f"lacks {one_of((name for name in wanted if name not in value), joined_by='and')}"
        case "additionalProperties":
            odd = (name for name in value if name not in error.schema.get("properties", {}))
            return f"has keys that are not allowed: {one_of(odd, joined_by='and')}"
        case None:  # the schema `false`, for which jsonschema has no place
            return "is not allowed"
        case keyword:
            return _REASONS.get(keyword, f"breaks `{keyword}`").format(_short(wanted))


def _short(value: Any) -> str:
    return short(repr(value) if isinstance(value, str) else str(value))
