"""Personal data is masked in texts and in JSON data; what only looks like it stays."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flujo.domain.personal_data import ENTITIES, LOCALES, Rules
from flujo.governance.personal_data import first_look
from flujo.governance.personal_data.scrubber import Scrubber
from personal_data.corpus import sentences
from personal_data.hard_cases import TEXTS
from personal_data.marks import masked, plain

EVERYTHING = Scrubber(Rules())
FRAGMENTS = [plain(text) for _, text in TEXTS]


@pytest.mark.parametrize("language", ["en", "de", "fr", "es", "it", "pt", "nl", "pl", "none"])
def test_hard_cases_are_masked_exactly(language: str) -> None:
    texts = [text for each, text in TEXTS if each == language]
    assert {plain(text): EVERYTHING.text(plain(text)) for text in texts} == {
        plain(text): masked(text) for text in texts
    }


def test_there_are_at_least_two_hundred_hard_cases_in_eight_languages() -> None:
    assert len({text for _, text in TEXTS}) >= 200
    assert {language for language, _ in TEXTS} == {*LOCALES, "none"}


@given(
    st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=12), max_size=5),
    st.sampled_from(["", " ", "-", "/", "\n"]),
)
def test_a_masked_text_stays_as_it_is(parts: list[str], between: str) -> None:
    once = EVERYTHING.text(between.join(parts))
    assert EVERYTHING.text(once) == once


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(FRAGMENTS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FRAGMENTS), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(JSON)
def test_data_keeps_its_structure_and_the_order_of_its_keys(data: object) -> None:
    once = EVERYTHING.data(data)
    assert _shape(once) == _shape(data)
    assert EVERYTHING.data(once) == once
    json.dumps(once)


def _shape(value: object) -> object:
    match value:
        case dict():
            return [_shape(each) for each in value.values()]
        case list():
            return ["list", *map(_shape, value)]
        case _:
            return None


def test_the_name_of_a_field_counts_like_a_word_before_its_value() -> None:
    data = {
        "phone": "2025550143",
        "homePhone": 2025550143,
        "order_id": "0301234567",
        "ssn": "078051120",
        "n": 2025550143,
    }
    assert EVERYTHING.data(data) == {
        "phone": "<PHONE>",
        "homePhone": "<PHONE>",
        "order_id": "0301234567",
        "ssn": "<NATIONAL_ID>",
        "n": 2025550143,
    }


def test_keys_that_become_equal_stay_apart() -> None:
    data = {"a@example.org": 1, "b@example.org": 2, "<EMAIL>": 3}
    assert EVERYTHING.data(data) == {"<EMAIL>#2": 1, "<EMAIL>#3": 2, "<EMAIL>": 3}


def test_numbers_that_are_cards_become_text_and_other_numbers_stay() -> None:
    assert EVERYTHING.data([4111111111111111, 4111111111111112, True, 7.5]) == [
        "<CARD>",
        4111111111111112,
        True,
        7.5,
    ]


def test_only_the_chosen_kinds_are_masked() -> None:
    text = "jane@example.org, +44 20 7946 0958, 8.8.8.8"
    assert Scrubber(Rules(entities=("ip",))).text(text) == "jane@example.org, +44 20 7946 0958, <IP>"


def test_only_the_chosen_languages_give_phone_numbers_without_a_country_code() -> None:
    text = "0301234567 and +49 30 1234567"
    assert Scrubber(Rules(locales=("es",))).text(text) == "0301234567 and <PHONE>"
    assert Scrubber(Rules(locales=("de",))).text(text) == "<PHONE> and <PHONE>"


def test_allowed_values_stay_whatever_their_case() -> None:
    scrub = Scrubber(Rules(allow=("*@example.org", "8.8.?.8")))
    assert scrub.text("Help@Example.org jane@example.com 8.8.4.8") == "Help@Example.org <EMAIL> 8.8.4.8"


def test_values_of_kept_texts_stay() -> None:
    assert EVERYTHING.text("to jane@example.org, bob@example.org", kept=["I am jane@example.org"]) == (
        "to jane@example.org, <EMAIL>"
    )


def test_every_kind_has_a_hard_case() -> None:
    found = {entity for entity in ENTITIES if any(f"<<{entity.upper()} " in text for _, text in TEXTS)}
    assert found == set(ENTITIES)


def test_a_long_text_without_spaces_is_read_to_its_end() -> None:
    for unit in ("a.", "1-", "x@", "4111", "aa:", "DE89", "(at)", "sk-"):
        EVERYTHING.text(unit * 20_000)
    assert EVERYTHING.text("a" * 100_000 + " jane@example.org").endswith(" <EMAIL>")


@pytest.mark.parametrize("missed", [range(9), []], ids=["all kinds", "a match that has failed"])
def test_the_first_look_leaves_out_nothing(monkeypatch: pytest.MonkeyPatch, missed: object) -> None:
    texts = [plain(text) for _, text in (*TEXTS, *sentences(400))]
    usual = [EVERYTHING.text(text) for text in texts]

    class Together:
        def Match(self, _: bytes) -> object:
            return missed

    monkeypatch.setattr(first_look, "_TOGETHER", Together())
    assert [EVERYTHING.text(text) for text in texts] == usual


def test_a_text_that_is_not_unicode_is_masked_too() -> None:
    assert EVERYTHING.data({"a\ud800@b.de": 1, "\ud800": "mail ana@b.de"}) == {
        "a?@b.de": 1,
        "?": "mail <EMAIL>",
    }
    assert EVERYTHING.text("half \ud800 of jane@example.org") == "half ? of <EMAIL>"
