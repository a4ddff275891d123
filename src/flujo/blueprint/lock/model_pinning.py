"""Detects model names that a provider may point to another model."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_FIXED = frozenset({"local", "test", "function", "scripted"})
"""Providers whose models are files with a digest, or test models."""
_STAMP = re.compile(r"(?:^|[-_@.:/])(?:\d{8}|\d{4}-\d{2}-\d{2}|\d{2}-\d{2}|\d{4}|0\d{2})(?=$|[-_@:/])")
"""A date (`2025-08-07`, `20250929`, `0613`, `2411`) or a numbered release (`002`)."""


def is_floating(model: str, allowed: Iterable[str] = ()) -> bool:
    """Return whether a model's name has no release: a date or a number at its end, as providers write them.

    Args:
        model: `provider:model`.
        allowed: patterns of models that may float, because their provider has no fixed name for them.
    """
    provider, _, name = model.partition(":")
    if provider in _FIXED or any(fnmatchcase(model, pattern) for pattern in allowed):
        return False
    return name.endswith("latest") or _STAMP.search(name) is None
