"""Conditions on the metadata of runs: `{"tag": ["a", "b"], "order": {"total": {">=": 100}}}`."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.metadata import METADATA_KEY
from flujo.domain.wording import listed, repr_short
from flujo.exceptions import NotJournalable, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_CONDITIONS = 16
MAX_CHOICES = 100
MAX_DEPTH = 8
MAX_INTEGER = 2**63 - 1

EQUAL, DIFFERENT = "=", "!="
COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_OPERATORS = (DIFFERENT, *COMPARISONS)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition on the value under some nested keys. A run without these keys does not match."""

    path: tuple[str, ...]
    operator: str
    """`=` (any of the values), `!=`, or a comparison, which only values of the same type pass."""
    values: tuple[str | int | float | bool | None, ...]

    def fits(self, metadata: Any) -> bool:
        """Return whether the metadata of a run match."""
        found = metadata
        for key in self.path:
            if not isinstance(found, Mapping) or key not in found:
                return False
            found = found[key]
        if self.operator in (EQUAL, DIFFERENT):
            is_one = any(_is_same(found, value) for value in self.values)
            return is_one == (self.operator == EQUAL)
        [bound] = self.values
        return _kind(found) == _kind(bound) and COMPARISONS[self.operator](found, bound)


def conditions(wanted: Any) -> tuple[Condition, ...]:
    """Return the conditions of a filter.

    Raises:
        SettingsError: a key that is not an identifier, a value that cannot be compared, too many conditions.
    """
    if not isinstance(wanted, Mapping):
        raise SettingsError(
            f"the metadata filter is {repr_short(wanted)}", hint="write a mapping: {'customer': 'c1'}"
        )
    found = tuple(_below((), wanted))
    if len(found) > MAX_CONDITIONS:
        raise SettingsError(f"a query takes at most {MAX_CONDITIONS} metadata conditions")
    return found


def check_key(key: Any, above: tuple[str, ...] = ()) -> None:
    """Check that a word can be a key of metadata.

    Raises:
        SettingsError: it cannot.
    """
    if not isinstance(key, str) or not METADATA_KEY.fullmatch(key):
        raise SettingsError(
            f"{repr_short('.'.join((*above, str(key))) if above else key)} cannot be a metadata key",
            hint="a key is a letter or `_`, then up to 62 letters, digits or `_`",
            key=str(key),
        )


def _below(above: tuple[str, ...], wanted: Mapping[Any, Any]) -> Iterator[Condition]:
    for key, value in wanted.items():
        check_key(key, above)
        path = (*above, key)
        if len(path) > MAX_DEPTH:
            raise SettingsError(f"a metadata condition goes at most {MAX_DEPTH} keys deep")
        match value:
            case Mapping() if value and all(each in _OPERATORS for each in value):
                for sign, bound in value.items():
                    yield Condition(path, sign, (_bound(path, sign, bound),))
            case Mapping() if value:
                yield from _below(path, value)
            case list() | tuple() if 1 <= len(value) <= MAX_CHOICES:
                yield Condition(path, EQUAL, tuple(_scalar(path, each) for each in value))
            case list() | tuple() | Mapping():
                raise SettingsError(
                    f"the metadata condition on {_shown(path)} has {len(value)} values",
                    hint=f"a list has 1 to {MAX_CHOICES} values, and one of them must be equal",
                )
            case _:
                yield Condition(path, EQUAL, (_scalar(path, value),))


def _bound(path: tuple[str, ...], sign: str, value: Any) -> Any:
    if sign in COMPARISONS and _kind(value) is None:
        raise SettingsError(
            f"the metadata condition on {_shown(path)} compares with {repr_short(value)}",
            hint=f"{listed(COMPARISONS, 'and')} compare with a number or a text",
        )
    return _scalar(path, value)


def _scalar(path: tuple[str, ...], value: Any) -> Any:
    if value is not None and not isinstance(value, str | int | float):
        raise SettingsError(
            f"the metadata condition on {_shown(path)} is {type(value).__name__}",
            hint="compare with text, a number, true, false or null, or with a list of them",
        )
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise SettingsError(f"the metadata condition on {_shown(path)} does not fit into 64 bits")
    try:
        canonical.encode(value, what="metadata condition")
    except NotJournalable as error:
        raise SettingsError(error.message, hint=error.hint) from error
    return value


def _shown(path: tuple[str, ...]) -> str:
    return repr(".".join(path))


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two JSON values are equal: `true` is not 1, and 1 is 1.0."""
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def _kind(value: Any) -> str | None:
    """Return the type of a value that has an order."""
    if isinstance(value, str):
        return "text"
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else None
