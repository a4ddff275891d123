"""Recall and precision on generated sentences do not fall below what the documentation promises."""

from __future__ import annotations

import pytest

from flujo.domain.personal_data import ENTITIES, LOCALES, Rules
from flujo.governance.personal_data.scrubber import Scrubber
from personal_data.corpus import SENTENCES, sentences
from personal_data.marks import values
from personal_data.measure import measure, total

RECALL, PRECISION = 0.99, 0.98


@pytest.fixture(scope="module")
def texts() -> list[tuple[str, str]]:
    return list(sentences())


def test_the_corpus_has_every_kind_in_eight_languages_and_texts_without_any(
    texts: list[tuple[str, str]],
) -> None:
    found = {(kind, language) for language, text in texts for kind, _ in values(text)}
    assert len(texts) == SENTENCES >= 2_000
    assert found == {(kind, language) for kind in ENTITIES for language in LOCALES}
    assert sum(not values(text) for _, text in texts) == SENTENCES // 4
    assert texts[:50] == list(sentences(50))


def test_each_kind_and_language_reaches_the_promised_recall_and_precision(
    texts: list[tuple[str, str]],
) -> None:
    scrub = Scrubber(Rules())
    scores = measure(texts, lambda text, _: scrub.text(text))
    each = {kind: total(scores, kind=kind) for kind in ENTITIES} | {
        language: total(scores, language=language) for language in LOCALES
    }
    below = {
        name: score for name, score in each.items() if score.recall < RECALL or score.precision < PRECISION
    }
    assert below == {}
