"""Judges a draft by rules that need no model: its length, its end, gaps left to fill in."""

import re
from typing import Any

_FEWEST, _MOST = 8, 90
_GAP = re.compile(r"\[[^\]]*\]|<[^>]*>")


def check(text: str) -> dict[str, Any]:
    """Return `{ok, words, wish}`; `wish` tells the writer what to change, and is "" when nothing is."""
    count = len(text.split())
    wish = ""
    if count < _FEWEST:
        wish = "Write at least two sentences."
    elif count > _MOST:
        wish = "Write at most three short sentences."
    elif gap := _GAP.search(text):
        wish = f"Leave out {gap.group()}."
    elif not text.rstrip().endswith((".", "!", "?")):
        wish = "End with a full sentence."
    return {"ok": not wish, "words": count, "wish": wish}
