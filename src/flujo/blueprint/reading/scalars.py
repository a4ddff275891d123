"""Resolves plain scalars by YAML 1.2's core schema, and detects those that YAML 1.1 reads differently."""

from __future__ import annotations

import math
import re

MAX_INTEGER = 2**53
"""Above it, JSON readers that use doubles see another number."""

_WORDS: dict[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", re.ASCII)

_BOOLEAN = re.compile(r"(?P<yes>yes|on)|no|off", re.IGNORECASE)
_OTHER_BASE = re.compile(r"[-+]?0(?:[0-9_]+|o[0-7_]+|x[0-9a-fA-F_]+|b[01_]+)", re.ASCII)
_GROUPED = re.compile(r"[-+]?[0-9]+_[0-9_]*(?:\.[0-9_]*)?", re.ASCII)
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ].*)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|nan)", re.ASCII | re.IGNORECASE)


class NumberTooLarge(ValueError):
    """A number that JSON cannot represent."""


def resolve(text: str) -> str | int | float | bool | None:
    """Return the value of a plain scalar: `null`, a boolean, a decimal number, or the text itself.

    Raises:
        NumberTooLarge: an integer beyond 2^53, or a float beyond a double.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    if _INTEGER.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise NumberTooLarge(f"the number `{_short(text)}` is beyond what a double can hold")
        return number
    return text


def instead_of(text: str) -> str | None:
    """Return what to write instead of a plain text that YAML 1.1 reads as another type, or None."""
    if text[:1] not in "+-.0123456789":
        # The length is checked first: most texts of a file pass through here.
        boolean = _BOOLEAN.fullmatch(text) if len(text) <= 3 else None
        return ("`true`" if boolean["yes"] else "`false`") if boolean else None
    if _OTHER_BASE.fullmatch(text) or _GROUPED.fullmatch(text):
        return "the number in plain decimal digits"
    if _SEXAGESIMAL.fullmatch(text):
        return "a number of seconds, or a duration such as `90m`,"
    if _NOT_FINITE.fullmatch(text):
        return "a finite number"
    return "the date in quotes" if is_date(text) else None


def is_text(text: str) -> bool:
    """Whether every YAML reader reads a plain scalar of these characters as this text."""
    try:
        return resolve(text) == text and instead_of(text) is None
    except NumberTooLarge:
        return False


def is_date(text: str) -> bool:
    """Whether YAML 1.1 reads a plain text as a date or a timestamp."""
    return _DATE.fullmatch(text) is not None


def _integer(text: str) -> int:
    # The length is checked first: Python raises for thousands of digits, with another message.
    if len(text) <= 18 and abs(number := int(text)) <= MAX_INTEGER:
        return number
    raise NumberTooLarge(f"the integer `{_short(text)}` is beyond 2^53 ({MAX_INTEGER})")


def _short(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:20]}… ({len(text)} characters)"
