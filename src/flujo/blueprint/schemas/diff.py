"""Compares two JSON Schemas field by field."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


def changes(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Yield a sentence for each difference: a field added or removed, another type, a changed keyword."""
    if before == after:
        return
    if not (isinstance(before, dict) and isinstance(after, dict)):
        yield f"{_where(path)} was {_shown(before)} and is {_shown(after)}"
        return
    for key in sorted({*before, *after}, key=lambda key: _ORDER.get(key, (len(_ORDER), key))):
        was, now = before.get(key, _NOTHING), after.get(key, _NOTHING)
        if was != now:
            told = list(_FINER[key](before, after, path)) if key in _FINER else []
            yield from told or [_keyword(path, key, was, now)]


def _fields(before: dict[str, Any], after: dict[str, Any], path: str) -> Iterator[str]:
    was, now = _properties(before), _properties(after)
    for name in sorted({*was, *now}):
        here = _where(_below(path, name))
        if name not in was:
            yield f"{here} is new ({kind(now[name])})"
        elif name not in now:
            yield f"{here} was removed ({kind(was[name])})"
        else:
            yield from changes(was[name], now[name], _below(path, name))


def _items(before: dict[str, Any], after: dict[str, Any], path: str) -> Iterator[str]:
    if "items" in before and "items" in after:
        yield from changes(before["items"], after["items"], f"{path}[]")


def _needs(before: dict[str, Any], after: dict[str, Any], path: str) -> Iterator[str]:
    for name in sorted(_required(before) ^ _required(after)):
        how = "is now required" if name in _required(after) else "is no longer required"
        yield f"{_where(_below(path, name))} {how}"


def _choices(before: dict[str, Any], after: dict[str, Any], path: str) -> Iterator[str]:
    was, now = before.get("enum"), after.get("enum")
    if isinstance(was, list) and isinstance(now, list):
        gone, new = [each for each in was if each not in now], [each for each in now if each not in was]
        parts = [f"no longer {_listed(gone)}"] if gone else []
        parts += [f"{_listed(new)} as well"] if new else []
        if parts:
            yield f"{_where(path)} may be {', and '.join(parts)}"


def _type(before: dict[str, Any], after: dict[str, Any], path: str) -> Iterator[str]:
    yield f"{_where(path)} was {kind({**before, 'enum': None})} and is {kind({**after, 'enum': None})}"


_NOTHING: Any = object()
_ORDER = {"type": (0, ""), "properties": (1, ""), "items": (2, ""), "required": (3, "")}
_FINER: Mapping[str, Callable[[dict[str, Any], dict[str, Any], str], Iterator[str]]] = {
    "properties": _fields,
    "items": _items,
    "required": _needs,
    "enum": _choices,
    "type": _type,
}
"""Keywords with a detailed description; if it yields nothing, the two values are shown."""


def _keyword(path: str, key: str, was: Any, now: Any) -> str:
    return f"{_where(path)}: `{key}` was {_shown(was)} and is {_shown(now)}"


def kind(schema: Any) -> str:
    """Return the type that a schema allows, as a short text."""
    if not isinstance(schema, dict):
        return "anything"
    if isinstance(schema.get("enum"), list):
        return f"one of {_listed(schema['enum'])}"
    said = schema.get("type", "anything")
    return said if isinstance(said, str) else json.dumps(said)


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    said = schema.get("properties")
    return said if isinstance(said, dict) else {}


def _required(schema: dict[str, Any]) -> set[str]:
    said = schema.get("required", [])
    return {name for name in said if isinstance(name, str)} if isinstance(said, list) else set()


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _where(path: str) -> str:
    return f"field `{path}`" if path else "the value"


def _listed(values: list[Any]) -> str:
    return ", ".join(json.dumps(value, ensure_ascii=False) for value in values)


def _shown(value: Any) -> str:
    return "nothing" if value is _NOTHING else json.dumps(value, ensure_ascii=False, sort_keys=True)
