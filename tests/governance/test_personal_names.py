"""Names of people, places and organisations are masked: by a stand-in for the model, and by the model itself."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flujo.domain.personal_data import ENTITIES, NAMES, Rules
from flujo.exceptions import NamesUnavailable
from flujo.governance.personal_data import models
from flujo.governance.personal_data.name_rules import Name, corrected
from flujo.governance.personal_data.names import LONGEST, SpacyNames
from flujo.governance.personal_data.scrubber import Scrubber
from personal_data.marks import plain, values
from personal_data.measure import Score, measure, total
from personal_data.names import HARD, LATER, SENTENCES, sentences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.personal_data import Entity, NameLocale

EVERYTHING = Rules(entities=(*ENTITIES, *NAMES))
KNOWN: dict[str, Entity] = {"Jane Doe": "person", "Leeds": "place", "Acme Ltd": "organisation"}


class StandIn:
    """The port `Names` without a model: it knows three names."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def find(self, text: str, locale: NameLocale) -> Sequence[Name]:
        assert locale == "en"
        self.read.append(text)
        return sorted(
            Name(at, at + len(name), entity)
            for name, entity in KNOWN.items()
            for at in range(len(text))
            if text.startswith(name, at)
        )


def scrubber(rules: Rules = EVERYTHING) -> Scrubber:
    return Scrubber(rules, StandIn())


def test_names_are_masked_beside_the_other_kinds() -> None:
    text = "Jane Doe of Acme Ltd in Leeds: jane@example.org, +44 20 7946 0958"
    assert scrubber().text(text) == "<PERSON> of <ORGANISATION> in <PLACE>: <EMAIL>, <PHONE>"


def test_without_names_among_the_kinds_nothing_reads_the_text() -> None:
    finder = StandIn()
    assert Scrubber(Rules(), finder).text("Jane Doe") == "Jane Doe"
    assert Scrubber(Rules(entities=NAMES, locales=("de",)), finder).text("Jane Doe") == "Jane Doe"
    assert finder.read == []


def test_only_the_chosen_kinds_of_names_are_masked() -> None:
    text = "Jane Doe in Leeds"
    assert scrubber(Rules(entities=("place",))).text(text) == "Jane Doe in <PLACE>"


def test_allowed_and_kept_names_stay() -> None:
    allowing = scrubber(Rules(entities=NAMES, allow=("acme *",)))
    assert allowing.text("Jane Doe of Acme Ltd") == "<PERSON> of Acme Ltd"
    assert scrubber().text("Jane Doe in Leeds", kept=["I am Jane Doe"]) == "Jane Doe in <PLACE>"


def test_a_placeholder_is_not_read_as_a_name_and_keeps_its_place() -> None:
    finder = StandIn()
    assert Scrubber(EVERYTHING, finder).text("jane@example.org is Jane Doe") == "<EMAIL> is <PERSON>"
    assert not any("EMAIL" in text or "PERSON" in text for text in finder.read)


def test_an_emoji_is_not_read_and_stays() -> None:
    finder = StandIn()
    assert Scrubber(EVERYTHING, finder).text("\U0001f600 Jane Doe \u2764\ufe0f Leeds") == (
        "\U0001f600 <PERSON> \u2764\ufe0f <PLACE>"
    )
    assert finder.read[0] == "  Jane Doe    Leeds"


def test_a_long_text_is_read_in_pieces_that_end_with_a_word() -> None:
    finder = StandIn()
    text = "Jane Doe went to Leeds. " * 1_000
    assert Scrubber(EVERYTHING, finder).text(text) == "<PERSON> went to <PLACE>. " * 1_000
    assert max(map(len, finder.read)) <= LONGEST
    unbroken = "A" * (2 * LONGEST + 7)
    assert scrubber().text(unbroken) == unbroken


def test_texts_without_a_capital_are_not_read() -> None:
    finder = StandIn()
    scrub = Scrubber(EVERYTHING, finder)
    for text in ("completed", "2026-11-29T10:00:00Z", "run 0199ab12-0001"):
        assert scrub.text(text) == text
    assert finder.read == []


def test_data_keeps_its_structure_and_field_names_of_one_word_stay() -> None:
    data = {"Leeds": ["Jane Doe", 7, None], "Jane Doe": {"Office": "Leeds"}}
    once = scrubber().data(data)
    assert once == {"Leeds": ["<PERSON>", 7, None], "<PERSON>": {"Office": "<PLACE>"}}
    assert scrubber().data(once) == once
    json.dumps(once)


@given(
    st.lists(st.sampled_from([*KNOWN, "jane@example.org", " ", "\n", "call 2025550143", "<PERSON>", "Dr. "]))
)
def test_a_masked_text_stays_as_it_is(parts: list[str]) -> None:
    once = scrubber().text("".join(parts))
    assert scrubber().text(once) == once


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. Okafor agreed.", "Dr. <PERSON> agreed."),
        ("Mrs van der Berg", "Mrs <PERSON>"),
        ("Dear Priya N. Rao,", "Dear <PERSON>,"),
        ("Dear Customer,", "Dear Customer,"),
        ("Kind regards,\nTom", "Kind regards,\n<PERSON>"),
        ("My name is Mary-Anne O'Neill and", "My name is <PERSON> and"),
        ('{"customer": "Ana Lima"}', '{"customer": "<PERSON>"}'),
        ("a bill of Bluebird Logistics GmbH.", "a bill of <ORGANISATION>."),
        ("Is Acme Ltd late?", "Is <ORGANISATION> late?"),
    ],
)
def test_the_words_around_a_name_show_it_without_a_model(text: str, expected: str) -> None:
    assert _replaced(text, corrected(text, [])) == expected


@pytest.mark.parametrize(
    ("text", "found", "expected"),
    [
        ("Ask Jane Doe's boss", "Ask Jane Doe's", "Ask <PERSON>'s boss"),
        ("Beatriz Johnson called", "Johnson", "<PERSON> called"),
        ("ask Hyun-woo Choi", "Choi", "ask <PERSON>"),
        ("ask Laura B. Chen", "Laura", "ask <PERSON>"),
        ("Jane (Acme Ltd)", "Jane (Acme Ltd", "<PERSON> (<ORGANISATION>)"),
        ("Leeds called", "Leeds", "<PLACE> called"),
        ("the Galaxy S24", "Galaxy S24", "the Galaxy S24"),
        ("open Main.java", "Main", "open Main.java"),
        ("GET /Users/Profile", "Users/Profile", "GET /Users/Profile"),
        ("Getting Started", "Getting Started", "Getting Started"),
        ("Kubernetes is down", "Kubernetes", "Kubernetes is down"),
        ("100 EUR", "EUR", "100 EUR"),
        ("on Monday", "Monday", "on Monday"),
    ],
)
def test_what_a_model_finds_is_corrected(text: str, found: str, expected: str) -> None:
    at = text.index(found)
    assert _replaced(text, corrected(text, [Name(at, at + len(found), "person")])) == expected


def _replaced(text: str, names: Sequence[Name]) -> str:
    for name in reversed(names):
        text = f"{text[: name.start]}<{name.entity.upper()}>{text[name.end :]}"
    return text


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "find_spec", lambda _: None)
    with pytest.raises(
        NamesUnavailable, match=r"flujo\.toml:3 asks to mask names, and the extra `pii`"
    ) as caught:
        models.require_names("flujo.toml:3")
    assert "pip install 'flujo[pii]'" in (caught.value.hint or "")


def test_the_corpus_has_every_kind_and_texts_without_any() -> None:
    texts = list(sentences())
    assert len(texts) == SENTENCES
    assert {kind for _, text in texts for kind, _ in values(text)} == set(NAMES)
    assert sum(not values(text) for _, text in texts) == SENTENCES // 3
    assert texts[:50] == list(sentences(50))
    assert len({text for _, text in HARD}) >= 60


has_model = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("spacy", *models.PACKAGES.values())),
    reason="the extra `pii` is not installed",
)


@has_model
def test_the_model_reaches_the_promised_recall_and_precision() -> None:
    scrub = Scrubber(EVERYTHING)
    promised = {(0.93, 0.90): list(sentences(300)), (0.88, 0.75): list(HARD), (0.80, 0.65): list(LATER)}
    for least, texts in promised.items():
        scores = measure(texts, lambda text, _: scrub.text(text))
        every = sum((total(scores, kind=kind) for kind in NAMES), Score())
        assert every.recall >= least[0]
        assert every.precision >= least[1]


@has_model
@given(
    st.lists(st.sampled_from([plain(text) for _, text in (*HARD, *LATER)]), max_size=3),
    st.sampled_from(["\n", " "]),
)
@settings(max_examples=40)
def test_what_the_model_has_masked_stays_as_it_is(parts: list[str], between: str) -> None:
    scrub = Scrubber(EVERYTHING)
    once = scrub.text(between.join(parts))
    assert scrub.text(once) == once


@has_model
def test_a_text_that_was_read_lately_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    finder = SpacyNames()
    first = finder.find("Jane Doe lives in Leeds.", "en")
    monkeypatch.delitem(models.PACKAGES, "en")
    assert finder.find("Jane Doe lives in Leeds.", "en") == first
    assert [name.entity for name in first] == ["person", "place"]
