"""Escapes characters that change what a terminal, a page or a log shows without being visible themselves."""

from __future__ import annotations

import re

_HIDDEN = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\xad"  # controls: cursor, colour, title, bell, carriage return
    r"\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"  # direction, invisible spaces, line ends
    r"\u3164\ufeff\uffa0\ufff9-\ufffb\ud800-\udfff"  # fillers, halves of surrogate pairs
    r"\U0001d173-\U0001d17a\U000e0000-\U000e00ff"  # musical controls, tags
)
_ASCII = r"\x00-\x7f"
_SELECTORS = r"\U000e0100-\U000e01ef"
_CJK = r"\u3400-\u9fff\U00020000-\U0003ffff"
_INVISIBLE = re.compile(
    f"[{_HIDDEN}]"
    # Joiners belong to words of many languages and to emoji, and variants to ideographs; elsewhere they hide.
    rf"|(?<![^{_ASCII}])[\u200c\u200d]|[\u200c\u200d](?![^{_ASCII}])|(?<![{_CJK}])[{_SELECTORS}]"
)
_LINE = {"\n": "\\n", "\t": "\\t"}


def visible(text: str) -> str:
    r"""Return `text` with invisible characters escaped, such as `\x1b` or `\u202e`; lines and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return _INVISIBLE.sub(_escaped, text.replace("\r\n", "\n"))


def visible_line(text: str) -> str:
    """Return `text` as one line: as `visible`, with line ends and tabs escaped too."""
    if text.isascii() and text.isprintable():
        return text
    return re.sub(r"[\n\t]", lambda found: _LINE[found[0]], _INVISIBLE.sub(_escaped, text))


def visible_json(text: str) -> str:
    r"""Return JSON text with the invisible characters of its strings escaped as `\u....`; its value stays."""
    return text if text.isascii() else _INVISIBLE.sub(_json_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escaped(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
