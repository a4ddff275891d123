"""Canonical JSON: the single encoding of values as bytes, and the digest of those bytes.

Sorted keys, no white space, UTF-8, finite numbers, integers within 64 bits, no NUL. Any other value raises
`NotJournalable` with the value's path; there is no fallback to another serialiser.
"""

import dataclasses
import hashlib
import math
from collections.abc import Callable
from datetime import date, datetime, time
from enum import Enum
from typing import Any
from uuid import UUID

import orjson

from flujo.exceptions import NotJournalable

MAX_DEPTH = 200
"""The deepest nesting of a value; orjson's own limit is 254."""

_PAGE = 4096

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS


def encode(value: Any, *, what: str = "value") -> bytes:
    """Return the canonical bytes of `value`.

    Pydantic models, dataclasses, enums, dates and UUIDs become plain JSON first.

    Args:
        value: JSON data, or the types named above, nested in any way.
        what: the name of the value in errors, for instance `output of step 'sort'`.

    Raises:
        NotJournalable: with the path inside the value and the reason.
    """
    try:
        data = orjson.dumps(value, default=_plain, option=_OPTIONS)
    except (TypeError, orjson.JSONEncodeError, RecursionError) as error:
        _refuse(value, what)
        raise NotJournalable(f"{what} cannot be written as JSON: {error}", path="") from error
    # orjson writes NaN and infinities as null, and NUL as \u0000, so the value itself has to be checked.
    if b"null" in data or (b"\\" in data and b"\\u0000" in data):  # searching one byte is 100 times faster
        _refuse(value, what)
    # orjson allocates a whole page even for small values; a copy has the exact size.
    return bytes(memoryview(data)) if len(data) < _PAGE else data


def decode(data: bytes) -> Any:
    """Return the value that `encode` wrote."""
    return orjson.loads(data)


def normalise(value: Any, *, what: str = "value") -> Any:
    """Return `value` as a reader of the journal would see it: encoded and decoded again."""
    return orjson.loads(encode(value, what=what))


def copied(data: Any) -> Any:
    """Return a copy of plain JSON data; strings and numbers are shared, because they are immutable."""
    if isinstance(data, dict):
        return {key: copied(item) if isinstance(item, dict | list) else item for key, item in data.items()}
    if isinstance(data, list):
        return [copied(item) if isinstance(item, dict | list) else item for item in data]
    return data


def is_same(one: bytes, other: bytes) -> bool:
    """Return whether two encoded values are the same JSON value: 3 and 3.0 are one number."""
    return one == other or _without_zeros(orjson.loads(one)) == _without_zeros(orjson.loads(other))


def _without_zeros(data: Any) -> Any:
    """Return data in which whole floats are integers, and booleans do not equal numbers."""
    if isinstance(data, dict):
        return {key: _without_zeros(item) for key, item in data.items()}
    if isinstance(data, list):
        return [_without_zeros(item) for item in data]
    if isinstance(data, bool):
        return repr(data), bool
    return int(data) if isinstance(data, float) and data.is_integer() else data


def digest(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _plain(value: Any) -> Any:
    """Return a Python object as JSON data, one level deep."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="python")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    for base, plain in _SUBCLASSES:
        if isinstance(value, base):
            return plain(value)
    raise TypeError(f"{type(value).__qualname__} is not JSON data")


# orjson does not accept subclasses (the value of an IntEnum, a named tuple, a defaultdict).
_SUBCLASSES: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    (str, str),
    (float, float),
    (int, int),
    (dict, dict),
    ((list, tuple), list),
)


def _refuse(value: Any, what: str, path: str = "", depth: int = 0) -> None:
    """Raise for the first part of `value` that is not canonical JSON."""
    if depth > MAX_DEPTH:
        raise _not_journalable(what, path, f"it is nested deeper than {MAX_DEPTH} levels, or contains itself")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise _not_journalable(what, path, f"the key {key!r} is not text")
            _refuse(key, what, f"{path}.{key!r} (key)")
            _refuse(item, what, f"{path}.{key}" if path else key, depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _refuse(item, what, f"{path}[{index}]", depth + 1)
    elif reason := _reason(value):
        raise _not_journalable(what, path, reason)
    elif not isinstance(value, str | int | float | None):
        try:
            plain = _plain(value)
        except TypeError as error:
            raise _not_journalable(what, path, str(error)) from error
        _refuse(plain, what, path, depth + 1)


def _reason(value: Any) -> str | None:
    """Return why this scalar is not canonical JSON, or None when it is."""
    match value:
        case float() if not math.isfinite(value):
            return f"{value!r} is not a finite number"
        case int() if not -(2**63) <= value < 2**64:
            return "the integer does not fit into 64 bits"
        case str() if "\x00" in value:
            return "the text has a NUL character"
        case str() if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            return "the text has half a surrogate pair, which UTF-8 cannot encode"
        case _:
            return None


def _not_journalable(what: str, path: str, reason: str) -> NotJournalable:
    shown = path if len(path) <= 100 else f"{path[:100]}…"
    where = f" at `{shown}`" if path else ""
    return NotJournalable(f"{what} cannot be written to the journal{where}: {reason}", path=path)
