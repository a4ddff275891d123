"""Masks the personal data of a text or of JSON data, each kind in turn; a masked text stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain.personal_data import placeholder
from flujo.governance.personal_data import addresses, first_look, ids, keys, mails, names, numbers
from flujo.governance.personal_data.first_look import kinds_in
from flujo.governance.personal_data.masks import Masks
from flujo.governance.personal_data.patterns import digits_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.personal_data import Replace, Rules
    from flujo.governance.personal_data.masks import Mask
    from flujo.governance.personal_data.names import Names

_MOST_PASSES = 8


class Scrubber:
    """The port `Scrub`."""

    def __init__(self, rules: Rules, finder: Names = names.SPACY) -> None:
        self._masks = Masks(rules.entities, rules.allow)
        self._locales = frozenset(rules.locales)
        self._name_locales = rules.name_locales
        self._finder = finder

    def text(
        self, text: str, *, key: str = "", kept: Sequence[str] = (), replace: Replace = placeholder
    ) -> str:
        """Return a text with the personal data in it masked; halves of surrogate pairs become `?`."""
        return self._text(text, self._masks.of(kept, replace), key)

    def _text(self, text: str, mask: Mask, key: str = "") -> str:
        text = _readable(text)
        before = f"{_spaced(key)}: " if key else ""
        text = self._structured(text, before, mask)
        if not self._name_locales:
            return text
        while (new := names.masked(text, mask, self._name_locales, self._finder, before)) != text:
            text = self._structured(new, before, mask)  # each pass leaves fewer words, so there is a last one
        return text

    def _structured(self, text: str, before: str, mask: Mask) -> str:
        """Return a text with the data masked that has a form; `before` is read as the words before it."""
        for _ in range(_MOST_PASSES):  # a mask may uncover another value: it separates what is beside it
            kinds = kinds_in(text)
            if len(kinds) == 1:
                return text
            new = self._once(before + text, kinds, mask)[len(before) :]
            if new == text:
                return text
            text = new
        return text

    def data(
        self, value: Any, *, key: str = "", kept: Sequence[str] = (), replace: Replace = placeholder
    ) -> Any:
        """Return JSON data with the personal data in its texts, long numbers and keys masked."""
        return self._data(value, self._masks.of(kept, replace), key)

    def _data(self, value: Any, mask: Mask, key: str = "") -> Any:
        match value:
            case str():
                return self._text(value, mask, key)
            case dict():
                return self._mapping(value, mask)
            case list() | tuple():
                return [self._data(each, mask, key) for each in value]
            case int() if not isinstance(value, bool) and abs(value) >= _LONG_NUMBER:
                shown = str(value)
                new = self._text(shown, mask, key)
                return value if new == shown else new
            case _:
                return value

    def _mapping(self, value: dict[str, Any], mask: Mask) -> dict[str, Any]:
        masked: dict[str, Any] = {}
        for name, each in value.items():
            new = shown = self._field(name, mask)
            number = 2
            while new in masked or (new != name and new in value):
                new, number = f"{shown}#{number}", number + 1
            masked[new] = self._data(each, mask, name)
        return masked

    def _field(self, name: str, mask: Mask) -> str:
        """Return the name of a field, masked. One word alone is not read for names: code depends on it."""
        if " " in name:
            return self._text(name, mask)
        return self._structured(_readable(name), "", mask)

    def _once(self, text: str, kinds: Sequence[int], mask: Mask) -> str:
        """Return a text with the data masked that may be in it: a mask uncovers nothing for later kinds."""
        if first_look.KEY in kinds:
            text = keys.masked(text, mask)
        if first_look.CREDENTIALS in kinds:
            text = keys.masked_credentials(text, mask)
        if first_look.MAIL in kinds:
            text = mails.masked(text, mask)
        if first_look.SPELT_MAIL in kinds:
            text = mails.masked_spelt(text, mask)
        has_digits = digits_in(text) >= _FEWEST_OF_AN_ID
        if has_digits and first_look.IBAN in kinds:
            text = ids.masked_ibans(text, mask)
        if has_digits and first_look.ID_WITH_LETTERS in kinds:
            text = ids.masked_written(text, mask, self._locales)
        if first_look.ADDRESS in kinds:
            text = addresses.masked(text, mask)
        if first_look.NUMBER in kinds:
            text = numbers.masked(text, mask, self._locales)
        return text


_LONG_NUMBER = 10**8
_FEWEST_OF_AN_ID = 6


def _readable(text: str) -> str:
    """Return a text that can be written in UTF-8, which the patterns read: halves of pairs become `?`."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _spaced(key: str) -> str:
    """Return the name of a field as words: `homePhone` and `home_phone` have two."""
    return "".join(f" {char}" if char.isupper() else char if char.isalpha() else " " for char in key)[-40:]
