"""Checks of the arguments that programs pass, so that a wrong type is an error with a hint."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING, Any, TypeVar

from flujo.domain.wording import listed, repr_short, suggest
from flujo.exceptions import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.ports import Clock

E = TypeVar("E", bound=StrEnum)
T = TypeVar("T")


def text(value: Any, name: str) -> str:
    """Return an argument that is a text.

    Raises:
        SettingsError: it is something else.
    """
    if isinstance(value, str):
        return value
    raise SettingsError(f"`{name}` is {repr_short(value)}, not a text", hint=f"pass `{name}` as a `str`")


def text_or_none(value: Any, name: str) -> str | None:
    """Return an argument that is a text, or None.

    Raises:
        SettingsError: it is something else.
    """
    return None if value is None else text(value, name)


def whole_number(value: Any, name: str) -> int:
    """Return an argument that is a whole number.

    Raises:
        SettingsError: it is something else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise SettingsError(
        f"`{name}` is {repr_short(value)}, not a whole number", hint=f"pass `{name}` as an `int`"
    )


def page_size(value: Any, most: int) -> int:
    """Return the argument `limit` of a list.

    Raises:
        SettingsError: it is not a whole number from 1 to `most`.
    """
    if not 1 <= whole_number(value, "limit") <= most:
        raise SettingsError(f"`limit` is {value}", hint=f"pass a number from 1 to {most:,}")
    return int(value)


def several(value: Any, name: str) -> Sequence[Any]:
    """Return an argument that is a list or a tuple.

    Raises:
        SettingsError: it is something else.
    """
    if isinstance(value, list | tuple):
        return value
    raise SettingsError(f"`{name}` is {repr_short(value)}, not a list", hint=f"pass `{name}` as a list")


def instance(kind: type[T], value: Any, name: str) -> T:
    """Return an argument that is an object of a class.

    Raises:
        SettingsError: it is of another class.
    """
    if isinstance(value, kind):
        return value
    raise SettingsError(f"`{name}` is {repr_short(value)}", hint=f"pass `{name}` as a `{kind.__name__}`")


def choice(kind: type[E], value: Any, name: str) -> E:
    """Return an argument as the member of an enumeration.

    Raises:
        SettingsError: the enumeration has no such member.
    """
    for member in kind:
        if value == member:
            return member
    raise SettingsError(
        f"`{name}` is {repr_short(value)}", hint=suggest(str(value), list(kind), what="choices")
    )


def seconds(value: Any, name: str) -> float:
    """Return an argument that is a number of seconds, 0 or more.

    Raises:
        SettingsError: it is something else.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        return float(value)
    raise SettingsError(f"`{name}` is {repr_short(value)}", hint=f"pass `{name}` in seconds, 0 or more")


def capable(value: Any, methods: Sequence[str], name: str, kind: str) -> Any:
    """Return an argument that has the methods of a protocol.

    Raises:
        SettingsError: it lacks one of them.
    """
    missing = [method for method in methods if not callable(getattr(value, method, None))]
    if missing or isinstance(value, type):
        raise SettingsError(
            f"`{name}` is {repr_short(value)}, not a `{kind}`",
            hint=f"pass an object with the methods {listed(methods, 'and')}",
        )
    return value


def seconds_of(given: Any, name: str, clock: Clock) -> float | None:
    """Return a moment as seconds since the epoch; None for None.

    Raises:
        SettingsError: it is not a `Moment`; the message says `name`.
    """
    match given:
        case None:
            return None
        case bool():
            pass
        case int() | float() if isfinite(given):
            return float(given)
        case timedelta():
            return clock.now() - given.total_seconds()
        case datetime() if given.tzinfo is not None:
            return given.timestamp()
    raise SettingsError(
        f"`{name}` is {repr_short(given)}",
        hint="pass seconds since the epoch, a `datetime` with a time zone, or a `timedelta` for how long ago",
    )
