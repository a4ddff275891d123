"""All text is UTF-8, with or without a byte order mark; the error names the place and the likely encoding."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.domain.text import NotUtf8, decoded

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"))


@given(TEXT)
def test_a_byte_order_mark_changes_nothing(text: str) -> None:
    assert decoded(text.encode()) == decoded(codecs.BOM_UTF8 + text.encode()) == text


@pytest.mark.parametrize(
    ("data", "at", "line", "guess"),
    [
        ("a\nb".encode("utf-16"), 0, 1, "UTF-16"),
        ("name: hello".encode("utf-16-le"), 1, 1, "UTF-16"),
        ("name: hello".encode("utf-16-be"), 0, 1, "UTF-16"),
        ("a\ncafé".encode("latin-1"), 5, 2, "Latin-1"),
        (b"\x89PNG\r\n\x1a\n\0\0", 0, 1, "save it as UTF-8"),
    ],
)
def test_another_encoding_is_named(data: bytes, at: int, line: int, guess: str) -> None:
    with pytest.raises(NotUtf8, match=f"at offset {at} is not UTF-8 text") as caught:
        decoded(data)
    assert (caught.value.at, caught.value.line) == (at, line)
    assert guess in caught.value.hint


def test_a_single_nul_is_left_to_the_reader_of_the_text() -> None:
    assert decoded(b"a text with one \0 in it") == "a text with one \0 in it"
