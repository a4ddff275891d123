"""Says which teams a ticket concerns, by its words."""

import re

_SIGNS = {
    "billing": re.compile(r"\b(refund|money|charged|invoice|A-\d{4})\b", re.IGNORECASE),
    "technical": re.compile(r"\b(error|crash\w*|login|log in|page)\b", re.IGNORECASE),
}


def teams(text: str) -> list[str]:
    """Return the teams that should look at `text`; `help` when none of them is concerned."""
    return [team for team, sign in _SIGNS.items() if sign.search(text)] or ["help"]
