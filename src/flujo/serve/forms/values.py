"""From a value to the texts of a form's fields, and back.

The name of a field is the place of its value: `v` and a JSON pointer, `v/lines/0/sku`. More fields may
follow: `#rows` (how many items a list has), `#which` (the variant of a union), `#null` (no value); of a file
that is uploaded `#file`, and of one that was uploaded `#name`, beside the reference to it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from flujo.domain.context_references import ContextReference
from flujo.serve.forms.shapes import Kind, Shape, shape_of

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = "v"
MAX_ROWS = 100

ABSENT: Any = object()
"""Stands for a key that is left out: null is a value."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,300}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_NESTED = (Kind.OBJECT, Kind.LIST, Kind.UNION, Kind.JSON)


def key_of(above: str, part: str | int) -> str:
    """Return the name of the field for a part of a value."""
    text = str(part).replace("~", "~0").replace("/", "~1").replace("#", "~2")
    return f"{above}/{text}"


@dataclass(slots=True)
class Reading:
    """What the fields of a form make."""

    value: Any = ABSENT
    problems: dict[str, list[str]] = field(default_factory=dict)
    """What is wrong, by the name of the field."""
    keys: dict[str, str] = field(default_factory=dict)
    """The names of fields by their places in the value as messages write them: `lines[0].sku`."""

    def refuse(self, key: str, why: str) -> None:
        """Note what is wrong with a field."""
        self.problems.setdefault(key, []).append(why)

    def place(self, violations: tuple[str, ...]) -> None:
        """Note the violations of the schema at the fields that they are about, otherwise at the whole."""
        for violation in violations:
            found = re.match(r"`([^`]*)` (.*)", violation, re.DOTALL)
            place, why = (found[1], found[2]) if found else ("", violation.removeprefix("the value "))
            while place not in self.keys and place:
                place, why = re.sub(r"(\[\d+\]|\.?[^.\[]+)$", "", place), violation
            self.refuse(self.keys.get(place, ROOT), why)


# From a value to fields ------------------------------------------------------------------------------------


def form_for(schema: Any, value: Any = ABSENT) -> tuple[Shape, dict[str, str]]:
    """Return the shape of a form and the texts of its fields.

    A value that the fields cannot hold, such as one with a key that the schema does not name, is one field of
    JSON.

    Args:
        schema: the schema of the value.
        value: the value that the form begins with; without one, the defaults of the schema.
    """
    shape = shape_of(schema)
    data = fill(shape, value)
    if value is not ABSENT and not same(read(shape, data).value, value):
        shape = Shape(Kind.JSON, shape.schema, shape.label)
        data = fill(shape, value)
    return shape, data


def fill(shape: Shape, value: Any = ABSENT, root: str = ROOT) -> dict[str, str]:
    """Return the texts of the fields for a value; without one, those of the schema's defaults."""
    data: dict[str, str] = {}
    _fill(shape, value, root, data)
    return data


def _fill(shape: Shape, value: Any, key: str, data: dict[str, str]) -> None:
    if value is ABSENT:
        value = shape.schema.get("default", ABSENT)
    if value is None and shape.nullable and shape.kind in _NESTED:
        data[f"{key}#null"] = "on"
        value = ABSENT
    match shape.kind:
        case Kind.OBJECT:
            given = value if isinstance(value, dict) else {}
            for name, inner, _ in shape.members:
                _fill(inner, given.get(name, ABSENT), key_of(key, name), data)
        case Kind.LIST:
            rows = value if isinstance(value, list) else []
            data[f"{key}#rows"] = str(len(rows))
            for number, each in enumerate(rows):
                _fill(_item(shape), each, key_of(key, number), data)
        case Kind.UNION:
            _fill_union(shape, value, key, data)
        case _:
            if value is not ABSENT and (value is not None or shape.kind is Kind.JSON):
                data |= _filled(shape, value, key)


def _filled(shape: Shape, value: Any, key: str) -> dict[str, str]:
    """Return the text of a field that has no fields inside; nothing for a value that it cannot hold."""
    match shape.kind:
        case Kind.CHOICE:
            chosen = [str(number) for number, each in enumerate(shape.options) if same(each.value, value)]
            return {key: chosen[0]} if chosen else {}
        case Kind.JSON | Kind.FILE:
            return {key: json.dumps(value, ensure_ascii=False, indent=2)}
        case Kind.TEXT | Kind.LONG_TEXT if isinstance(value, str):
            return {key: value}
        case Kind.INTEGER | Kind.NUMBER if isinstance(value, int | float) and not isinstance(value, bool):
            return {key: json.dumps(value)}
    return {}


def _fill_union(shape: Shape, value: Any, key: str, data: dict[str, str]) -> None:
    """Fill in the first variant that holds the value."""
    if value is ABSENT:
        return
    for number, variant in enumerate(shape.variants):
        texts: dict[str, str] = {}
        _fill(variant, value, ROOT, texts)
        if same(read(variant, texts).value, value):
            data[f"{key}#which"] = str(number)
            _fill(variant, value, key, data)
            return


def same(one: Any, other: Any) -> bool:
    """Return whether two values are the same JSON."""
    return one is not ABSENT and json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


# From fields to a value ------------------------------------------------------------------------------------


def read(shape: Shape, data: Mapping[str, str], root: str = ROOT) -> Reading:
    """Return the value of a form's fields, and what is wrong with them."""
    reading = Reading()
    reading.value = _read(shape, data, root, "", reading, required=True)
    return reading


def _read(
    shape: Shape, data: Mapping[str, str], key: str, place: str, reading: Reading, *, required: bool
) -> Any:
    reading.keys[place] = key
    if shape.nullable and shape.kind in _NESTED and f"{key}#null" in data:
        return None
    if shape.kind is Kind.FIXED:
        return shape.options[0].value
    if not required and not _is_touched(data, key):
        return ABSENT
    match shape.kind:
        case Kind.OBJECT:
            return _read_object(shape, data, key, place, reading)
        case Kind.LIST:
            return _read_list(shape, data, key, place, reading)
        case Kind.UNION:
            which = _chosen(data.get(f"{key}#which", ""), len(shape.variants))
            if which is None:
                return _missing(shape, key, reading, required=required)
            return _read(shape.variants[which], data, key, place, reading, required=True)
        case _:
            pass
    text = data.get(key, "").replace("\r\n", "\n")
    if text.strip() == "" and not (text and shape.kind in (Kind.TEXT, Kind.LONG_TEXT)):
        return _missing(shape, key, reading, required=required)
    return _scalar(shape, text, key, reading)


def _scalar(shape: Shape, text: str, key: str, reading: Reading) -> Any:
    match shape.kind:
        case Kind.CHOICE:
            which = _chosen(text, len(shape.options))
            if which is not None:
                return shape.options[which].value
            reading.refuse(key, "choose one of the values")
        case Kind.INTEGER:
            if _INTEGER.fullmatch(text.strip()):
                return int(text)
            reading.refuse(key, "is not a whole number, such as 12")
        case Kind.NUMBER:
            if _INTEGER.fullmatch(text.strip()):
                return int(text)
            if _NUMBER.fullmatch(text.strip()) and isfinite(float(text)):
                return float(text)
            reading.refuse(key, "is not a number, such as 12.5")
        case Kind.JSON:
            return _read_json(text, key, reading)
        case Kind.FILE:
            return _read_reference(text, key, reading)
        case _:
            return text
    return ABSENT


def _read_json(text: str, key: str, reading: Reading) -> Any:
    def refuse(word: str) -> Any:
        raise ValueError(f"{word} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        reading.refuse(key, f"is not JSON: {error.msg}, in line {error.lineno}, column {error.colno}")
    except (ValueError, RecursionError) as error:
        reading.refuse(key, f"is not JSON: {error}")
    return ABSENT


def _read_reference(text: str, key: str, reading: Reading) -> Any:
    """Return the reference to a file, which the form brings back, or note what is wrong with it."""
    try:
        return ContextReference[bytes].model_validate_json(text).model_dump()
    except ValidationError:
        reading.refuse(key, "is not an uploaded file: choose it again")
        return ABSENT


def _read_object(shape: Shape, data: Mapping[str, str], key: str, place: str, reading: Reading) -> Any:
    found = {}
    for name, inner, required in shape.members:
        inside = f"{place}.{name}" if place else name
        value = _read(inner, data, key_of(key, name), inside, reading, required=required)
        if value is not ABSENT:
            found[name] = value
    return found


def _read_list(shape: Shape, data: Mapping[str, str], key: str, place: str, reading: Reading) -> Any:
    """Return the items; rows that nothing was filled in are left out."""
    found: list[Any] = []
    for row in range(rows_of(data, key)):
        value = _read(_item(shape), data, key_of(key, row), f"{place}[{len(found)}]", reading, required=False)
        if value is not ABSENT:
            found.append(value)
    return found


def _item(shape: Shape) -> Shape:
    assert shape.item is not None  # noqa: S101 - each list has the shape of its items
    return shape.item


def rows_of(data: Mapping[str, str], key: str) -> int:
    """Return how many rows of a list are shown."""
    found = _chosen(data.get(f"{key}#rows", ""), MAX_ROWS + 1)
    return found or 0


def _missing(shape: Shape, key: str, reading: Reading, *, required: bool) -> Any:
    if not required:
        return ABSENT
    if shape.nullable:
        return None
    reading.refuse(key, "is required")
    return ABSENT


def _is_touched(data: Mapping[str, str], key: str) -> bool:
    """Return whether anything was filled in for a value, or for a part of it."""
    return any(
        text.strip() not in ("", "0" if name.endswith("#rows") else "")
        for name, text in data.items()
        if name == key or name.startswith((f"{key}/", f"{key}#"))
    )


def _chosen(text: str, count: int) -> int | None:
    """Return a number below `count`, as a field has it; None for anything else."""
    return int(text) if re.fullmatch(r"[0-9]{1,4}", text) and int(text) < count else None


# Rows ------------------------------------------------------------------------------------------------------


def with_row(data: Mapping[str, str], key: str) -> dict[str, str]:
    """Return the fields with one more row in a list."""
    return {**data, f"{key}#rows": str(min(rows_of(data, key) + 1, MAX_ROWS))}


def without_row(data: Mapping[str, str], key: str, row: int) -> dict[str, str]:
    """Return the fields without one row of a list; later rows move up."""
    count = rows_of(data, key)
    if not 0 <= row < count:
        return dict(data)
    kept: dict[str, str] = {}
    for name, text in data.items():
        found = re.match(rf"{re.escape(key)}/([0-9]+)(?=$|[/#])", name)
        at = int(found[1]) if found else -1
        if found is None or at < row:
            kept[name] = text
        elif at > row:
            kept[f"{key}/{at - 1}{name[found.end() :]}"] = text
    return {**kept, f"{key}#rows": str(count - 1)}
