"""Checks regular expressions of JSON Schemas: they compile and have no exponential matching time.

Flujo matches with RE2, in linear time. Schemas are also sent to providers and used by other programs that
backtrack, so nested quantifiers are refused too.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field

from flujo.json_schema.re2_patterns import PatternRefused, check_pattern

MAX_PATTERN = 1_000
MANY = 10
"""A bounded repetition above this counts as unbounded."""

_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<open>\((?:\?(?:[:=!]|<[=!]|P<\w+>|[aiLmsux-]+:?))?)|(?P<close>\))"
    r"|(?P<or>\|)|(?P<quantifier>[*+?]|\{(?P<least>\d*)(?P<comma>,?)(?P<most>\d*)\})|.",
    re.DOTALL,
)


def pattern_problem(pattern: str) -> str | None:
    """Return why a pattern is refused, as the end of a sentence that begins "the pattern", or None."""
    if len(pattern) > MAX_PATTERN:
        return f"has {len(pattern)} characters; at most {MAX_PATTERN} are allowed"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sets that a later version of Python may read differently
            re.compile(pattern)
            nested = _nests_quantifiers(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"does not compile as a regular expression: {error}"
    if nested:
        return "has a nested quantifier: a group that matches a text in several ways takes exponential time"
    try:
        check_pattern(pattern)
    except PatternRefused as refused:
        return (
            f"does not compile with RE2, which has no lookaround and no backreferences, to guarantee linear "
            f"time: {refused}"
        )
    return None


@dataclass(slots=True)
class _Element:
    """One element of a pattern: a token, or a group (`text` is None)."""

    text: str | None
    is_literal: bool = False
    varies: bool = False
    """Whether it can match texts of different lengths."""


@dataclass(slots=True)
class _Group:
    """The state of a group while its content is read."""

    alternatives: list[list[_Element]] = field(default_factory=lambda: [[]])
    varies: bool = False

    def take(self, element: _Element) -> None:
        self.alternatives[-1].append(element)
        self.varies |= element.varies

    def is_ambiguous(self) -> bool:
        """Whether it could match the same text in several ways if repeated."""
        if len(self.alternatives) > 1:
            firsts = [elements[0] if elements else None for elements in self.alternatives]
            literal = {first.text for first in firsts if first is not None and first.is_literal}
            return self.varies or len(literal) < len(firsts)
        return self.varies and not self._is_separated()

    def _is_separated(self) -> bool:
        """Whether it starts or ends with a character that none of its variable parts can match."""
        elements = self.alternatives[0]
        varying = [element for element in elements if element.varies]
        for edge in (elements[0], elements[-1]):
            if edge.is_literal and not edge.varies and not any(_matches(inner, edge) for inner in varying):
                return True
        return False


def _nests_quantifiers(pattern: str) -> bool:
    """Whether a group with unbounded repetition can match the same text in several ways."""
    groups = [_Group()]
    last: _Element | None = None
    closed: _Group | None = None
    for token in _TOKEN.finditer(pattern):
        if token["quantifier"]:
            if closed is not None and _is_unbounded(token) and closed.is_ambiguous():
                return True
            if last is not None and not _is_exact(token):
                last.varies = groups[-1].varies = True
        elif token["open"]:
            groups.append(_Group())
            last = None
        elif token["or"]:
            groups[-1].alternatives.append([])
            last = None
        else:
            ends = token["close"] is not None and len(groups) > 1
            inner = groups.pop() if ends else None
            last = _Element(None, varies=inner.varies) if inner else _Element(token[0], _is_literal(token[0]))
            groups[-1].take(last)
            closed = inner
            continue
        closed = None
    return False


def _matches(inner: _Element, edge: _Element) -> bool:
    return inner.text is None or re.compile(inner.text).fullmatch(str(edge.text)[-1]) is not None


def _is_literal(token: str) -> bool:
    return (token not in (".", "^", "$") and len(token) == 1) or (len(token) == 2 and not token[1].isalnum())


def _is_exact(token: re.Match[str]) -> bool:
    """Whether a quantifier has a fixed count such as `{3}`, or is empty."""
    return token["least"] is not None and not token["comma"]


def _is_unbounded(token: re.Match[str]) -> bool:
    if token["quantifier"] in ("*", "+", "?"):
        return token["quantifier"] != "?"
    most = token["most"] if token["comma"] else token["least"]
    return not most or int(most) > MANY
