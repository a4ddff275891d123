"""Names of people, places and organisations: a model finds them, and rules correct what it finds."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol

from flujo.governance.personal_data.models import PACKAGES
from flujo.governance.personal_data.name_rules import Name, corrected

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flujo.domain.personal_data import Entity, NameLocale
    from flujo.governance.personal_data.masks import Mask


class Names(Protocol):
    """Finds names in texts of a language."""

    def find(self, text: str, locale: NameLocale) -> Sequence[Name]:
        """Return the names in a text of at most `LONGEST` characters: in order, and none over another."""
        ...


LONGEST = 4_000
"""The most characters that a model reads at once."""

_ENTITIES: dict[str, Entity] = {
    "PERSON": "person",
    "GPE": "place",
    "LOC": "place",
    "FAC": "place",
    "ORG": "organisation",
}
"""Labels of the models, and ours."""
_UNUSED = ("tok2vec", "tagger", "parser", "attribute_ruler", "lemmatizer", "senter")
"""Parts of a model that find no names; they take half of its time."""
_PLACEHOLDER = re.compile(r"<[A-Z_]{2,20}(?:[a-z]{8})?>")
_SYMBOL = re.compile("[\u2190-\u2bff\ufe0f\U0001f000-\U0001faff]")
_QUOTED = re.compile(r'"([^"\n]{2,200})"')
_CAPITAL = re.compile(r"[^\W\d_a-z]\w?[^\W\d_]|[^\W\d_a-z]\. ")
"""What a text with a name has, roughly: timestamps and identifiers are not read by the model."""


class SpacyNames:
    """The port `Names`, by spaCy. A model is loaded with its first text, once in a process."""

    def __init__(self) -> None:
        self._one_at_a_time = Lock()  # a model adds new words to a table that threads would share
        self._found = lru_cache(maxsize=1_024)(self._read)

    def find(self, text: str, locale: NameLocale) -> Sequence[Name]:
        """Return the names in a text; a text that was read lately is not read again."""
        return self._found(text, locale)

    def _read(self, text: str, locale: NameLocale) -> Sequence[Name]:
        with self._one_at_a_time:
            model = _model(locale)
            with model.memory_zone():  # without it the table of words grows indefinitely
                spans = [
                    Name(at + each.start_char, at + each.end_char, _ENTITIES[each.label_])
                    for at, part in _readings(text)
                    for each in model(part).ents
                    if each.label_ in _ENTITIES
                ]
        return corrected(text, spans)


def _readings(text: str) -> Iterator[tuple[int, str]]:
    """Yield a text, and each value in quotes with its place: a model overlooks names in JSON."""
    yield 0, text
    for found in _QUOTED.finditer(text):
        if _CAPITAL.search(found[1]) is not None:
            yield found.start(1), found[1]


@cache
def _model(locale: NameLocale) -> Any:
    import spacy

    return spacy.load(PACKAGES[locale], exclude=_UNUSED)


SPACY = SpacyNames()
"""The models of this process."""


def masked(text: str, mask: Mask, locales: Sequence[NameLocale], names: Names, before: str = "") -> str:
    """Return a text with names masked. Placeholders in it stay.

    Args:
        text: the text.
        mask: returns what replaces a name.
        locales: the languages whose names are masked.
        names: finds them.
        before: words that are read before the text; they are not masked.
    """
    if _CAPITAL.search(text) is None:
        return text
    for locale in locales:
        pieces = list(_pieces(text, LONGEST - len(before)))
        rest = [_masked(each, mask, locale, names) for each in pieces[1:]]
        text = "".join([_masked(pieces[0], mask, locale, names, before), *rest])
    return text


def _masked(text: str, mask: Mask, locale: NameLocale, names: Names, before: str = "") -> str:
    # A model takes `<PERSON>` for a name, and overlooks a name beside an emoji. No name has brackets.
    read = _PLACEHOLDER.sub(lambda found: f"({'it'.ljust(len(found[0]) - 2)})", _SYMBOL.sub(" ", text))
    parts: list[str] = []
    end = 0
    for name in names.find(before + read, locale):
        start, after = max(name.start - len(before), 0), name.end - len(before)
        if start < after:
            parts += (text[end:start], mask(name.entity, text[start:after]))
            end = after
    return "".join([*parts, text[end:]])


def _pieces(text: str, longest: int) -> Iterator[str]:
    """Yield a text in pieces that end with a line or a word, where one does."""
    while len(text) > longest:
        end = max(text.rfind("\n", 0, longest), text.rfind(". ", 0, longest)) + 1
        end = end or text.rfind(" ", 0, longest) + 1 or longest
        yield text[:end]
        text = text[end:]
    yield text
