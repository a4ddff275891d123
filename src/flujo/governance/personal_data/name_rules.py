"""Corrects the names that a model finds in English, by the words around them and by lists of words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from flujo.governance.personal_data.name_words import (
    ABBREVIATIONS,
    GREETINGS,
    INSTITUTIONS,
    ORDINARY,
    PLACES,
    PRODUCTS,
)
from flujo.governance.personal_data.patterns import compiled

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flujo.domain.personal_data import Entity


class Name(NamedTuple):
    """A name in a text."""

    start: int
    end: int
    entity: Entity


_WORD = r"\p{Lu}[\pL'\x{2019}-]*"
_LINK = r"(?: |(?: (?:van|von|der|den|de|da|di|del|dos|bin|ibn|al|el|la|le)){1,2} )"
_END = r"(?:[^\pL'\x{2019}-]|$)"
_PART = rf"(?:\p{{Lu}}\.|{_WORD})"
_FULL = rf"{_PART}(?:{_LINK}{_PART}){{0,3}}"
_TITLED = compiled(
    r"\b(?:Mr|Mrs|Ms|Mx|Miss|Dr|Prof|Professor|Sir|Dame|Lord|Lady|Rev|Judge|Nurse)\.? "
    rf"((?:(?:van|von|der|den|de|da|di|del|bin|al|el) )*{_FULL})"
)
_GREETED = compiled(rf"(?m)(?:^|[.!?>\"] )(?:Dear|Hi|Hello|Hey) ({_FULL})(?:[,!.:]|$)")
_NAMED = compiled(rf"(?:[Mm]y name is|[Mm]y name's|^[Nn]ame:) ({_FULL})")
_LABELLED = compiled(
    r"(?i:\b(?:customer|client|patient|tenant|employee|witness|first name|last name|full name|surname))"
    rf"""["']?: ?["']?({_FULL})"""
)
_SIGNED = compiled(
    rf"(?m)(?:[Rr]egards|[Ss]incerely|[Ff]aithfully|^Cheers|^Thanks|^Best|[Ww]ishes),?\s({_FULL})\s*$"
)
_COMPANY = compiled(
    rf"((?:{_WORD} (?:& )?){{1,4}}"
    r"(?:Ltd|Limited|LLC|LLP|Inc|GmbH|AG|plc|PLC|Corp|Corporation|Co|Holdings|Group|Bank|Foundation|"
    r"University|Hospital|Insurance|Logistics|Partners))" + _END
)
_BY_WORDS: tuple[tuple[Any, Entity], ...] = (
    (_COMPANY, "organisation"),
    (_TITLED, "person"),
    (_GREETED, "person"),
    (_NAMED, "person"),
    (_LABELLED, "person"),
    (_SIGNED, "person"),
)
_NEIGHBOUR = compiled(rf" ({_PART})" + _END)
_BREAKS = compiled(r"""[()\[\]{}<>"|;:/\n\t]+""")
_PART_OF_CODE = r"._/\@#$=-"
_NEVER = frozenset(r"_\=+*@#^~$%0123456789")
"""Characters that no name has: with them a word is code, a product or a number."""


def corrected(text: str, found: Sequence[Name]) -> list[Name]:
    """Return the names in a text, in order.

    Args:
        text: the text.
        found: what a model takes for names.
    """
    names = list(_by_words(text))
    for each in found:
        for piece in _pieces(text, each):
            for start, end in _outside(piece.start, piece.end, names):
                if (name := _name(text, start, end, piece.entity)) is not None:
                    names.append(name)
    return sorted(names)


def _by_words(text: str) -> Iterator[Name]:
    """Yield the names that the words around them show, whatever a model says."""
    taken: list[Name] = []
    for pattern, entity in _BY_WORDS:
        for match in pattern.finditer(text):
            for start, end in _outside(match.start(1), match.end(1), taken):
                if (name := _name(text, start, end, entity)) is not None:
                    taken.append(name)
                    yield name


def _pieces(text: str, name: Name) -> Iterator[Name]:
    """Yield the parts of a name between brackets, signs and lines, which a name does not contain."""
    start = name.start
    for found in _BREAKS.finditer(text[name.start : name.end]):
        yield Name(start, name.start + found.start(), name.entity)
        start = name.start + found.end()
    yield Name(start, name.end, name.entity)


def _outside(start: int, end: int, names: Sequence[Name]) -> Iterator[tuple[int, int]]:
    """Yield the parts of a span that no name has."""
    for name in sorted(names):
        if name.start < end and start < name.end:
            if start < name.start:
                yield start, name.start
            start = name.end
    if start < end:
        yield start, end


def _name(text: str, start: int, end: int, entity: Entity) -> Name | None:
    """Return a name without the words around it that do not belong to it; None if it is not a name."""
    start, end = _trimmed(text, start, end)
    value = text[start:end]
    words = value.replace("-", " ").split()
    if not words or _NEVER.intersection(value) or not any(char.isupper() for char in value):
        return None
    if value in ABBREVIATIONS or value in PRODUCTS:
        return None
    if all(word.lower() in ORDINARY or len(word) == 1 or word in PRODUCTS for word in words):
        return None
    if _is_code(text, start, end):
        return None
    if value in PLACES:
        entity = "place"
    elif len(words) > 1 and words[-1].rstrip(".") in INSTITUTIONS:
        entity = "organisation"
    return Name(*_whole(text, start, end, entity), entity)


def _whole(text: str, start: int, end: int, entity: Entity) -> tuple[int, int]:
    """Return where a name begins and ends; a model may have found only a part of it."""
    before = text[:start].rpartition("\n")[2].split(" ")
    begins = entity == "person" or (len(before) > 2 and before[-3][-1:] not in (".", "!", "?", ""))
    if begins and len(before) > 1 and not before[-1] and _is_part(before[-2]):
        start -= len(before[-2]) + 1
    while entity == "person" and (found := _NEIGHBOUR.match(text, end)) is not None and _is_part(found[1]):
        end = found.end(1)
    return start, end


def _is_part(word: str) -> bool:
    """Return whether a word beside a name is a part of it: a name itself, or an initial."""
    is_initial = len(word) == 2 and word[0].isupper() and word[1] == "."
    is_name = word[:1].isupper() and word[1:].islower() and word.replace("-", "").isalpha()
    return is_initial or (is_name and word.lower() not in ORDINARY | GREETINGS and word not in PRODUCTS)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while end > start and not (text[end - 1].isalnum()):
        end -= 1
    if text[start:end].endswith(("'s", "\u2019s")):
        end -= 2
    while start < end:
        word = text[start:end].partition(" ")[0]
        if word and word[0].isalnum() and word.lower().rstrip(",.") not in GREETINGS:
            break
        start += len(word) + 1 if word and word[0].isalnum() else 1
    return min(start, end), end


def _is_code(text: str, start: int, end: int) -> bool:
    """Return whether a word is a part of a path, a file name, an identifier or a call."""
    before, after = text[start - 1 : start] if start else "", text[end : end + 2]
    if before and (before in _PART_OF_CODE or before.isalnum()):
        return True
    return after[:1] == "(" or (len(after) == 2 and after[0] in _PART_OF_CODE and after[1].isalnum())
