"""Phone numbers: the ranges that are in use decide, from the tables of `phonenumbers`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from phonenumbers import COUNTRY_CODE_TO_REGION_CODE, PhoneNumber, is_valid_number

if TYPE_CHECKING:
    from collections.abc import Collection

    from flujo.domain.personal_data import Locale


class _Region(NamedTuple):
    """How a country writes its numbers at home."""

    locale: Locale
    code: int
    trunk: str
    """The digit before a number at home."""
    lengths: range
    """How many digits follow it."""
    groups: frozenset[tuple[int, ...]] = frozenset()
    """The lengths of groups that need no word beside them, where no trunk digit marks a number."""
    keeps_zero: bool = False
    """Whether a leading zero belongs to the number."""


_NINE = frozenset({(3, 3, 3), (3, 2, 2, 2), (2, 3, 2, 2), (3, 6), (1, 4, 4), (2, 7)})
_REGIONS = (
    _Region("de", 49, "0", range(6, 13)),
    _Region("de", 43, "0", range(7, 14)),
    _Region("de", 41, "0", range(9, 10)),
    _Region("fr", 33, "0", range(9, 10)),
    _Region("nl", 31, "0", range(9, 10)),
    _Region("en", 44, "0", range(9, 11)),
    _Region("en", 1, "", range(10, 11), frozenset({(3, 3, 4), (1, 3, 3, 4)})),
    _Region("es", 34, "", range(9, 10), _NINE),
    _Region("pt", 351, "", range(9, 10), _NINE),
    _Region("pl", 48, "", range(9, 10), _NINE),
    _Region(
        "it",
        39,
        "",
        range(8, 12),
        frozenset({(3, 3, 4), (3, 7), (3, 6), (3, 3, 3), (3, 3, 2, 2)}),
        keeps_zero=True,
    ),
)
_FEWEST = 7
_MOST = 15


def is_international(digits: str) -> bool:
    """Return whether the digits after `+` or `00` are a number in use."""
    for length in (1, 2, 3):
        code = int(digits[:length] or 0)
        if code in COUNTRY_CODE_TO_REGION_CODE:
            return _is_used(code, digits[length:]) or (
                code != 39 and _is_used(code, digits[length:].lstrip("0"))
            )
    return False


def is_phone(digits: str, groups: tuple[int, ...], beside: str, locales: Collection[Locale]) -> bool:
    """Return whether a number without a country code is a phone number.

    Args:
        digits: its digits.
        groups: the lengths of its groups of digits.
        beside: `phone`, `identity`, `other` or nothing, by the words beside it.
        locales: the languages whose numbers are known.
    """
    if beside == "phone":
        return _FEWEST <= len(digits) <= _MOST
    if beside:
        return False
    return any(region.locale in locales and _is_of(region, digits, groups) for region in _REGIONS)


def _is_of(region: _Region, digits: str, groups: tuple[int, ...]) -> bool:
    national = digits
    if region.trunk:
        if not digits.startswith(region.trunk) or groups == (12,):  # as long as the short id of a run
            return False
        if len(groups) > 1 and not 2 <= groups[0] <= 6:
            return False
        national = digits[1:]
    elif region.code == 1:
        national = digits[1:] if len(digits) == 11 and digits[0] == "1" else digits
    if len(national) not in region.lengths:
        return False
    has_zero = region.keeps_zero and digits[0] == "0" and len(groups) > 1
    if not region.trunk and not has_zero and groups not in region.groups:
        return False
    if has_zero and len(digits) < 9:
        return False
    return _is_used(region.code, national)


def _is_used(code: int, national: str) -> bool:
    if not _FEWEST - 2 <= len(national) <= _MOST:
        return False
    zeros = len(national) - len(national.lstrip("0"))
    number = PhoneNumber(
        country_code=code,
        national_number=int(national),
        italian_leading_zero=zeros > 0 or None,
        number_of_leading_zeros=zeros if zeros > 1 else None,
    )
    return bool(is_valid_number(number))
