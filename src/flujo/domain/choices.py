"""Choices from data: `enum: "{{ … }}"` inside the schema of a human's answer.

In the tree, such an `enum` is an `Expr`. It is evaluated when the question is opened, and recorded with
it. Until then, all that is known about the value is that it is text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from flujo.domain.values import Expr

MAX_CHOICES = 1_000

_DATA = ("const", "default", "examples")
"""Keywords with data, in which `enum` is not a keyword."""


def with_expressions(schema: Any) -> Any:
    """Return a schema in which each `enum: "{{ … }}"` is an expression."""
    return _replaced(schema, lambda found, _: {"enum": Expr(_source(found))})


def fixed(schema: Any) -> Any:
    """Return a schema without its choices from data; their values are text."""
    return _replaced(schema, lambda _, others: {} if "type" in others else {"type": "string"})


def asked(schema: Any, choices: Callable[[Expr], list[str]]) -> Any:
    """Return a schema whose choices from data are lists, which `choices` evaluates."""
    return _replaced(schema, lambda found, _: {"enum": choices(Expr(_source(found)))})


def as_text(schema: Any) -> Any:
    """Return a schema as a blueprint has it: with texts in place of expressions."""
    return _replaced(schema, lambda found, _: {"enum": f"{{{{ {_source(found)} }}}}"})


def written(schema: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield each choice from data as a blueprint has it, with its place in the schema."""
    if isinstance(schema, list):
        for index, each in enumerate(schema):
            yield from written(each, (*path, index))
    elif isinstance(schema, Mapping):
        for key, value in schema.items():
            if _is_choice(key, value):
                yield (*path, key), str(value)
            elif key not in _DATA:
                yield from written(value, (*path, key))


def _is_choice(key: str, value: Any) -> bool:
    if key != "enum":
        return False
    is_text = isinstance(value, str) and value.strip().startswith("{{") and value.strip().endswith("}}")
    return is_text or isinstance(value, Expr)


def _source(found: Expr | str) -> str:
    return found.source if isinstance(found, Expr) else found.strip()[2:-2].strip()


def _replaced(schema: Any, instead: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]]) -> Any:
    """Return a schema with other entries for its choices from data; the same one if it has none."""
    if isinstance(schema, list):
        items = [_replaced(each, instead) for each in schema]
        return items if any(new is not old for new, old in zip(items, schema, strict=True)) else schema
    if not isinstance(schema, Mapping):
        return schema
    changed: dict[str, Any] = {}
    for key, value in schema.items():
        if _is_choice(key, value):
            changed |= instead(value, schema)
        else:
            changed[key] = value if key in _DATA else _replaced(value, instead)
    is_same = changed.keys() == schema.keys() and all(changed[key] is schema[key] for key in changed)
    return schema if is_same else changed
