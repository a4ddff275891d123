"""Reads a model's answer as a value that fits a JSON Schema, and lists every repair.

Three levels of tolerance. 0: only JSON is accepted. 1: code fences and prose around the JSON are removed, and
a value of the wrong type is converted where its meaning is certain ("3" is 3). 2: broken JSON is repaired by
json-repair. Valid values are never changed, at any level.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from flujo.domain.wording import short
from flujo.exceptions import AgentError, OutputRejected
from flujo.json_schema.complexity import SchemaTooComplex, check_complexity
from flujo.json_schema.re2_patterns import PatternRefused
from flujo.json_schema.validator import Validator

MAX_BYTES = 256 * 1024
MAX_DEPTH = 64
MAX_CANDIDATES = 50
"""How many JSON values of one answer are tried."""

_FENCE = re.compile(r"```[ \t]*(?:json[c5]?|JSON)?[ \t]*\r?\n?(.*?)(?:```|\Z)", re.DOTALL)
_START = re.compile(r"[{\[]")
_STRINGS = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\\?\Z)', re.DOTALL)  # an open one runs to the end: linear time


@dataclass(frozen=True, slots=True)
class Reading:
    """A value that fits, and the repairs that it needed, in order."""

    value: Any
    repairs: tuple[str, ...] = ()


class OutputReader:
    """Reads answers against one JSON Schema (2020-12, no remote references).

    Providers' JSON modes require an object at the root. For any other schema, the model writes an object with
    the field `value`, and the reader returns that field.

    Args:
        schema: the JSON Schema of the value.
        level: 0 strict · 1 strip and coerce · 2 also repair.

    Raises:
        AgentError: `schema` is not a JSON Schema.
    """

    def __init__(self, schema: Any, *, level: int) -> None:
        self.level = level
        self.is_text = _is_plain_text(schema)
        """Whether the answer is plain text, not JSON."""
        self.is_wrapped = not self.is_text and not _is_object(schema)
        self.asked_schema: Any = _wrapped(schema) if self.is_wrapped else schema
        """The schema that is sent to the model."""
        self._is_scalar = self.is_wrapped and _is_scalar(schema)
        self._validator = _validator(schema)

    def read(self, text: str) -> Reading:
        """Return the first value in `text` that fits.

        Raises:
            OutputRejected: none fits; `reason` is why, `answer` is the start of the text.
        """
        if self.is_text:
            return self._fitted(text, text, ())
        _refuse_size(text)
        rejected: OutputRejected | None = None
        reason = "it contains no JSON"
        try:
            for value, repairs in self._candidates(text):
                try:
                    return self._fitted(text, value, repairs)
                except OutputRejected as error:
                    rejected = rejected or error
        except _NotJson as error:
            reason = str(error)
        raise rejected or _rejected(text, reason)

    def _candidates(self, text: str) -> Iterator[tuple[Any, tuple[str, ...]]]:
        if self._is_scalar and self.level >= 1 and not _is_json(text):
            yield text.strip(), ("used the text as the value",)
        for value, repairs in _candidates(text, self.level):
            if self.is_wrapped and isinstance(value, dict) and list(value) == ["value"]:
                yield value["value"], repairs
            else:
                yield value, repairs

    def _fitted(self, text: str, value: Any, repairs: tuple[str, ...]) -> Reading:
        """Return `value` as a reading, coerced where necessary."""
        notes: tuple[str, ...] = ()
        try:
            if self.level >= 1 and not self.is_text:
                value, notes = self._validator.coerced(value)
            found = list(islice(self._validator.violations(value), 5))
        except Exception as error:  # references are resolved here; their errors share no class
            raise _rejected(text, f"the schema cannot be applied: {error}") from error
        if found:
            raise _rejected(text, "; ".join(found))
        return Reading(self._validator.declared(value), repairs + notes)


class _NotJson(ValueError):
    """The text is not acceptable JSON; the message is the reason."""


def _candidates(text: str, level: int) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yield the JSON values that `text` may mean, the most literal one first."""
    try:
        yield _strict(text), ()
        return
    except _NotJson:
        if level < 1:
            raise
    found = False
    for value, note in _embedded(text):
        found = True
        yield value, (note,)
    if level >= 2 and not found:
        yield _repaired(text), ("repaired broken JSON",)


def _strict(text: str) -> Any:
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise _NotJson("it is nested too deeply") from error
    except ValueError as error:
        raise _NotJson(f"it is not JSON: {error}") from error


def _is_json(text: str) -> bool:
    try:
        _strict(text)
    except _NotJson:
        return False
    return True


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is too large for a number")
    return number


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def _embedded(text: str) -> Iterator[tuple[Any, str]]:
    """Yield valid JSON inside code fences, then objects and lists inside prose."""
    fences = [match.group(1) for match in _FENCE.finditer(text)]
    for content in fences[:MAX_CANDIDATES]:
        try:
            yield _strict(content), "extracted the JSON from a code fence"
        except _NotJson:
            continue
    position = 0
    for _ in range(MAX_CANDIDATES):
        start = _START.search(text, position)
        if start is None:
            return
        try:
            value, position = _DECODER.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            position = start.end()
            continue
        yield value, "removed the text around the JSON"


def _repaired(text: str) -> Any:
    import json_repair

    fence = _FENCE.search(text)
    source = fence.group(1) if fence and _START.search(fence.group(1)) else text
    start = _START.search(source)
    if start is None:
        raise _NotJson("it contains no JSON")
    try:
        value = json_repair.loads(source[start.start() :], skip_json_loads=True)
    except RecursionError as error:
        raise _NotJson("it is nested too deeply") from error
    except Exception as error:  # a parser of broken text may fail in any way
        raise _NotJson(f"it is not JSON, and could not be repaired: {error}") from error
    if not isinstance(value, dict | list) or not _is_finite(value):
        raise _NotJson("it is not JSON, and could not be repaired")
    # json-repair leaves `\ud83d\ude00` as two surrogates, which cannot be encoded.
    return _strict(json.dumps(value))


def _is_finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(_is_finite(item) for item in value.values())
    return all(_is_finite(item) for item in value) if isinstance(value, list) else True


def _refuse_size(text: str) -> None:
    if not text.strip():
        raise _rejected(text, "it is empty")
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        raise _rejected(text, f"it has {size:,} bytes, more than {MAX_BYTES:,}")
    depth = deepest = 0
    for character in _STRINGS.sub("", text):
        if character in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "}]":
            depth -= 1
    if deepest > MAX_DEPTH:
        raise _rejected(text, f"it is nested {deepest} levels deep, more than {MAX_DEPTH}")


def _rejected(text: str, reason: str) -> OutputRejected:
    start = short(text, 200)
    return OutputRejected(
        f"the answer does not fit the output schema: {reason}; it starts with {start!r}",
        hint="make `instructions` more precise, make the schema simpler, or use a larger model",
        reason=reason,
        answer=start,
    )


def _validator(schema: Any) -> Any:
    from jsonschema import Draft202012Validator, SchemaError

    try:
        check_complexity(schema)
        Draft202012Validator.check_schema(schema)
    except (SchemaTooComplex, RecursionError) as error:
        raise AgentError(
            f"the output schema is too complex: {error}",
            hint="merge alternatives, or divide the value into fields",
        ) from error
    except SchemaError as error:
        raise AgentError(
            f"the output schema is not a JSON Schema: {error.message}",
            hint="see the JSON Schema 2020-12 specification",
        ) from error
    try:
        return Validator(schema)
    except PatternRefused as refused:
        raise AgentError(
            f"the output schema has a pattern that is not supported: {refused}",
            hint="write it without lookaround and backreferences, which can take very long to match",
        ) from refused


def _is_plain_text(schema: Any) -> bool:
    return (
        isinstance(schema, Mapping) and schema.get("type") == "string" and not {"enum", "const"} & set(schema)
    )


def _is_object(schema: Any) -> bool:
    return isinstance(schema, Mapping) and (schema.get("type") == "object" or "properties" in schema)


def _is_scalar(schema: Any) -> bool:
    if not isinstance(schema, Mapping):
        return False
    return "enum" in schema or "const" in schema or schema.get("type") in ("integer", "number", "boolean")


def _wrapped(schema: Any) -> dict[str, Any]:
    shared = ("$defs", "definitions")
    inner = {k: v for k, v in schema.items() if k not in shared} if isinstance(schema, Mapping) else schema
    outer = {k: schema[k] for k in shared if isinstance(schema, Mapping) and k in schema}
    return {
        "type": "object",
        "properties": {"value": inner},
        "required": ["value"],
        "additionalProperties": False,
        **outer,
    }
