"""Masks the personal data of a text or of JSON data, each kind in turn; a masked text stays as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.governance.personal_data import addresses, ids, keys, mails, names, numbers
from flujo.governance.personal_data.masks import Masks
from flujo.governance.personal_data.patterns import compiled, digits_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.personal_data import Rules
    from flujo.governance.personal_data.masks import Mask
    from flujo.governance.personal_data.names import Names

_SUSPICIOUS = compiled(
    r"(?i)@|://|(?:\d[^\pL\pN]{0,3}){7}|\d{1,3}\.\d{1,3}\.\d{1,3}\.\d|[0-9a-f]:[0-9a-f:]{2}"
    r"|\s(?:at|ät|aet|arroba|arobase|chiocciola|małpa|malpa|apenstaartje|klammeraffe)\s"
    r"|[\[({<]\s?(?:at|ät|aet|arroba|arobase|chiocciola|małpa|malpa|apenstaartje|klammeraffe)\s?[\])}>]"
    r"|PRIVATE KEY|(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]|gh[pousr]_|github_pat_|gl(?:pat|dt|rt|cbt|ptt|soat)-"
    r"|xox[a-z]-|xapp-|[spr]k_(?:live|test)_|whsec_|sk-|(?:gsk|xai|pplx|r8|hf|nvapi|csk|fw)[_-]|AIza|ya29\."
    r"|npm_|pypi-|SG\.|(?:SK|AC)[0-9a-f]{8}|do[opr]_v1|shp[a-z]{2}_|dapi[0-9a-f]|hv[sb]\.|lin_api_|ntn_"
    r"|secret_|PMAK-|key-|AGE-SECRET|eyJ|[A-Z]{2} ?\d{2} ?\d{2} ?\d{2}|[A-Z]{3} ?[0-9L-V]{2}[A-T]"
)
"""What every text with personal data contains: most texts do not, and need no further look."""
_MOST_PASSES = 8


class Scrubber:
    """The port `Scrub`."""

    def __init__(self, rules: Rules, finder: Names = names.SPACY) -> None:
        self._masks = Masks(rules.entities, rules.allow)
        self._locales = frozenset(rules.locales)
        self._name_locales = rules.name_locales
        self._finder = finder

    def text(self, text: str, *, key: str = "", kept: Sequence[str] = ()) -> str:
        """Return a text with the personal data in it masked; halves of surrogate pairs become `?`."""
        if not text.isascii():
            text = text.encode(
                "utf-8", "replace"
            ).decode()  # the patterns read UTF-8, which has no such halves
        mask = self._masks.of(kept)
        before = f"{_spaced(key)}: " if key else ""
        text = self._structured(text, before, mask)
        if not self._name_locales:
            return text
        while (new := names.masked(text, mask, self._name_locales, self._finder, before)) != text:
            text = self._structured(new, before, mask)  # each pass leaves fewer words, so there is a last one
        return text

    def _structured(self, text: str, before: str, mask: Mask) -> str:
        """Return a text with the data masked that has a form; `before` is read as the words before it."""
        if _SUSPICIOUS.search(text) is None:
            return text
        for _ in range(_MOST_PASSES):  # a mask may uncover another value: it separates what is beside it
            new = self._once(before + text, mask)[len(before) :]
            if new == text or _SUSPICIOUS.search(new) is None:
                return new
            text = new
        return text

    def data(self, value: Any, *, key: str = "", kept: Sequence[str] = ()) -> Any:
        """Return JSON data with the personal data in its texts, long numbers and keys masked."""
        match value:
            case str():
                return self.text(value, key=key, kept=kept)
            case dict():
                return self._mapping(value, kept)
            case list() | tuple():
                return [self.data(each, key=key, kept=kept) for each in value]
            case int() if not isinstance(value, bool) and abs(value) >= _LONG_NUMBER:
                shown = str(value)
                new = self.text(shown, key=key, kept=kept)
                return value if new == shown else new
            case _:
                return value

    def _mapping(self, value: dict[str, Any], kept: Sequence[str]) -> dict[str, Any]:
        masked: dict[str, Any] = {}
        for name, each in value.items():
            new = shown = self._field(name, kept)
            number = 2
            while new in masked or (new != name and new in value):
                new, number = f"{shown}#{number}", number + 1
            masked[new] = self.data(each, key=name, kept=kept)
        return masked

    def _field(self, name: str, kept: Sequence[str]) -> str:
        """Return the name of a field, masked. One word alone is not read for names: code depends on it."""
        return self.text(name, kept=kept) if " " in name else self._structured(name, "", self._masks.of(kept))

    def _once(self, text: str, mask: Mask) -> str:
        text = keys.masked(text, mask)
        text = keys.masked_credentials(text, mask)
        text = mails.masked(text, mask)
        digits = digits_in(text)
        if digits >= _FEWEST_OF_AN_ID:
            text = ids.masked_ibans(text, mask)
            text = ids.masked_written(text, mask, self._locales)
        text = addresses.masked(text, mask)
        return numbers.masked(text, mask, self._locales) if digits >= _FEWEST_OF_AN_ID else text


_LONG_NUMBER = 10**8
_FEWEST_OF_AN_ID = 6


def _spaced(key: str) -> str:
    """Return the name of a field as words: `homePhone` and `home_phone` have two."""
    return "".join(f" {char}" if char.isupper() else char if char.isalpha() else " " for char in key)[-40:]
