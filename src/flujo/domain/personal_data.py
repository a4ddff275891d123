"""Personal data: its kinds, the languages whose rules are known, and the rules of a project."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

Entity = Literal["email", "phone", "card", "iban", "national_id", "ip", "url_credentials", "key"]
"""A kind of personal data."""

ENTITIES: tuple[Entity, ...] = get_args(Entity)

Locale = Literal["de", "en", "es", "fr", "it", "nl", "pl", "pt"]
"""A language: its phone numbers, national ids and words beside them."""

LOCALES: tuple[Locale, ...] = get_args(Locale)


def placeholder(entity: Entity) -> str:
    """Return the text that stands in place of a value: `<EMAIL>`."""
    return f"<{entity.upper()}>"


@dataclass(frozen=True, slots=True)
class Rules:
    """The personal data that a project masks."""

    entities: tuple[Entity, ...] = ENTITIES
    """The kinds that are masked."""
    locales: tuple[Locale, ...] = LOCALES
    """The languages of phone numbers, national ids and the words beside them."""
    allow: tuple[str, ...] = ()
    """Values that are not masked: patterns with `*` and `?`, compared without case."""


class Scrub(Protocol):
    """Masks personal data."""

    def text(self, text: str, *, key: str = "", kept: Sequence[str] = ()) -> str:
        """Return a text with `<EMAIL>`, `<PHONE>` … in place of personal data.

        Args:
            text: the text.
            key: the name of the field that it is the value of, which counts like a word before it.
            kept: texts whose values are not masked.
        """
        ...

    def data(self, value: Any, *, key: str = "", kept: Sequence[str] = ()) -> Any:
        """Return JSON data with the personal data in its texts, long numbers and keys masked; see `text`."""
        ...
