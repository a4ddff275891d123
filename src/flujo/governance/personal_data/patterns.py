"""RE2 patterns, which match in time linear in the length of a text, and the characters beside a match."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import re2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def options() -> Any:
    """Return options with room for the classes of Unicode, and without a log of errors."""
    chosen = re2.Options()
    chosen.log_errors = False
    chosen.max_mem = 32 << 20  # with less, some of the patterns are matched ten times slower
    return chosen


def compiled(pattern: str) -> Any:
    """Return a pattern with these options."""
    return re2.compile(pattern, options())


class Found(NamedTuple):
    """A match of a pattern in a text."""

    start: int
    end: int
    text: str


def found_in(pattern: Any, text: str) -> Iterator[Found]:
    """Yield the matches in a text. The pattern reads bytes: `re2` takes three times as long for a text."""
    data = text.encode()
    if len(data) == len(text):
        for match in pattern.finditer(data):
            start, end = match.span()
            yield Found(start, end, text[start:end])
        return
    read = at = 0
    for match in pattern.finditer(data):
        start, end = match.span()
        value = data[start:end].decode()
        at += len(data[read:start].decode())
        yield Found(at, at + len(value), value)
        at, read = at + len(value), end


def replaced(pattern: Any, text: str, replace: Callable[[Found], str]) -> str:
    """Return a text whose matches are replaced by what `replace` returns for each."""
    parts: list[str] = []
    end = 0
    for found in found_in(pattern, text):
        new = replace(found)
        if new != found.text:
            parts += (text[end : found.start], new)
            end = found.end
    return "".join([*parts, text[end:]]) if parts else text


def digits_in(text: str) -> int:
    """Return how many ASCII digits a text has."""
    return sum(map(text.count, "0123456789"))


def is_word(char: str) -> bool:
    """Return whether a character belongs to a word of a language that puts spaces between words."""
    return char == "_" or (char.isalnum() and char < "\u3000")


def stands_alone(text: str, start: int, end: int) -> bool:
    """Return whether no part of a longer number, name or path is directly beside a match."""
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    if before and is_word(before[-1]):
        return False
    if len(before) == 2 and before[-1] in "-./_" and is_word(before[0]):
        return False
    if before and before[-1] in "#$€£+":
        return False
    if after and is_word(after[0]):
        return False
    return not (len(after) == 2 and after[0] in "-._+" and is_word(after[1]))


def words_before(text: str, start: int) -> Iterator[str]:
    """Yield the words before a place in lower case, the nearest first: until a number, a line or a mask ends.

    A masked value may be of any length, so the words beyond it must not count: a text that is masked twice
    would change at the second time.
    """
    window = text[max(0, start - _WINDOW) : start]
    yield from reversed(_words(window[max(map(window.rfind, _ENDS)) + 1 :]))


def words_after(text: str, end: int) -> list[str]:
    """Return the first words after a place in lower case."""
    window = text[end : end + _WINDOW // 2]
    found = [at for at in map(window.find, _ENDS) if at >= 0]
    return _words(window[: min(found)] if found else window)


_WINDOW = 48
_ENDS = "0123456789<>@\n;"


def _words(text: str) -> list[str]:
    return "".join(char if char.isalpha() else " " for char in text.lower()).split()
