"""Masks secrets in a text: known values, their parts, and passwords in URLs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MASK = "***"

SHORTEST_SECRET = 8  # shorter values are too often ordinary words
_PART = 8
_SHORTEST_WITH_PARTS = 12

# The userinfo ends at the last `@` before the path, because users type passwords with an unescaped `@`.
_USERINFO = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)(?P<user>[^:/?#\s'\"]*):(?P<password>[^\s/?#'\"]*)@"
)
_QUERY = re.compile(
    r"(?P<name>[?&](?:password|passwd|pwd|token|api_?key|secret)=)(?P<password>[^&#\s'\"]*)", re.IGNORECASE
)


def redact_uri(text: str) -> str:
    """Return `text` with the password of every URL in it replaced by `***`."""
    text = _USERINFO.sub(rf"\g<scheme>\g<user>:{MASK}@", text)
    return _QUERY.sub(rf"\g<name>{MASK}", text)


def passwords(text: str) -> Iterator[str]:
    """Yield the password of every URL in `text`, both encoded and decoded."""
    for pattern in (_USERINFO, _QUERY):
        for found in pattern.finditer(text):
            yield from {found["password"], unquote(found["password"])}


class Redactor:
    """Masks values of 8 characters and more, and passwords in URLs.

    Args:
        secrets: masked as a whole; those of 12 characters and more also in parts of 8 and more.
        suspects: masked only as a whole, because their parts may be ordinary words.
    """

    def __init__(self, secrets: Iterable[str] = (), suspects: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if len(secret) >= SHORTEST_SECRET}
        # The longest first, because a secret may be a prefix of another one.
        whole = sorted({*known, *(s for s in suspects if len(s) >= SHORTEST_SECRET)}, key=len, reverse=True)
        self._whole = re.compile("|".join(map(re.escape, whole))) if whole else None
        long = [secret for secret in known if len(secret) >= _SHORTEST_WITH_PARTS]
        self._parts = {s[at : at + _PART] for s in long for at in range(len(s) - _PART + 1)}
        # A part consists only of characters that occur in secrets, which rules out most of a text quickly.
        alphabet = "".join(map(re.escape, sorted(set("".join(long)))))
        self._runs = re.compile(f"[{alphabet}]{{{_PART},}}") if long else None

    def __call__(self, text: str) -> str:
        """Return `text` with secrets replaced by `***`."""
        if self._whole is not None:
            text = self._whole.sub(MASK, text)
        if self._runs is not None:
            text = self._runs.sub(self._without_parts, text)
        return redact_uri(text)

    def _without_parts(self, found: re.Match[str]) -> str:
        run = found[0]
        windows = [run[at : at + _PART] for at in range(len(run) - _PART + 1)]
        if self._parts.isdisjoint(windows):
            return run
        hidden = {
            at + offset for at, each in enumerate(windows) if each in self._parts for offset in range(_PART)
        }
        marked = "".join("\0" if at in hidden else char for at, char in enumerate(run))
        return re.sub("\0+", MASK, marked)
