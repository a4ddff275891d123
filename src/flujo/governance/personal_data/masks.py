"""What replaces a found value: its placeholder, or the value itself where it is allowed."""

from __future__ import annotations

from fnmatch import translate
from re import IGNORECASE
from re import compile as pattern
from typing import TYPE_CHECKING

from flujo.domain.personal_data import placeholder

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from flujo.domain.personal_data import Entity, Replace

    Mask = Callable[[Entity, str], str]
    """Returns the replacement of a value of a kind."""


class Masks:
    """Chooses what replaces a value.

    Args:
        entities: the kinds that are masked.
        allow: patterns of values that are not.
    """

    def __init__(self, entities: Collection[Entity], allow: Sequence[str]) -> None:
        self.entities = frozenset(entities)
        self._allowed = [pattern(translate(each), IGNORECASE) for each in allow]

    def of(self, kept: Sequence[str], replace: Replace = placeholder) -> Mask:
        """Return what replaces values, by `replace`; those that occur in `kept` stay."""

        def mask(entity: Entity, value: str) -> str:
            if entity not in self.entities or any(value in each for each in kept):
                return value
            if any(allowed.match(value) for allowed in self._allowed):
                return value
            return replace(entity, value)

        return mask
