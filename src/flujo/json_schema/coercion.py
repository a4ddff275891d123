"""Light coercion: converts values of the wrong type where their meaning is certain, and lists each change.

Answers of models and humans, fields of the command line and scores of judges are converted by these rules and
no others, through `$ref`, `anyOf`, `oneOf`, `allOf` and `if`:

- Text becomes a number, a boolean or null when it is written as one: `"3"`, `"0.7"`, `"True"`, `"null"`.
- Text becomes a list or an object when it is the JSON of one.
- An integer or a boolean becomes text. A fraction does not: `1.10` was parsed as 1.1.
- A value becomes the one value of an `enum` or `const` that differs only by case, outer white space or type.
- A single value becomes a list of one. Text with separators does not, because it may be several items.
- An object with one key, which no item has, becomes the list that it holds.

Of several alternatives, exactly one converted value must remain. A value that fits is never changed.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from flujo.domain.wording import json_short
from flujo.json_schema import strict_json
from flujo.json_schema.complexity import referred, step
from flujo.json_schema.re2_patterns import is_found

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MAX_NOTES = 100
_MAX_DEPTH = 150
"""How many schemas may be inside each other while a value is converted."""
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_WORD = re.compile(r"[^\s,;|/&]+")
_EXACT = 2**53
"""The whole numbers below it are exact as floats."""

_NOTHING: Any = object()
_SCALARS = {"integer", "number", "boolean", "null"}

Place = tuple[Any, ...]
Converted = tuple[Any, tuple[str, ...]]
"""A value, and a note for each change."""


def converted(value: Any, draft: Any) -> Converted:
    """Return `value` with wrong types corrected, whether or not it then fits.

    Args:
        value: JSON data; not changed.
        draft: the validator of the schema.

    Raises:
        CheckTooLong: there are too many alternatives to try.
        RecursionError: the schema refers to itself endlessly.
    """
    new, notes = _Coercion(draft).at(value, draft.schema, ())
    if len(notes) > _MAX_NOTES:
        notes = (*notes[:_MAX_NOTES], f"and {len(notes) - _MAX_NOTES} more")
    return new, notes


def is_closed(schema: Any, root: Any, depth: int = 16) -> bool:
    """Return whether a schema takes only numbers, booleans, null and listed values: no free text."""
    if not isinstance(schema, dict) or not depth:
        return False
    if "enum" in schema or "const" in schema:
        return True
    if "$ref" in schema:
        return is_closed(referred(schema["$ref"], root), root, depth - 1)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            return all(is_closed(each, root, depth - 1) for each in schema[keyword])
    kinds = schema.get("type", ())
    names = {kinds} if isinstance(kinds, str) else set(kinds)
    return bool(names) and names <= _SCALARS


class _Coercion:
    """The conversion of one value."""

    def __init__(self, draft: Any) -> None:
        self._draft = draft
        self._root = draft.schema
        self._depth = 0
        self._listed_at: set[Place] = set()
        """Where a single value became a list: its item does not become a list again."""

    def at(self, value: Any, schema: Any, place: Place) -> Converted:
        """Return the value at `place` as `schema` describes it."""
        step()
        if self._depth > _MAX_DEPTH:
            raise RecursionError  # a real one inside jsonschema's Rust code is not an Exception
        self._depth += 1
        notes: tuple[str, ...] = ()
        if isinstance(schema, dict):
            for rule in (self._in_place, self._alternatives, self._listed, self._typed, self._inside):
                value, more = rule(value, schema, place)
                notes += more
        self._depth -= 1
        return value, notes

    def _fits(self, value: Any, schema: Any) -> bool:
        return bool(self._draft.evolve(schema=schema).is_valid(value))

    def _in_place(self, value: Any, schema: dict[str, Any], place: Place) -> Converted:
        """Convert by the schemas that apply to the same value."""
        applied = list(schema.get("allOf", ()))
        if "$ref" in schema:
            applied.append(referred(schema["$ref"], self._root))
        if "if" in schema:
            applied.append(schema.get("then" if self._fits(value, schema["if"]) else "else"))
        notes: tuple[str, ...] = ()
        for each in applied:
            value, more = self.at(value, each, place)
            notes += more
        return value, notes

    def _alternatives(self, value: Any, schema: dict[str, Any], place: Place) -> Converted:
        """Convert by the only alternative that the value can mean."""
        for keyword in ("anyOf", "oneOf"):
            alternatives = schema.get(keyword, ())
            if not any(self._fits(value, each) for each in alternatives):
                found = {}
                for each in alternatives:
                    new, notes = self.at(value, each, place)
                    if notes and self._fits(new, each):
                        found[json.dumps(new, sort_keys=True)] = new, notes
                if len(found) == 1:
                    return found.popitem()[1]
        return value, ()

    def _listed(self, value: Any, schema: dict[str, Any], place: Place) -> Converted:
        """Convert to the only value of an `enum` or `const` that is written like this one."""
        for keyword in ("const", "enum"):
            if keyword in schema and not self._fits(value, {keyword: schema[keyword]}):
                options = [schema["const"]] if keyword == "const" else schema["enum"]
                alike = [option for option in options if _is_alike(value, option)]
                if len(alike) == 1:
                    return alike[0], _note(value, alike[0], place)
        return value, ()

    def _typed(self, value: Any, schema: dict[str, Any], place: Place) -> Converted:
        """Convert to the only type that the value can mean."""
        if "type" not in schema or self._fits(value, {"type": schema["type"]}):
            return value, ()
        kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        found: list[Any] = []
        for kind in kinds:
            new = self._array(value, schema, place) if kind == "array" else _scalar(value, kind)
            if new is not _NOTHING and not any(strict_json.is_same(new, each) for each in found):
                found.append(new)
        return (found[0], _note(value, found[0], place)) if len(found) == 1 else (value, ())

    def _array(self, value: Any, schema: dict[str, Any], place: Place) -> Any:
        """Return the list that a value is, holds, or is the only item of; _NOTHING if that is uncertain."""
        items = schema.get("items", True)
        if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
            value = _parsed(value, list | dict)
            if isinstance(value, list):
                return value
        match value:
            case None:
                return _NOTHING
            case str() if not _WORD.fullmatch(value) and not is_closed(items, self._root):
                return _NOTHING
            case dict() if len(value) == 1 and not value.keys() <= self._names(items):
                (held,) = value.values()
                return held if isinstance(held, list) else _NOTHING
            case dict() if not value.keys() <= self._names(items):
                return _NOTHING
            case _ if value is _NOTHING or (place and place[:-1] in self._listed_at):
                return _NOTHING
            case _:
                self._listed_at.add(place)
                return [value]

    def _names(self, schema: Any) -> set[str]:
        """Return the names of the properties that a schema declares, at any of its alternatives."""
        step()
        if not isinstance(schema, dict):
            return set()
        inner = [*schema.get("allOf", ()), *schema.get("anyOf", ()), *schema.get("oneOf", ())]
        if "$ref" in schema:
            inner.append(referred(schema["$ref"], self._root))
        return set(schema.get("properties", ())).union(*map(self._names, inner))

    def _inside(self, value: Any, schema: dict[str, Any], place: Place) -> Converted:
        """Convert the items of a list and the values of an object; both are copied if they change."""
        notes: tuple[str, ...] = ()
        pairs = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        changed: dict[Any, Any] = {}
        for key, item in pairs:
            for inner in _schemas_of(key, schema):
                item, more = self.at(item, inner, (*place, key))
                if more:
                    changed[key] = item
                    notes += more
        if not changed:
            return value, ()
        if isinstance(value, dict):
            return value | changed, notes
        return [changed.get(index, item) for index, item in enumerate(value)], notes


def _schemas_of(key: Any, schema: dict[str, Any]) -> Iterator[Any]:
    """Yield the schemas of the item at an index or a key."""
    if isinstance(key, int):
        prefix = schema.get("prefixItems", ())
        yield prefix[key] if key < len(prefix) else schema.get("items")
        return
    properties = schema.get("properties", {})
    patterns = [
        inner for pattern, inner in schema.get("patternProperties", {}).items() if is_found(pattern, key)
    ]
    yield from patterns
    if key in properties:
        yield properties[key]
    elif not patterns:
        yield schema.get("additionalProperties")


def _is_alike(value: Any, option: Any) -> bool:
    """Return whether a value differs from an option only by case, outer white space, or type."""
    if isinstance(option, str):
        text = value if isinstance(value, str) else _scalar(value, "string")
        return isinstance(text, str) and text.strip().casefold() == option.strip().casefold()
    kind = {bool: "boolean", int: "number", float: "number", type(None): "null"}.get(type(option), "")
    new = _scalar(value, kind)
    # An enum of 1 takes 1.0 too.
    return new is not _NOTHING and new == option and isinstance(new, bool) == isinstance(option, bool)


def _scalar(value: Any, kind: str) -> Any:
    """Return a value as one of this type, or _NOTHING when its meaning is uncertain."""
    if kind == "string":
        return json.dumps(value) if isinstance(value, int) else _NOTHING
    if not isinstance(value, str):
        return _NOTHING
    text = value.strip()
    match kind:
        case "integer" | "number":
            return _number(text, whole=kind == "integer")
        case "boolean":
            return {"true": True, "false": False}.get(text.casefold(), _NOTHING)
        case "null":
            return None if text.casefold() == "null" else _NOTHING
        case "object":
            return _parsed(text, dict)
        case _:
            return _NOTHING


def _number(text: str, *, whole: bool) -> Any:
    if _INTEGER.fullmatch(text):
        return int(text)
    number = _parsed(text, float)
    if number is _NOTHING or not whole:
        return number
    return int(number) if number.is_integer() and abs(number) < _EXACT else _NOTHING


def _parsed(text: str, wanted: Any) -> Any:
    try:
        value = strict_json.loads(text)
    except ValueError:
        return _NOTHING
    return value if isinstance(value, wanted) else _NOTHING


def _note(value: Any, new: Any, place: Sequence[Any]) -> tuple[str, ...]:
    where = " at " + ".".join(map(str, place)) if place else ""
    return (f"read {json_short(value)} as {json_short(new)}{where}",)
