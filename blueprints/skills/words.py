"""Picks from a list of topics the one whose words occur most often in a text."""

import re
from typing import Any

_WORD = re.compile(r"\w+")


def best(topics: list[dict[str, Any]], text: str) -> dict[str, Any] | None:
    """Return the topic with the most hits, the first one of equals, or None when nothing is hit."""
    lowered = text.lower()
    words = _WORD.findall(lowered)
    hits = [sum(_count(word, words, lowered) for word in topic["words"]) for topic in topics]
    return topics[hits.index(max(hits))] if max(hits) else None


def _count(word: str, words: list[str], text: str) -> int:
    return text.count(word) if " " in word else words.count(word)
