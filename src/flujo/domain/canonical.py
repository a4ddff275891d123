"""Canonical JSON: the one way in which a value becomes bytes, and the digest of those bytes.

Sorted keys, no white space, UTF-8, finite numbers, integers within 64 bits, no NUL. What does not
fit is `NotJournalable` with the path of the value; there is no second serialiser to fall back to.
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
"""How deep a value may be nested; orjson itself stops at 254."""

_PAGE = 4096

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS


def encode(value: Any, *, what: str = "value") -> bytes:
    """Return the canonical bytes of `value`.

    Pydantic models, dataclasses, enums, dates and UUIDs become plain JSON first.

    Args:
        value: JSON data, or the kinds named above, nested as you like.
        what: how the error names the value, for instance `output of step 'sort'`.

    Raises:
        NotJournalable: naming the path inside the value and what was found there.
    """
    try:
        data = orjson.dumps(value, default=_plain, option=_OPTIONS)
    except (TypeError, orjson.JSONEncodeError, RecursionError) as error:
        _refuse(value, what)
        raise NotJournalable(f"{what} cannot be written as JSON: {error}", path="") from error
    # orjson writes NaN and infinities as null, and a NUL as \u0000: both are found only by looking.
    if b"null" in data or (b"\\" in data and b"\\u0000" in data):  # one byte is found a hundred times faster
        _refuse(value, what)
    # orjson gives small values in a whole page of memory, which would stay with them; a copy is exact.
    return bytes(memoryview(data)) if len(data) < _PAGE else data


def decode(data: bytes) -> Any:
    """Return the value that `encode` wrote."""
    return orjson.loads(data)


def normalise(value: Any, *, what: str = "value") -> Any:
    """Return `value` as a reader of the journal would see it: encoded and decoded again."""
    return orjson.loads(encode(value, what=what))


def copied(data: Any) -> Any:
    """Return a copy of plain JSON data; texts and numbers are shared, because nobody can change them."""
    if isinstance(data, dict):
        return {key: copied(item) if isinstance(item, dict | list) else item for key, item in data.items()}
    if isinstance(data, list):
        return [copied(item) if isinstance(item, dict | list) else item for item in data]
    return data


def digest(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _plain(value: Any) -> Any:
    """Return the JSON data that stands for a Python object, one level deep."""
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


# orjson takes no subclass by itself (an IntEnum's value, a named tuple, a defaultdict).
_SUBCLASSES: tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...] = (
    (str, str),
    (float, float),
    (int, int),
    (dict, dict),
    ((list, tuple), list),
)


def _refuse(value: Any, what: str, path: str = "", depth: int = 0) -> None:
    """Raise for the first part of `value` that canonical JSON cannot hold."""
    if depth > MAX_DEPTH:
        raise _not_journalable(what, path, f"it is nested deeper than {MAX_DEPTH} levels, or holds itself")
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
    """Return why JSON cannot hold this scalar, or None when it can."""
    match value:
        case float() if not math.isfinite(value):
            return f"{value!r} is not a finite number"
        case int() if not -(2**63) <= value < 2**64:
            return "the integer does not fit into 64 bits"
        case str() if "\x00" in value:
            return "the text has a NUL character"
        case str() if not value.isascii() and any("\ud800" <= char <= "\udfff" for char in value):
            return "the text has half a surrogate pair, which UTF-8 cannot hold"
        case _:
            return None


def _not_journalable(what: str, path: str, reason: str) -> NotJournalable:
    shown = path if len(path) <= 100 else f"{path[:100]}…"
    where = f" at `{shown}`" if path else ""
    return NotJournalable(f"{what} cannot be written to the journal{where}: {reason}", path=path)
