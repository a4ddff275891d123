"""Masks secrets in a text: known values, their parts and encodings, and passwords in URLs."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, unquote

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MASK = "***"

SHORTEST_SECRET = 8  # shorter values are too often ordinary words
_PART = 8
_SHORTEST_WITH_PARTS = 12

# The password ends at the last `@`, because users type passwords with unescaped characters. A number between
# the `:` and a `/` is a port. The search looks back for the scheme and ends at the next one, as otherwise
# it would be quadratic in a long word.
_USERINFO = re.compile(
    r"(?<=[A-Za-z0-9+.\-]://)(?P<user>[^:/?#\s'\"]*):(?!\d*[/?#])(?P<password>(?:(?!://)[^\s'\"])*)@"
)
_ONE_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://(?P<userinfo>[^/?#]*)@.*", re.DOTALL)
_ONE_LOOSE_URL = re.compile(
    r"[A-Za-z][A-Za-z0-9+.\-]*://(?P<userinfo>[^:/?#@]*:(?!\d*[/?#]).*)@[^@]*", re.DOTALL
)
_PLACEHOLDER = re.compile(r"\$\{\w+\}")
_QUERY = re.compile(
    r"(?P<name>[?&](?:password|passwd|pwd|token|api_?key|secret)=)(?P<password>[^&#\s'\"]*)", re.IGNORECASE
)


def redact_uri(text: str) -> str:
    """Return `text` with the password of every URL in it replaced by `***`."""
    text = _USERINFO.sub(_without_password, text)
    return _QUERY.sub(rf"\g<name>{MASK}", text)


def _without_password(found: re.Match[str]) -> str:
    shown = found["password"] if _PLACEHOLDER.fullmatch(found["password"]) else MASK
    return f"{found['user']}:{shown}@"


def passwords(url: str) -> Iterator[str]:
    """Yield what may be the password of a URL, both encoded and decoded."""
    for pattern in (_USERINFO, _QUERY):
        for found in pattern.finditer(url):
            yield from {found["password"], unquote(found["password"])}
    for whole in (_ONE_URL, _ONE_LOOSE_URL):
        if (one := whole.fullmatch(url.strip())) and (password := one["userinfo"].partition(":")[2]):
            yield from {password, unquote(password)}


def encoded_userinfo(url: str) -> str:
    """Return a URL whose user and password are percent-encoded; encoded characters are unchanged.

    The user part ends at the last `@` before the path. If there is none, it ends at the last `@` of the URL:
    the password has a `/`, `?` or `#`.
    """
    found = _ONE_URL.fullmatch(url) or _ONE_LOOSE_URL.fullmatch(url)
    if found is None:
        return url
    start, end = found.span("userinfo")
    parts = [re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", part) for part in found["userinfo"].split(":", 1)]
    return f"{url[:start]}{':'.join(quote(part, '%') for part in parts)}{url[end:]}"


def user_part(template: str) -> range:
    """Return where the user and password stand in a URL in which variables are not filled in."""
    found = _ONE_URL.fullmatch(template)
    return range(*found.span("userinfo")) if found else range(0)


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret as it is, and as clients and error messages write it: in URLs, JSON, Base64, `repr`."""
    data = secret.encode("utf-8", "replace")
    for quoted in (quote(data, ""), quote(data), quote_plus(data)):
        yield from (quoted, re.sub("%..", lambda found: found[0].lower(), quoted))
    yield from (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
    yield from (repr(secret)[1:-1], ascii(secret)[1:-1], repr(data)[2:-1], data.hex())
    # In `Basic` credentials and data URLs, the bytes before a secret decide which of three texts it becomes.
    for before in range(3):
        bits = 8 * (before + len(data))
        text = b64encode(bytes(before) + data).decode()[-(-8 * before // 6) : bits // 6]
        yield from (text, text.translate(_URL_SAFE))


_URL_SAFE = str.maketrans("+/", "-_")


class Redactor:
    """Masks values of 8 characters and more, and passwords in URLs.

    Args:
        secrets: masked as a whole; those of 12 characters and more also in parts of 8 and more.
        suspects: masked only as a whole, because their parts may be ordinary words.
    """

    def __init__(self, secrets: Iterable[str] = (), suspects: Iterable[str] = ()) -> None:
        known = {secret for secret in secrets if len(secret) >= SHORTEST_SECRET}
        # The longest first, because a secret may be a prefix of another one.
        each = {*known, *(suspect for suspect in suspects if len(suspect) >= SHORTEST_SECRET)}
        whole = sorted({form for one in each for form in _forms(one)}, key=len, reverse=True)
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
