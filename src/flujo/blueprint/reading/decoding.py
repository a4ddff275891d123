"""Decodes a blueprint: UTF-8, within a size limit, without hidden characters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from flujo.blueprint.reading.source_map import Document
from flujo.blueprint.reading.syntax_rules import BIDI, ENCODING, SIZE
from flujo.domain.text import NotUtf8, decoded
from flujo.domain.wording import size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.diagnostics import Diagnostic

MAX_BYTES = 256 * 1024
MAX_FORBIDDEN = 25
"""How many forbidden characters of one file are reported."""

_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\u202a-\u202e\u2066-\u2069]"
)


def decode(data: bytes, file: str, *, limit: int = MAX_BYTES) -> Document:
    """Return a document with its text, or with findings about bytes that cannot be decoded."""
    if len(data) > limit:
        return _too_large(data, file, limit)
    try:
        document = Document(file, decoded(data))
    except NotUtf8 as error:
        return _not_utf8(data, file, error)
    return _with(document, *_forbidden(document))


def _with(document: Document, *diagnostics: Diagnostic) -> Document:
    return Document(document.file, document.text, diagnostics=diagnostics)


def _too_large(data: bytes, file: str, limit: int) -> Document:
    document = Document(file, "")
    message = f"the file has {len(data):,} bytes; the limit is {size(limit)} ({limit:,})"
    return _with(
        document, SIZE.at(document.between(0, 0), message, hint="pass large data as the run's input")
    )


def _not_utf8(data: bytes, file: str, error: NotUtf8) -> Document:
    document = Document(file, data.decode("utf-8", "replace"))
    at = len(data[: error.at].decode("utf-8"))
    return _with(document, ENCODING.at(document.between(at, at + 1), str(error), hint=error.hint))


def _forbidden(document: Document) -> Iterator[Diagnostic]:
    """Yield a finding for each of the first forbidden characters."""
    for count, found in enumerate(_FORBIDDEN.finditer(document.text)):
        if count == MAX_FORBIDDEN:
            return
        char, span = found[0], document.between(found.start(), found.end())
        if _BIDI.match(char):
            message = f"U+{ord(char):04X} changes the direction in which text is displayed"
            yield BIDI.at(span, message, hint="remove it, or write it as an escape in quotes")
        else:
            name = "a NUL character" if char == "\0" else f"the control character U+{ord(char):04X}"
            yield ENCODING.at(span, f"{name} is not allowed in a blueprint or a prompt", hint="remove it")
