"""Arithmetic in which an int beside a float counts as a float.

CEL refuses `3 * 1.5`, and its operators cannot be extended. An expression that fails for this reason is
evaluated again with the functions below in place of its operators.
"""

from __future__ import annotations

import math
import operator
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_COMPUTE: Mapping[str, Callable[[Any, Any], Any]] = {
    "_+_": operator.add,
    "_-_": operator.sub,
    "_*_": operator.mul,
    "_/_": lambda left, right: left / right if right else left * math.inf,
}
FUNCTIONS: Mapping[str, str] = {"_+_": "add", "_-_": "sub", "_*_": "mul", "_/_": "div", "_%_": "mod"}
"""CEL's operators, and the function in place of each; the names have the same length."""

_NUMBER = "(?:int64|uint64|double)"
_MIXED = re.compile(rf"No matching overloads found : _[-+*/%]_\({_NUMBER}, {_NUMBER}\)")
_JOINED = (str, list, bytearray)
_TIME = {datetime, timedelta}
_CEL = {
    int: "int64",
    float: "double",
    str: "string",
    bool: "bool",
    dict: "map",
    list: "list",
    type(None): "null",
}


def is_mixed(message: str) -> bool:
    """Return whether CEL refused an operator because its numbers are of different types."""
    return _MIXED.search(message) is not None


def compute(name: str, left: Any, right: Any) -> Any:
    """Return the value of an operator of `FUNCTIONS`.

    Raises:
        TypeError: in CEL's words; the operator does not take these values.
        ArithmeticError: in CEL's words; a division by zero, or more than 64 bits.
    """
    kinds = {type(left), type(right)}
    if kinds == {int}:
        return _of_integers(name, left, right)
    joins = name == "_+_" and len(kinds) == 1 and isinstance(left, _JOINED)
    if name in _COMPUTE and (joins or kinds <= {int, float} or kinds <= _TIME):
        return _COMPUTE[name](left, right)
    given = ", ".join(_CEL.get(type(value), "dyn") for value in (left, right))
    raise TypeError(f"No matching overloads found : {name}({given})")


def _of_integers(name: str, left: int, right: int) -> int:
    if name in ("_/_", "_%_"):
        if right == 0:
            raise ZeroDivisionError("divide by zero")
        # CEL drops the fraction, and Python rounds down.
        quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
        value = quotient if name == "_/_" else left - quotient * right
    else:
        value = _COMPUTE[name](left, right)
    if not -(2**63) <= value < 2**63:
        raise OverflowError("integer overflow")
    return value
