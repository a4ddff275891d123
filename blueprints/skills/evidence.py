"""Holds the answer of a model against the text that it was asked about."""

import re
from typing import Protocol

_WORD = re.compile(r"\w+")


class Sourced(Protocol):
    """A context with the text that quotes must stand in."""

    source: str


def normalised(text: str) -> str:
    """Return the text with single spaces, so that quotes can be compared letter by letter."""
    return " ".join(text.split())


def quoted(data: dict[str, str], context: Sourced) -> str | None:
    """Reject a quote that is not in the text."""
    if normalised(data["quote"]) in context.source:
        return None
    return "the quote is not in the text; copy a sentence of the text word for word"


def supported(data: dict[str, str]) -> str | None:
    """Reject an answer with a word that its quote does not have. Numbers and dates are words too."""
    known = {word.lower() for word in _WORD.findall(data["quote"])}
    added = [word for word in _WORD.findall(data["answer"]) if word.lower() not in known]
    return f"the quote does not prove {added[0]!r}; use words of the quote" if added else None


def unproven() -> dict[str, str]:
    """Return the result for a question without a proven answer."""
    return {"quote": "", "answer": ""}
