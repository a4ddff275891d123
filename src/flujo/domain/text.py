"""Decodes the text of files and pipes, in one way for all: UTF-8, with or without a byte order mark."""

from __future__ import annotations

import codecs
import re

MARK = "\ufeff"

_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SAMPLE, _SHORTEST_WIDE = 1000, 8


class NotUtf8(ValueError):
    """The bytes are not UTF-8 text."""

    def __init__(self, data: bytes, at: int) -> None:
        super().__init__(f"byte 0x{data[at]:02X} at offset {at:,} is not UTF-8 text")
        self.at = at
        self.line = data[:at].count(b"\n") + 1
        self.hint = f"save it as UTF-8{_guess(data)}"


def decoded(data: bytes) -> str:
    """Return the text without its byte order mark.

    Raises:
        NotUtf8: with the offset of the first wrong byte, and a hint that names the likely encoding.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotUtf8(data, error.start) from None
    if "\0" in text[:_SAMPLE] and _is_wide(data):
        raise NotUtf8(data, data.index(0))  # ASCII characters of UTF-16 are valid UTF-8 too
    return text.removeprefix(MARK)


def _guess(data: bytes) -> str:
    """Return which encoding the bytes seem to have."""
    if _is_wide(data):
        return " (it looks like UTF-16)"
    return "" if _CONTROLS.search(data) else " (it looks like Latin-1 or Windows-1252)"


def _is_wide(data: bytes) -> bool:
    sample = data[:_SAMPLE]
    return data.startswith(_WIDE) or (len(sample) >= _SHORTEST_WIDE and sample.count(0) * 3 > len(sample))
