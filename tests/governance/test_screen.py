"""Characters that steer a terminal, turn a line around or hide are escaped, and nothing else is changed."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.governance.screen import visible, visible_json, visible_line

HOSTILE = {
    "colour": "\x1b[31m",
    "title": "\x1b]0;owned\x07",
    "link": "\x1b]8;;https://evil.example\x1b\\",
    "C1": "\x9b2J",
    "bell": "\x07",
    "backspace": "\x08",
    "delete": "\x7f",
    "return": "good\rbad",
    "override": "\u202e",
    "isolate": "\u2066",
    "mark": "\u200f",
    "line": "\u2028",
    "paragraph": "\u2029",
    "zero width": "\u200b",
    "joiner in a word": "ad\u200dmin",
    "order": "\ufeff",
    "tag": "\U000e0041",
    "selector in a word": "a\U000e0100b",
    "half": "\udc80",
    "nul": "\x00",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_steers_or_hides_is_escaped(text: str) -> None:
    for shown in (visible(text), visible_line(text)):
        assert shown.isprintable()
        assert "\\" in shown


def test_an_escape_names_the_character() -> None:
    assert visible("a\x1b[2J\x9b \u202e \U000e0041") == r"a\x1b[2J\x9b \u202e \U000e0041"


@pytest.mark.parametrize(
    "text", ["👩‍👩‍👧 family", "می‌خواهم", "क्‍ष", "葛󠄀城", "naïve Ärger", "ﷺ 漢字", "a\tb\nc", "❤️"]
)
def test_texts_of_every_language_stay_as_they_are(text: str) -> None:
    assert visible(text) == text


def test_lines_and_tabs_stay_in_a_text_and_are_escaped_in_a_line() -> None:
    assert visible("a\r\nb\tc") == "a\nb\tc"
    assert visible_line("a\r\nb\tc") == r"a\x0d\nb\tc"


@given(st.text(st.characters(codec=None)))
def test_a_line_holds_no_control_and_no_direction(text: str) -> None:
    shown = visible_line(text)
    assert not {unicodedata.category(char) for char in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert not {unicodedata.bidirectional(char) for char in shown} & {
        "RLO",
        "LRO",
        "RLE",
        "LRE",
        "PDF",
        "RLI",
    }
    assert visible_line(shown) == shown


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_with_escapes_has_the_same_value(value: object) -> None:
    text = visible_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text) == value
    assert text == visible_line(text)


def test_json_escapes_characters_beyond_the_first_plane_as_pairs() -> None:
    assert visible_json('"\U000e0041\u202e"') == '"\\udb40\\udc41\\u202e"'
