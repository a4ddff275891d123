"""Texts whose personal data is marked: `<<EMAIL jane@example.org>>`."""

from __future__ import annotations

import re

_MARK = re.compile(r"<<([A-Z_]+) (.*?)>>(?!>(?!$))", re.DOTALL)


def plain(marked: str) -> str:
    """Return the text without its marks."""
    return _MARK.sub(r"\2", marked)


def masked(marked: str) -> str:
    """Return the text with a placeholder at each mark."""
    return _MARK.sub(r"<\1>", marked)


def values(marked: str) -> list[tuple[str, str]]:
    """Return the kind and the value of each mark, in order."""
    return [(found[1].lower(), found[2]) for found in _MARK.finditer(marked)]
