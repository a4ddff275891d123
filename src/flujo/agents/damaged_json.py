"""Repairs JSON whose damage has one certain repair, and lists its other readings where it has several.

Certain repairs: commas before a closing bracket, missing commas in objects, comments, single and curly
quotes, names without quotes, `True`, `False` and `None`, raw line ends in texts, closing brackets that the
next one implies, and quotes inside a text that come in pairs. Anything else is not repaired: a text that
breaks off, a word without quotes, a list in which one item may be two.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from flujo.json_schema import strict_json

MAX_READINGS = 64
"""How many readings of one text are tried."""

MAX_DAMAGED = 12
"""How many texts with quotes inside one value may have."""

_SKIPPED = re.compile(r"(?:\s+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_$][\w$-]*")
_SCALAR = re.compile(r"-?[0-9][0-9.eE+-]*|[A-Za-z]+")
_QUOTES = {'"': '"', "'": "'", "“": "”"}
_TO_END = {
    quote: re.compile(rf"[^{ends}\\]*(?:\\.[^{ends}\\]*)*[{ends}]", re.DOTALL)
    for quote, ends in {'"': '"', "'": "'", "“": '”"'}.items()
}
"""The rest of a text, up to a quote that may close it."""
_LITERALS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_ESCAPED = frozenset('"\\/bfnrt')
_LITERAL = frozenset("aAcCdDeEgGhHiIjJkKlLmMoOpPqQsSvVwWxXyYzZ_.-*()")
"""What follows a backslash that stands for itself, in regular expressions, paths and formulas."""
_STRUCTURE = re.compile(r'["\'“”]\s*[:,\]}"\'“”]|[:,\[{]\s*["\'“”]')
"""Signs inside a text that it may be several texts."""
_QUOTED = re.compile(r"""(?<![\w.!?])(["'])(?=\S)[^"']*(?<=\S)\1(?!\w)""")
"""A quoted word or sentence inside a text."""
_AFTER_VALUE = (",", "}", "]")


class _Unreadable(Exception):
    """This reading does not parse."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """One reading of damaged JSON."""

    value: Any
    is_doubtful: bool
    """Whether another text may have been damaged to the same one: never an answer, only a second reading."""


def readings(text: str) -> list[Repaired]:
    """Return the readings of a text that starts with a bracket; none if its damage has no certain repair."""
    found: list[Repaired] = []
    choices: list[int] = []
    for _ in range(MAX_READINGS):
        attempt = _Attempt(text, choices)
        try:
            found.append(Repaired(attempt.whole(), attempt.is_doubtful))
        except (_Unreadable, RecursionError):
            pass
        taken = attempt.taken
        while taken and taken[-1][0] + 1 == taken[-1][1]:
            taken.pop()
        if not taken:
            return found
        choices = [choice for choice, _ in taken]
        choices[-1] += 1
    return []


@dataclass
class _Attempt:
    """Parses a text in one way: each damaged text ends at the quote that `choices` selects."""

    text: str
    choices: list[int]
    taken: list[tuple[int, int]] = field(default_factory=list)
    """Each choice, and the number of its options."""
    is_doubtful: bool = False

    def whole(self) -> Any:
        """Return the value that fills the whole text."""
        value, at = self._value(0)
        if self._skip(at) < len(self.text):
            raise _Unreadable
        return value

    def _skip(self, at: int) -> int:
        found = _SKIPPED.match(self.text, at)
        return found.end() if found else at

    def _next(self, at: int) -> str:
        return self.text[at : at + 1]

    def _value(self, at: int) -> tuple[Any, int]:
        match self._next(at):
            case "{":
                return self._object(at + 1)
            case "[":
                return self._array(at + 1)
            case quote if quote in _QUOTES:
                return self._text(at)
            case _:
                return self._scalar(at)

    def _object(self, at: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        at = self._skip(at)
        while self._next(at) not in ("}", "]"):
            name, at = self._name(at)
            at = self._skip(at)
            if self._next(at) != ":":
                raise _Unreadable
            value, at = self._value(self._skip(at + 1))
            if name in found and not strict_json.is_same(found[name], value):
                raise _Unreadable
            found[name] = value
            at = self._skip(at)
            if self._next(at) == ",":
                at = self._skip(at + 1)
        # A list around this object closes, so this object has ended.
        return found, at + (self._next(at) == "}")

    def _array(self, at: int) -> tuple[list[Any], int]:
        found: list[Any] = []
        at = self._skip(at)
        while self._next(at) not in ("]", "}"):
            value, at = self._value(at)
            found.append(value)
            at = self._skip(at)
            if self._next(at) == ",":
                at = self._skip(at + 1)
            elif self._next(at) not in ("]", "}") and not isinstance(value, dict):
                raise _Unreadable  # `["a" "b"]` may be one item or two
        if self._next(at) == "}" and len(found) < 2:
            raise _Unreadable  # the opening bracket may be the damage
        return found, at + (self._next(at) == "]")

    def _name(self, at: int) -> tuple[str, int]:
        if self._next(at) in _QUOTES:
            end = self._end(at, at + 1)
            return _decoded(self.text[at + 1 : end]), end + 1
        found = _NAME.match(self.text, at)
        if found is None:
            raise _Unreadable
        return found[0], found.end()

    def _scalar(self, at: int) -> tuple[Any, int]:
        found = _SCALAR.match(self.text, at)
        if found is None:
            raise _Unreadable
        if found[0] in _LITERALS:
            return _LITERALS[found[0]], found.end()
        try:
            return strict_json.loads(found[0]), found.end()
        except ValueError as error:
            raise _Unreadable from error

    def _end(self, at: int, start: int) -> int:
        """Return the position of the next quote that closes the text which opens at `at`."""
        found = _TO_END[self.text[at]].match(self.text, start)
        if found is None:
            raise _Unreadable
        return found.end() - 1

    def _text(self, at: int) -> tuple[str, int]:
        """Return a text that is a value. A quote inside it is not its end if no value can end there."""
        end = self._end(at, at + 1)
        after = self._skip(end + 1)
        if self._next(after) not in _AFTER_VALUE:
            ends = [end] if self._is_member(after) else []  # only a comma is missing
            ends += self._later_ends(at, end)
            first, end = end, self._chosen(ends)
            if end != first and _is_doubtful(self.text[at + 1 : end], self.text[at]):
                self.is_doubtful = True
        return _decoded(self.text[at + 1 : end]), end + 1

    def _later_ends(self, at: int, end: int) -> list[int]:
        """Return the quotes after `end` where a value can end, too."""
        found: list[int] = []
        try:
            while len(found) <= MAX_READINGS:
                end = self._end(at, end + 1)
                if self._next(self._skip(end + 1)) in _AFTER_VALUE:
                    found.append(end)
        except _Unreadable:
            pass
        return found

    def _is_member(self, at: int) -> bool:
        """Return whether the name of a member starts here."""
        if self._next(at) not in _QUOTES:
            return False
        try:
            return self._next(self._skip(self._end(at, at + 1) + 1)) == ":"
        except _Unreadable:
            return False

    def _chosen(self, ends: list[int]) -> int:
        number = len(self.taken)
        if not ends or number == MAX_DAMAGED:
            raise _Unreadable
        choice = self.choices[number] if number < len(self.choices) else 0
        self.taken.append((choice, len(ends)))
        return ends[choice]


def _is_doubtful(content: str, quote: str) -> bool:
    """Return whether the quotes inside a text may be damage themselves, and not around quoted words."""
    inner = content.replace("\\" + quote, quote)
    if quote == "'":
        inner = re.sub(r"(?<=\w)'(?=\w)", "", inner)
    return _STRUCTURE.search(inner) is not None or _QUOTES[quote] in _QUOTED.sub("", inner)


def _decoded(content: str) -> str:
    """Return the text between two quotes, with its escapes resolved."""
    escapes = {found[1] for found in _ESCAPE.finditer(content)} - {"'"}
    odd = {each for each in escapes if each not in _ESCAPED and len(each) == 1}
    if odd and (not odd <= _LITERAL or escapes - odd - {'"'}):
        raise _Unreadable  # `\d` shows that backslashes were not escaped, so `\n` may be two characters too

    def escaped(found: re.Match[str]) -> str:
        if found[1] == "'":
            return "'"
        return f"\\\\{found[1]}" if found[1] in odd else found[0]

    pieces = re.split(r"(\\(?:u[0-9A-Fa-f]{4}|.))", content, flags=re.DOTALL)
    text = "".join(
        _ESCAPE.sub(escaped, piece) if piece[:1] == "\\" else piece.replace('"', '\\"') for piece in pieces
    )
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError as error:
        raise _Unreadable from error
