"""Finds the known issue that a bug report describes."""

import json
from pathlib import Path

from blueprints.skills import words

_ISSUES = json.loads(Path(__file__).with_name("issues.json").read_text("utf-8"))


def known(text: str) -> str:
    """Return the public information about the bug in `text`."""
    issue = words.best(_ISSUES, text)
    if issue is None:
        return "This is new to us. A developer looks at it today and writes to you."
    return str(issue["say"])
