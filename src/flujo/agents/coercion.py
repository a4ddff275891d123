"""Converts values of the wrong type where their meaning is certain, and lists each change."""

import copy
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

from flujo.domain.wording import json_short

_MAX_CHANGES = 100
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NOTHING: Any = object()


def coerced(value: Any, validator: Any) -> tuple[Any, tuple[str, ...]]:
    """Return a copy of `value` with wrong types corrected, and a note for each change.

    Text becomes a number or a boolean, a number becomes text, a single value becomes a list of one, and text
    that differs from an `enum` value only by case or outer white space becomes that value. The result may
    still be invalid: the caller validates it again.

    Args:
        value: JSON data; not changed.
        validator: a jsonschema validator.
    """
    root = [copy.deepcopy(value)]
    notes: list[str] = []
    seen: set[tuple[Any, ...]] = set()
    while len(notes) < _MAX_CHANGES:
        for error in validator.iter_errors(root[0]):
            place = tuple(error.absolute_path)
            new = _corrected(error) if (place, error.validator) not in seen else _NOTHING
            if new is not _NOTHING:
                seen.add((place, error.validator))
                notes.append(f"read {json_short(error.instance)} as {json_short(new)}{_at(place)}")
                _put(root, place, new)
                break
        else:
            break
    return root[0], tuple(notes)


def _corrected(error: Any) -> Any:
    """Return the corrected instance of a validation error, or _NOTHING when its meaning is uncertain."""
    if error.validator == "enum":
        return _option(error.instance, error.validator_value)
    if error.validator != "type":
        return _NOTHING
    wanted = error.validator_value
    for kind in [wanted] if isinstance(wanted, str) else wanted:
        convert = _CONVERSIONS.get(kind)
        new = convert(error.instance) if convert else _NOTHING
        if new is not _NOTHING:
            return new
    return _NOTHING


def _option(value: Any, options: Sequence[Any]) -> Any:
    if not isinstance(value, str):
        return _NOTHING
    same = [o for o in options if isinstance(o, str) and o.strip().casefold() == value.strip().casefold()]
    return same[0] if len(same) == 1 else _NOTHING


def _integer(value: Any) -> Any:
    return int(value) if isinstance(value, str) and _INTEGER.fullmatch(value.strip()) else _NOTHING


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return _NOTHING
    if _INTEGER.fullmatch(value.strip()):
        return int(value)
    try:
        number = json.loads(value)
    except (ValueError, RecursionError):
        return _NOTHING
    return number if isinstance(number, float) and math.isfinite(number) else _NOTHING


def _boolean(value: Any) -> Any:
    known = {"true": True, "false": False}
    return known.get(value.strip().casefold(), _NOTHING) if isinstance(value, str) else _NOTHING


def _string(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, bool | int | float) else _NOTHING


def _array(value: Any) -> Any:
    return _NOTHING if value is None else [value]


_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "string": _string,
    "array": _array,
}


def _put(root: list[Any], place: tuple[Any, ...], value: Any) -> None:
    target: Any = root
    for key in (0, *place)[:-1]:
        target = target[key]
    target[(0, *place)[-1]] = value


def _at(place: tuple[Any, ...]) -> str:
    return " at " + ".".join(map(str, place)) if place else ""
