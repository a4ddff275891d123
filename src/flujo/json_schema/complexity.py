"""Bounds the work of a validation: how many schemas apply to one value, and how many steps a check may take.

Schemas that share definitions can double the work at each level: twenty levels of `anyOf`, each with two
references to the next, are a million checks of one value.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_APPLIED = 1_000
"""How many schemas may apply to the same value."""

MAX_NESTED = 64
"""How many of them may be inside each other."""

DATA = frozenset({"const", "enum", "default", "examples"})
"""Keywords that hold values and not schemas."""

_STEPS = 50_000
_STEPS_PER_NODE = 16


class SchemaTooComplex(ValueError):
    """A schema applies too many schemas to one value; `schema` is where they begin."""

    def __init__(self, message: str, schema: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.schema = schema


TOO_LONG = "the value takes too many steps to be checked"
"""The violation of a value that is too expensive to check."""


class CheckTooLong(Exception):
    """The check of a value takes too many steps."""


def check_complexity(schema: Any) -> None:
    """Count the schemas that apply to the same value, for each schema inside `schema`.

    Raises:
        SchemaTooComplex: more than `MAX_APPLIED` apply, or more than `MAX_NESTED` are inside each other.
    """
    counts, ends = dict[int, int](), dict[int, Any]()
    waiting = [schema]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            _count(each, schema, counts, ends, 0)
            waiting += (inner for key, inner in each.items() if key not in DATA)
        elif isinstance(each, list):
            waiting += each


def _count(
    schema: dict[str, Any], root: Any, counts: dict[int, int], ends: dict[int, Any], depth: int
) -> int:
    known = counts.get(id(schema))
    if known is not None:
        return known
    if depth > MAX_NESTED:
        raise SchemaTooComplex(f"more than {MAX_NESTED} schemas for one value are inside each other", schema)
    counts[id(schema)] = 1  # a cycle ends here
    total = 1 + sum(_count(inner, root, counts, ends, depth + 1) for inner in _applied(schema, root, ends))
    if total > MAX_APPLIED:
        raise SchemaTooComplex(f"more than {MAX_APPLIED:,} schemas apply to one value", schema)
    counts[id(schema)] = total
    return total


def _applied(schema: dict[str, Any], root: Any, ends: dict[int, Any]) -> Iterator[dict[str, Any]]:
    """Yield the schemas that apply to the same value as `schema`."""
    for keyword in ("allOf", "anyOf", "oneOf"):
        if isinstance(schema.get(keyword), list):
            yield from (each for each in schema[keyword] if isinstance(each, dict))
    for keyword in ("not", "if", "then", "else"):
        if isinstance(schema.get(keyword), dict):
            yield schema[keyword]
    if isinstance(schema.get("dependentSchemas"), dict):
        yield from (each for each in schema["dependentSchemas"].values() if isinstance(each, dict))
    for keyword in ("$ref", "$dynamicRef"):
        target = _end(referred(schema.get(keyword), root), root, ends)
        if isinstance(target, dict):
            yield target


def _end(schema: Any, root: Any, ends: dict[int, Any]) -> Any:
    """Return the schema at the end of a chain of references: it is as quick to check as a short one.

    `ends` holds the end of each chain that has been followed, so that no reference is followed twice.
    """
    passed: set[int] = set()
    while isinstance(schema, dict) and schema.keys() == {"$ref"} and id(schema) not in passed:
        if id(schema) in ends:
            schema = ends[id(schema)]
            break
        passed.add(id(schema))
        schema = referred(schema["$ref"], root)
    ends.update(dict.fromkeys(passed, schema))
    return schema


def referred(reference: Any, root: Any) -> Any:
    """Return the schema at a JSON pointer such as `#/$defs/a`; None for other references."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    here = root
    for part in unquote(reference[1:]).split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(here, dict):
            here = here.get(key)
        elif isinstance(here, list) and key.isdecimal() and int(key) < len(here):
            here = here[int(key)]
        else:
            return None
    return here


_left: ContextVar[int] = ContextVar("_left", default=_STEPS)


def begin(value: Any) -> None:
    """Start to count the steps of the check of `value`; larger values may take more."""
    nodes, waiting = 0, [value]
    while waiting:
        each = waiting.pop()
        nodes += 1
        if isinstance(each, dict | list):
            waiting += each.values() if isinstance(each, dict) else each
    _left.set(_STEPS + _STEPS_PER_NODE * nodes)


def step() -> None:
    """Count a step.

    Raises:
        CheckTooLong: there are too many.
    """
    left = _left.get()
    if left <= 0:
        raise CheckTooLong("the check takes too many steps")
    _left.set(left - 1)
