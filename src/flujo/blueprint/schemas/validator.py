"""Compiled JSON Schemas, which validate values and report violations in plain words."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from flujo.blueprint.schemas.checks import problems
from flujo.exceptions import BlueprintError, OutputRejected
from flujo.json_schema.complexity import TOO_LONG, CheckTooLong
from flujo.json_schema.validator import Validator

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_VIOLATIONS = 5
"""How many violations one message lists."""


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
                found = [TOO_LONG]
        shown = found[:MAX_VIOLATIONS]
        more = " · and more" if len(found) > MAX_VIOLATIONS else ""
        raise OutputRejected(
            f"{what} does not fit its schema: {' · '.join(shown)}{more}",
            hint="change the schema, or the source of the value",
            violations=tuple(shown),
        )

    def violations(self, value: Any) -> Iterator[str]:
        """Yield the violations, as sentences that start with the place in the value."""
        return self._validator.violations(value)

    def coerced(self, value: Any) -> tuple[Any, tuple[str, ...]]:
        """Return `value`, with wrong types corrected if it then fits, and a note for each change."""
        return self._validator.coerced(value)
