"""Payment cards, national ids and phone numbers: by checksum, by form, and by the words beside them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from stdnum import luhn

from flujo.governance.personal_data import words
from flujo.governance.personal_data.ids import is_id, said_beside
from flujo.governance.personal_data.patterns import compiled, replaced, stands_alone, words_after
from flujo.governance.personal_data.phones import is_international, is_phone

if TYPE_CHECKING:
    from collections.abc import Collection

    from flujo.domain.personal_data import Entity, Locale
    from flujo.governance.personal_data.masks import Mask
    from flujo.governance.personal_data.patterns import Found

_SPACE = r"[ \t\x{a0}\x{202f}\x{2009}]"
_RUN = compiled(rf"(?:\+{_SPACE}?)?\(?\+?\d(?:(?:{_SPACE}|[().\-/\x{{2010}}-\x{{2013}}]){{0,3}}\d){{6,}}")
_GROUP = re.compile(r"(?:\+ ?)?\(?\+?\d+\)?", re.ASCII)
_NO_DIGITS = re.compile("[^0-9]+")
_DATE = re.compile(
    r"(?:(?:19|20)\d\d[-./](?:0?[1-9]|1[0-2])[-./](?:0?[1-9]|[12]\d|3[01])"
    r"|(?:0?[1-9]|[12]\d|3[01])[-./](?:0?[1-9]|1[0-2])[-./](?:(?:19|20)\d\d|\d\d))(?:[^\d\-./]|$)",
    re.ASCII,
)
_MOST_GROUPS = 19
_FEWEST_DIGITS = 7
_MOST_DIGITS = 19


def masked(text: str, mask: Mask, locales: Collection[Locale]) -> str:
    """Return a text with cards, national ids and phone numbers masked."""
    return replaced(_RUN, text, lambda found: _Run(found, text, mask, locales).masked())


class _Run:
    """Groups of digits with spaces and signs between them, which may be several numbers."""

    def __init__(self, found: Found, text: str, mask: Mask, locales: Collection[Locale]) -> None:
        self._text = text
        self._mask = mask
        self._locales = locales
        self._start, self._end = found.start, found.end
        self._groups = [
            (self._start + group.start(), self._start + group.end()) for group in _GROUP.finditer(found.text)
        ]

    def masked(self) -> str:
        """Return the run with the numbers masked that are personal data, from the left, the longest first."""
        parts: list[str] = []
        at, done = 0, self._start
        while at < len(self._groups):
            taken = self._skipped(at) or self._found(at)
            if taken is None:
                at += 1
                continue
            at, entity, start, end = taken
            if entity is not None:
                parts += (self._text[done:start], self._mask(entity, self._text[start:end]))
                done = end
        return "".join([*parts, self._text[done : self._end]])

    def _skipped(self, at: int) -> tuple[int, Entity | None, int, int] | None:
        """Return the groups of a date."""
        start = self._groups[at][0]
        date = _DATE.match(self._text[start : start + 12])
        if date is None:
            return None
        after = at
        while after < len(self._groups) and self._groups[after][0] < start + len(str(date[0])):
            after += 1
        return after, None, start, start

    def _found(self, at: int) -> tuple[int, Entity | None, int, int] | None:
        start = self._groups[at][0]
        if at and not self._is_break(at):
            return None
        for after in range(min(len(self._groups), at + _MOST_GROUPS), at, -1):
            end = self._groups[after - 1][1]
            if after < len(self._groups) and not self._is_break(after):
                continue
            if entity := self._entity(start, end, at, after):
                return after, entity, start, end
        return None

    def _is_break(self, group: int) -> bool:
        """Return whether a number may begin at a group: after a space, and not only after a sign."""
        between = self._text[self._groups[group - 1][1] : self._groups[group][0]]
        return any(char.isspace() for char in between) or self._text[self._groups[group][0]] == "+"

    def _entity(self, start: int, end: int, at: int, after: int) -> Entity | None:
        shown = self._text[start:end]
        digits = _NO_DIGITS.sub("", shown)
        if not _FEWEST_DIGITS <= len(digits) <= _MOST_DIGITS or not self._stands_alone(start, end):
            return None
        if shown.count(".") == 1 and shown.replace(".", "").isdigit():
            return None  # a decimal number
        is_plain = shown[0] != "+" and "(" not in shown and "/" not in shown
        if is_plain and is_card(digits):
            return "card"
        said = said_beside(self._text, start, end)
        if is_plain and is_id(digits, shown, said, self._locales):
            return "national_id"
        return "phone" if self._is_phone(shown, digits, said, end, at, after) else None

    def _stands_alone(self, start: int, end: int) -> bool:
        if not stands_alone(self._text, start, end):
            return False
        before, after = self._text[max(0, start - 2) : start], self._text[end : end + 2]
        is_decimal = len(before) == 2 and before[-1] in ".," and before[0].isdigit() and end - start < 9
        return not is_decimal and not (after[:1] == "," and after[1:].isdigit() and end - start < 9)

    def _is_phone(self, shown: str, digits: str, said: str, end: int, at: int, after: int) -> bool:
        if "+" in shown:
            number = digits.replace("0", "", 1) if "(0)" in shown else digits
            return is_international(digits) or is_international(number) or said == "phone"
        if said in ("other", "identity"):
            return False
        if digits.startswith("00") and len(digits) >= 10 and is_international(digits[2:]):
            return True
        following = words_after(self._text, end)
        if following and following[0] in words.UNITS and said != "phone":
            return False
        if self._text[end : end + 2].strip()[:1] in tuple("%€$£"):
            return False
        groups = tuple(
            len(_NO_DIGITS.sub("", self._text[first:last])) for first, last in self._groups[at:after]
        )
        is_split = "-" in shown or "(" in shown or shown.count(".") > 1
        is_whole = after - at == len(self._groups) or groups[0] != 3 or is_split or digits[0] == "0"
        if not said and not is_whole:
            return False
        return is_phone(digits, groups, said, self._locales)


def is_card(digits: str) -> bool:
    """Return whether a number is one of a payment card: its first digits, its length and its checksum."""
    lengths = next((each for first, each in _CARDS if digits.startswith(first)), ())
    return len(digits) in lengths and len(set(digits)) > 1 and bool(luhn.is_valid(digits))


_CARDS = (
    (("4",), (13, 16, 19)),
    (("34", "37"), (15,)),
    (("51", "52", "53", "54", "55"), (16,)),
    (tuple(str(each) for each in range(2221, 2721)), (16,)),
    (("6011", "622", "644", "645", "646", "647", "648", "649", "65"), (16, 17, 18, 19)),
    (("35",), (16,)),
    (("300", "301", "302", "303", "304", "305", "36", "38", "39"), (14, 16)),
    (("62",), (16, 17, 18, 19)),
    (("50", "56", "57", "58", "60", "61", "63", "67"), (16, 18, 19)),
)
