"""Whole numbers between a least and a greatest value, which may be unknown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Span:
    """A number of at least `least` and at most `most`; None: nothing bounds it."""

    least: int = 0
    most: int | None = 0

    def __add__(self, other: Span) -> Span:
        most = None if self.most is None or other.most is None else self.most + other.most
        return Span(self.least + other.least, most)

    def times(self, count: Span) -> Span:
        """Return the sum of `count` such numbers."""
        if self.most == 0 or count.most == 0:
            most: int | None = 0
        elif self.most is None or count.most is None:
            most = None
        else:
            most = self.most * count.most
        return Span(self.least * count.least, most)

    def or_nothing(self) -> Span:
        """Return this number, or zero."""
        return Span(0, self.most)

    def within(self, limit: int | None) -> Span:
        """Return the span with a further upper bound."""
        if limit is None:
            return self
        most = limit if self.most is None else min(self.most, limit)
        return Span(min(self.least, most), most)


NOTHING = Span()
ONE = Span(1, 1)


def total(spans: Iterable[Span]) -> Span:
    """Return the sum."""
    found = NOTHING
    for each in spans:
        found += each
    return found


def any_of(spans: Iterable[Span]) -> Span:
    """Return the span of a number that is one of these, which are not none."""
    found = list(spans)
    most = [each.most for each in found if each.most is not None]
    return Span(min(each.least for each in found), max(most) if len(most) == len(found) else None)
