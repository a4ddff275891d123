"""How well personal data is found: recall and precision by kind and language."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from personal_data.marks import plain, values

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_PLACEHOLDER = re.compile(r"<([A-Z_]+)>")


@dataclass
class Score:
    """What was found of one kind."""

    found: int = 0
    missed: int = 0
    wrong: int = 0
    """Masks where nothing of the kind is."""

    @property
    def recall(self) -> float:
        """The part of the values that was found; 1 without any."""
        return self.found / (self.found + self.missed) if self.found + self.missed else 1.0

    @property
    def precision(self) -> float:
        """The part of the masks that is right; 1 without any."""
        return self.found / (self.found + self.wrong) if self.found + self.wrong else 1.0

    def __add__(self, other: Score) -> Score:
        """Return the sum of two scores."""
        return Score(self.found + other.found, self.missed + other.missed, self.wrong + other.wrong)


def measure(
    sentences: Iterable[tuple[str, str]], mask: Callable[[str, str], str]
) -> Mapping[tuple[str, str], Score]:
    """Return the score of each kind and language.

    A value is found if it is gone from the text, and a mask of its kind stands there.

    Args:
        sentences: languages and marked texts.
        mask: returns a text of a language with masks.
    """
    scores: defaultdict[tuple[str, str], Score] = defaultdict(Score)
    for language, marked in sentences:
        text = mask(plain(marked), language)
        wanted = values(marked)
        masks = Counter(found[1].lower() for found in _PLACEHOLDER.finditer(text))
        for kind, value in wanted:
            if masks[kind] and value not in text:
                masks[kind] -= 1
                scores[kind, language].found += 1
            else:
                scores[kind, language].missed += 1
        for kind, rest in masks.items():
            scores[kind, language].wrong += rest
    return scores


def total(scores: Mapping[tuple[str, str], Score], *, kind: str = "", language: str = "") -> Score:
    """Return the sum of scores, of one kind or language if it is given."""
    chosen = (
        score
        for (each, spoken), score in scores.items()
        if (not kind or each == kind) and (not language or spoken == language)
    )
    return sum(chosen, Score())
