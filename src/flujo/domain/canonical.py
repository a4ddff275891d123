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

_BACKSLASH = ord("\\")
"""As a number, because searching one byte is 100 times faster than searching two."""

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS


def encode(value: Any, *, what: str = "value") -> bytes:
    """Return the canonical bytes of `value`.

    Pydantic models, dataclasses, enums, dates and UUIDs become plain JSON first. A model or a dataclass may
    have fields of any type that pydantic writes as JSON and reads back as the same value.

    Args:
        value: JSON data, or the types named above, nested in any way.
        what: the name of the value in errors, for instance `output of step 'sort'`.

    Raises:
        NotJournalable: with the path inside the value and the reason.
    """
    try:
        data = orjson.dumps(value, default=_plain, option=_OPTIONS)
    except (TypeError, orjson.JSONEncodeError, RecursionError) as error:
        data = _with_pydantic(value, what, error)
    # orjson writes NaN and infinities as null, and NUL as \u0000, so the value itself has to be checked.
    # `find`, because `in` first raises and drops an error for bytes that are not a number.
    if data.find(b"null") >= 0 or (_BACKSLASH in data and data.find(b"\\u0000") >= 0):
        _refuse(value, what)
    # orjson allocates a whole page even for small values; a copy has the exact size.
    return b"".join((data, b"")) if len(data) < _PAGE else data


def decode(data: bytes) -> Any:
    """Return the value that `encode` wrote."""
    return orjson.loads(data)


def read_back(value: Any, data: bytes) -> Any:
    """Return the decoded value of `data`, which are the bytes of `value`; a text is returned as it is."""
    return value if type(value) is str else orjson.loads(data)


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


def _with_pydantic(value: Any, what: str, error: Exception) -> bytes:
    """Return the bytes of a value with models that only pydantic can write, for instance with a `Decimal`.

    Models that need no pydantic keep their bytes, because digests of journals and caches depend on them.
    """
    try:
        return orjson.dumps(value, default=_plain_by_pydantic, option=_OPTIONS)
    except (TypeError, orjson.JSONEncodeError, RecursionError):
        _refuse(value, what)
        raise NotJournalable(f"{what} cannot be written as JSON: {error}", path="") from error


def _plain_by_pydantic(value: Any) -> Any:
    is_dataclass = dataclasses.is_dataclass(value) and not isinstance(value, type)
    if not (is_dataclass or hasattr(value, "model_dump")):
        return _plain(value)
    written = json_of(value, type(value))
    return _plain(value) if written is None else written[0]


def json_of(value: Any, hint: Any) -> tuple[Any] | None:
    """Return the JSON data of a value of this type, with sets in order; None if it does not read back.

    The data is the only item of the tuple, because None is JSON data.
    """
    from pydantic import PydanticUserError, TypeAdapter  # slow to import, and not needed for JSON data
    from pydantic.errors import PydanticSchemaGenerationError

    try:
        adapter = TypeAdapter(hint)
        data = adapter.dump_python(value, mode="json", warnings="error")
        again = adapter.validate_json(orjson.dumps(data))
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError, ValueError, RecursionError):
        return None
    is_same = type(again) is type(value) and again == value
    return (in_order(value, data),) if is_same else None


def in_order(value: Any, data: Any) -> Any:
    """Return the JSON `data` of `value` with the members of sets sorted: their order differs by process."""
    if hasattr(value, "model_dump") and not isinstance(data, dict):
        value = getattr(value, "root", value)
    if isinstance(data, dict):
        if isinstance(value, dict) and len(value) == len(data):
            pairs = zip(value.values(), data.items(), strict=True)
            return {key: in_order(inner, item) for inner, (key, item) in pairs}
        return {key: in_order(getattr(value, key, None), item) for key, item in data.items()}
    if (
        isinstance(data, list)
        and isinstance(value, set | frozenset | list | tuple)
        and len(value) == len(data)
    ):
        items = [in_order(inner, item) for inner, item in zip(value, data, strict=True)]
        is_set = isinstance(value, set | frozenset)
        return sorted(items, key=lambda item: orjson.dumps(item, option=_OPTIONS)) if is_set else items
    return data


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
            plain = _plain_by_pydantic(value)
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
