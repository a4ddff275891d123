"""What may be shown of a text that could hold secrets: URLs without passwords, known secrets as `***`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MASK = "***"

_SHORTEST = 4
"""A shorter "secret" would mask half of every text that is printed."""

# userinfo runs to the last `@` before the path, because passwords with an unescaped `@` are typed too
_USERINFO = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*://)(?P<user>[^:/?#\s'\"]*):(?P<password>[^\s/?#'\"]*)@"
)
_QUERY = re.compile(r"(?P<name>[?&](?:password|passwd|pwd|token|api_?key|secret)=)[^&#\s'\"]*", re.IGNORECASE)


def redact_uri(text: str) -> str:
    """Return `text` with the password of every URL in it replaced by `***`; the rest stays as it is."""
    text = _USERINFO.sub(rf"\g<scheme>\g<user>:{MASK}@", text)
    return _QUERY.sub(rf"\g<name>{MASK}", text)


class Redactor:
    """Replaces known secret values, and passwords in URLs, wherever they turn up in a text."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # the longest first: a secret may be the beginning of another one
        values = sorted({s for s in secrets if len(s) >= _SHORTEST}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, values))) if values else None

    def __call__(self, text: str) -> str:
        """Return `text` without what must not be shown."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return redact_uri(text)
