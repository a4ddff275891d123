"""Shortens articles to what they say first."""

import re

_SENTENCE = re.compile(r"\s*(.+?[.!?])(?:\s|$)", re.DOTALL)


def gist(text: str) -> str:
    """Return the first sentence of `text`, in one line.

    Raises:
        ValueError: there is no sentence in it.
    """
    first = _SENTENCE.match(text)
    if first is None:
        raise ValueError("the text has no sentence")
    return " ".join(first[1].split())
