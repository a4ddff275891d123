"""Mail addresses, also spaced and spelt out."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from flujo.governance.personal_data.patterns import compiled, is_word, replaced

if TYPE_CHECKING:
    from flujo.governance.personal_data.masks import Mask
    from flujo.governance.personal_data.patterns import Found

_LOCAL = r"[\pL\pN][\pL\pN._%+'~-]*"
_LABEL = r"[\pL\pN][\pL\pN-]*"
_TOP = r"(?:xn--[A-Za-z0-9-]{2,59}|\pL{2,24})"
_KNOWN_TOP = (
    "com|org|net|edu|gov|info|biz|io|co|dev|app|me|eu|de|at|ch|fr|be|es|it|pt|br|nl|pl|uk|ie|us|ca|mx|ar"
)
_AT = r"(?:at|ät|aet|arroba|arobase|chiocciola|małpa|malpa|apenstaartje|klammeraffe)"
_DOT = r"(?:dot|punkt|punto|point|ponto|punt|kropka)"
_OPEN, _CLOSE = r"[\[({<]\s?", r"\s?[\])}>]"
_SPELT_DOT = rf"(?:\s?{_OPEN}(?:{_DOT}|\.){_CLOSE}\s?|\s{_DOT}\s)"
_ANY_DOT = rf"(?:\.|{_SPELT_DOT})"
_SPELT_LOCAL = rf"[\pL\pN][\pL\pN_%+'-]*(?:{_ANY_DOT}[\pL\pN][\pL\pN_%+'-]*){{0,4}}"

_PLAIN = compiled(rf"{_LOCAL}@(?:{_LABEL}\.)+{_TOP}")
_QUOTED = compiled(rf'"[^"\s@]{{1,64}}"@(?:{_LABEL}\.)+{_TOP}')
_SPACED = compiled(
    rf"(?i)[\pL\pN][\pL\pN_%+'-]*(?:\s?\.\s?[\pL\pN][\pL\pN_%+'-]*){{0,4}}\s?@\s?"
    rf"{_LABEL}(?:\s?\.\s?{_LABEL}){{0,4}}\s?\.\s?(?:{_KNOWN_TOP})\b"
)
_BRACKETED = compiled(
    rf"(?i){_SPELT_LOCAL}\s?{_OPEN}(?:{_AT}|@){_CLOSE}\s?{_LABEL}(?:{_ANY_DOT}{_LABEL}){{0,4}}{_ANY_DOT}{_TOP}"
)
_SPELT = compiled(
    rf"(?i){_SPELT_LOCAL}\s(?:{_AT})\s{_LABEL}(?:\s{_DOT}\s{_LABEL}){{0,3}}\s{_DOT}\s(?:{_KNOWN_TOP})\b"
)
_SERVERS = ("git", "hg", "svn")
"""Users of addresses such as `git@github.com:owner/name.git`, which belong to servers."""


def masked(text: str, mask: Mask) -> str:
    """Return a text with mail addresses masked."""
    for pattern in (_QUOTED, _PLAIN) if '"@' in text else (_PLAIN,):
        text = replaced(pattern, text, partial(_masked, text=text, mask=mask))
    if "@ " in text or " @" in text or " ." in text:
        text = replaced(_SPACED, text, partial(_masked, text=text, mask=mask))
    return text


def masked_spelt(text: str, mask: Mask) -> str:
    """Return a text with the mail addresses masked that are spelt out, or have brackets around the sign."""
    for pattern in (_BRACKETED, _SPELT):
        text = replaced(pattern, text, lambda found: mask("email", found.text))
    return text


def _masked(found: Found, *, text: str, mask: Mask) -> str:
    after = text[found.end : found.end + 1]
    local, _, domain = found.text.partition("@")
    if after in ("(", "@") or (after and is_word(after)):
        return found.text  # code: `weights@layer.sum()`
    if after == ":" and local in _SERVERS:
        return found.text
    first = domain.partition(".")[0]
    if first[:1].isdigit() and first.endswith("x") and first[:-1].isdigit():
        return found.text  # a picture: `icon@2x.png`
    return mask("email", found.text)
