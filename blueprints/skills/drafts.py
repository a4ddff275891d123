"""Judges a draft by rules that need no model: length, repetition, facts that are missing, gaps left open.

The bare facts are the draft when the model writes none.
"""

import re
from typing import Any

_FEWEST, _MOST = 6, 80
_KEPT = 0.5
"""How much of the facts' longer words a draft has to keep: fluent answers about something else are common."""
_NUMBER = re.compile(r"[A-Z]-\d+|\d+(?:\.\d+)?")
_LONG_WORD = re.compile(r"[^\W\d_]{5,}")
_GAP = re.compile(r"\[[^\]]*\]|<[^>]*>")
_END = re.compile(r"[.!?]+\s*")


def check(text: str, facts: str) -> dict[str, Any]:
    """Return `{ok, wish}`; `wish` tells the writer what to change, and is "" when nothing is."""
    wish = _wish(text, facts)
    return {"ok": not wish, "wish": wish}


def bare(facts: str) -> str:
    """Return the facts as the draft."""
    return facts


def _wish(text: str, facts: str) -> str:
    sentences = [sentence.strip().lower() for sentence in _END.split(text) if sentence.strip()]
    missing = [number for number in _NUMBER.findall(facts) if number not in text]
    if len(text.split()) < _FEWEST:
        return "Write a full sentence."
    if len(text.split()) > _MOST:
        return "Be shorter."
    if len(set(sentences)) < len(sentences):
        return "Say everything once."
    if missing:
        return f"Mention {missing[0]}."
    if not _keeps(text.lower(), facts.lower()):
        return "Keep to the note."
    if gap := _GAP.search(text):
        return f"Leave out {gap.group()}."
    return "" if text.rstrip().endswith((".", "!", "?")) else "End with a full sentence."


def _keeps(text: str, facts: str) -> bool:
    words = set(_LONG_WORD.findall(facts))
    return sum(word in text for word in words) >= _KEPT * len(words)
