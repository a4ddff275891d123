"""Finds the help page that answers a question."""

import json
from pathlib import Path

from blueprints.skills import words

_PAGES = json.loads(Path(__file__).with_name("help_pages.json").read_text("utf-8"))
_CONTACT = {"title": "Contact", "text": "A colleague reads this ticket and answers within one working day."}


def find(text: str) -> dict[str, str]:
    """Return `{title, text}` of the page that fits best, or the contact page."""
    page = words.best(_PAGES, text) or _CONTACT
    return {"title": page["title"], "text": page["text"]}
