"""Parses JSON without the liberties of Python's parser: no NaN, no infinity, no key with two values."""

from __future__ import annotations

import json
import math
from typing import Any


def loads(text: str) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError: it is not JSON, or a key of an object has two different values.
    """
    try:
        return DECODER.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def is_same(one: Any, other: Any) -> bool:
    """Return whether two JSON values are the same: 1, 1.0 and true are three values."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is too large for a number")
    return number


def _whole(digits: str) -> int:
    if len(digits) > 400:  # Python's own limit is 4,300, with a message about Python
        raise ValueError(f"{digits[:20]}… is too large for a number")
    return int(digits)


def _single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for key, value in pairs:
            if not is_same(found[key], value):
                raise ValueError(f"the key {key[:60]!r} has two values")
    return found


DECODER = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite, parse_int=_whole, object_pairs_hook=_single
)
"""The decoder, whose `raw_decode` reads a value at the start of a longer text."""
