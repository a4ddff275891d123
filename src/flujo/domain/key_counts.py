"""How many values of a database are encrypted with which key, and what a rotation of keys has done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class KeyCounts:
    """The values of a database by the key that has encrypted them. Digests of values count as values."""

    by_key: Mapping[str, int]
    """The id of each key of this process → how many values."""
    plain: int
    """Values that are not encrypted."""
    unknown: int
    """Values of keys that this process does not have."""
    writer: str | None
    """The id of the key that encrypts new values; None when they are not encrypted."""

    @property
    def left(self) -> int:
        """How many values a rotation has to write."""
        others = sum(count for key, count in self.by_key.items() if key != self.writer)
        return others + self.unknown + (0 if self.writer is None else self.plain)


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a rotation has done so far."""

    rows: int = 0
    values: int = 0
    damaged: tuple[str, ...] = ()
    """Values that could not be decrypted because they are damaged, each named."""

    def __add__(self, other: Rotated) -> Rotated:
        return Rotated(self.rows + other.rows, self.values + other.values, self.damaged + other.damaged)
