"""National ids and bank accounts: what the authority of each country checks, decided by `python-stdnum`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from stdnum import iban
from stdnum.de import idnr
from stdnum.es import dni, nie
from stdnum.fr import nif as french_tax
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.it import codicefiscale
from stdnum.nl import bsn
from stdnum.pl import pesel
from stdnum.pt import cc
from stdnum.pt import nif as portuguese_tax
from stdnum.us import itin

from flujo.governance.personal_data import words
from flujo.governance.personal_data.patterns import (
    compiled,
    is_word,
    replaced,
    stands_alone,
    words_after,
    words_before,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from flujo.domain.personal_data import Locale
    from flujo.governance.personal_data.masks import Mask
    from flujo.governance.personal_data.patterns import Found


class _Written(NamedTuple):
    """An id with letters, which its form shows."""

    locale: Locale
    pattern: Any
    is_valid: Callable[[str], Any]


class _Number(NamedTuple):
    """An id of digits alone."""

    locale: Locale
    digits: int
    is_valid: Callable[[str], Any]
    needs_word: bool
    """Whether other numbers are often valid too, so that a word beside it must say what it is."""


def _is_valid_insurance(text: str) -> bool:
    """Return whether a text is a British National Insurance number, which has no checksum."""
    prefix = text[:2].upper()
    return prefix not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


_WRITTEN = (
    _Written("es", compiled(r"(?i)\d{2}\.?\d{3}\.?\d{3}[ -]?[A-HJ-NP-TV-Z]"), dni.is_valid),
    _Written("es", compiled(r"(?i)[XYZ][ -]?\d{7}[ -]?[A-HJ-NP-TV-Z]"), nie.is_valid),
    _Written(
        "it",
        compiled(
            r"(?i)[A-Z]{3} ?[A-Z]{3} ?[\dL-NP-V]{2}[A-EHLMPRST][\dL-NP-V]{2} ?[A-Z][\dL-NP-V]{3} ?[A-Z]"
        ),
        codicefiscale.is_valid,
    ),
    _Written("pt", compiled(r"(?i)\d{8}[ -]?\d ?[A-Z][A-Z\d]\d"), cc.is_valid),
    _Written(
        "en",
        compiled(r"(?i)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]"),
        _is_valid_insurance,
    ),
    _Written("fr", compiled(r"(?i)[12] ?\d{2} ?\d{2} ?2[AB] ?\d{3} ?\d{3} ?\d{2}"), nir.is_valid),
)
_ANY_WRITTEN = compiled("|".join(kind.pattern.pattern for kind in _WRITTEN))
_NUMBERS = (
    _Number("fr", 15, nir.is_valid, needs_word=False),
    _Number("fr", 13, french_tax.is_valid, needs_word=True),
    _Number("de", 11, idnr.is_valid, needs_word=False),
    _Number("pl", 11, pesel.is_valid, needs_word=False),
    _Number("en", 10, nhs.is_valid, needs_word=True),
    _Number("en", 9, itin.is_valid, needs_word=True),
    _Number("nl", 9, bsn.is_valid, needs_word=True),
    _Number("pt", 9, portuguese_tax.is_valid, needs_word=True),
)
_IBAN = compiled(r"[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}")
_SHORTEST_IBAN = 15


def masked_ibans(text: str, mask: Mask) -> str:
    """Return a text with IBANs masked."""

    def replace(found: Found) -> str:
        whole, start = found.text, found.start
        before = text[start - 1] if start else ""
        if before and (is_word(before) or before == "-"):
            return whole
        end = len(whole)
        while end >= _SHORTEST_IBAN:
            after = text[start + end : start + end + 1]
            if not (after and is_word(after)) and iban.is_valid(whole[:end], check_country=False):
                return mask("iban", whole[:end]) + whole[end:]
            end = max(whole.rfind(" ", 0, end), whole.rfind("-", 0, end))  # words may follow it
        return whole

    return replaced(_IBAN, text, replace)


def masked_written(text: str, mask: Mask, locales: Collection[Locale]) -> str:
    """Return a text with the national ids masked that have letters."""
    if _ANY_WRITTEN.search(text.encode()) is None:
        return text
    for kind in _WRITTEN:
        if kind.locale in locales:
            text = replaced(kind.pattern, text, partial(_masked, kind=kind, text=text, mask=mask))
    return text


def _masked(found: Found, *, kind: _Written, text: str, mask: Mask) -> str:
    value = found.text
    if not stands_alone(text, found.start, found.end) or not kind.is_valid(value.replace(".", "")):
        return value
    return mask("national_id", value)


def is_id(digits: str, shown: str, beside: str, locales: Collection[Locale]) -> bool:
    """Return whether a number is a national id.

    Args:
        digits: its digits.
        shown: the number as written.
        beside: what the words beside it say; see `said_beside`.
        locales: the languages whose ids are known.
    """
    for kind in _NUMBERS:
        is_said = beside == "identity" or (not kind.needs_word and not beside)
        if is_said and kind.locale in locales and kind.digits == len(digits) and kind.is_valid(digits):
            return True
    return "en" in locales and _is_social_security(digits, shown, beside)


def said_beside(text: str, start: int, end: int) -> str:
    """Return what the words beside a number say that it is; see `words.kind`."""
    return words.kind([*words_before(text, start)]) or words.kind(words_after(text, end))


def _is_social_security(digits: str, shown: str, beside: str) -> bool:
    """Return whether a number is a number of the US Social Security; it has no checksum."""
    if len(digits) != 9 or digits[:3] in ("000", "666") or digits[0] == "9":
        return False
    if digits[3:5] == "00" or digits[5:] == "0000":
        return False
    groups = shown.replace(" ", "-").split("-")
    is_grouped = [len(group) for group in groups] == [3, 2, 4]
    return beside == "identity" or (is_grouped and "-" in shown and beside != "other")
