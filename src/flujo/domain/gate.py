"""Decides from paired scores whether a version is worse than another one, or says that it cannot tell.

The decision is a test by betting: I. Waudby-Smith and A. Ramdas, "Estimating means of bounded random
variables by betting", Journal of the Royal Statistical Society B 86(1), 2024. A gambler who bets that the
mean difference is above (or below) a boundary, and is wrong, multiplies the capital by 1/e with a probability
of at most e (Ville's inequality). That holds for all numbers of cases at once, so the verdict may be computed
after each batch, and the first one that is decided counts. The reasons are in
`docs/adr/0094-a-gate-that-can-say-cannot-tell.md`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MARGIN = 0.05
"""The loss of mean score that counts as equal, when a file of cases has no `margin`."""

WORSE_ERROR = 0.01
"""The highest probability of the verdict `worse` for a version that loses at most the margin."""

BETTER_ERROR = 0.05
"""The highest probability of the verdict `better or equal` for a version that loses more than the margin."""

BATCH = 10
"""The verdict is computed after each batch of this many pairs."""

_STAKES = (0.1, 0.2, 0.4, 0.7, 0.98)
"""The parts of the capital that are bet. The capital is their mean, so no order of the pairs matters."""

_MOST_CASES = 100_000
"""An estimate above this is not reported."""


class Verdict(StrEnum):
    """What the gate says of a version beside another one."""

    BETTER_OR_EQUAL = "better or equal"
    """Its mean score is not lower by more than the margin."""
    WORSE = "worse"
    """Its mean score is lower by more than the margin."""
    CANNOT_TELL = "cannot tell"
    """Neither is certain enough after these pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The verdict after some pairs, and what it is based on."""

    verdict: Verdict
    pairs: int
    """How many pairs were looked at."""
    mean: float
    """The mean difference: positive where the new version scores higher; 0 without pairs."""
    low: float
    """The lower end of the interval that holds the true mean difference with 95 % confidence."""
    high: float
    more: int | None = None
    """About how many further pairs decide, if they look like these; None when decided or not known."""


def judge(differences: Sequence[float], margin: float = MARGIN, *, evaluators: int = 1) -> Judgement:
    """Return the verdict after these pairs.

    Args:
        differences: of each pair, the score of the new version less that of the old one; from -1 to 1.
        margin: the loss of mean score that counts as equal; from 0, below 1.
        evaluators: how many evaluators are judged for one verdict. Their chances of a wrong `worse` add up,
            so each gets its part of `WORSE_ERROR`.
    """
    verdict = _verdict(differences, margin, evaluators)
    count = len(differences)
    return Judgement(
        verdict=verdict,
        pairs=count,
        mean=math.fsum(differences) / count if count else 0.0,
        low=_lowest(differences),
        high=-_lowest([-each for each in differences]),
        more=_more(differences, margin, evaluators) if verdict is Verdict.CANNOT_TELL else None,
    )


def decide(differences: Sequence[float], margin: float = MARGIN, *, evaluators: int = 1) -> Judgement:
    """Return the first judgement that is decided after a whole batch, or the one after all pairs."""
    for end in range(BATCH, len(differences), BATCH):
        if _verdict(differences[:end], margin, evaluators) is not Verdict.CANNOT_TELL:
            return judge(differences[:end], margin, evaluators=evaluators)
    return judge(differences, margin, evaluators=evaluators)


def interval(scores: Sequence[float]) -> tuple[float, float]:
    """Return the interval that holds the true mean of scores from 0 to 1 with 95 % confidence."""
    spread = [2 * each - 1 for each in scores]
    return (1 + _lowest(spread)) / 2, (1 - _lowest([-each for each in spread])) / 2


def _verdict(differences: Sequence[float], margin: float, evaluators: int) -> Verdict:
    if _capital([-each for each in differences], margin) >= _to_be_worse(evaluators):
        return Verdict.WORSE
    if _capital(differences, -margin) >= _TO_BE_BETTER:
        return Verdict.BETTER_OR_EQUAL
    return Verdict.CANNOT_TELL


def _to_be_worse(evaluators: int) -> float:
    """Return the logarithm of the capital that refutes a loss of at most the margin."""
    return math.log(evaluators / WORSE_ERROR)


_TO_BE_BETTER = math.log(1 / BETTER_ERROR)
"""The logarithm of the capital that refutes a loss of more than the margin."""


def _growths(values: Sequence[float], boundary: float) -> list[float]:
    """Return, by stake, the logarithm of the capital of a bet that the mean is above the boundary."""
    # A stake below 1 of the most that can be lost: the capital stays positive, whatever comes.
    returns = [(each - boundary) / (1 + boundary) for each in values]
    return [math.fsum(math.log1p(stake * each) for each in returns) for stake in _STAKES]


def _capital(values: Sequence[float], boundary: float) -> float:
    """Return the logarithm of the capital after these values; it began with 1."""
    growths = _growths(values, boundary)
    most = max(growths)
    return most + math.log(math.fsum(math.exp(each - most) for each in growths) / len(_STAKES))


def _lowest(values: Sequence[float]) -> float:
    """Return the lowest mean that values from -1 to 1 do not refute with 97.5 % confidence."""
    low, high = -1.0, 1.0
    enough = math.log(2 / (1 - _CONFIDENCE))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _capital(values, middle) >= enough:
            low = middle
        else:
            high = middle
    return low


_CONFIDENCE = 0.95
_HALVINGS = 20
"""Enough for six digits."""


def _more(differences: Sequence[float], margin: float, evaluators: int) -> int | None:
    """Return about how many further pairs decide, for the verdict that is nearer."""
    count = len(differences)
    better = (_growths(differences, -margin), _TO_BE_BETTER)
    worse = (_growths([-each for each in differences], margin), _to_be_worse(evaluators))
    needed = [
        (enough + math.log(len(_STAKES))) * count / max(growths) - count
        for growths, enough in (better, worse)
        if max(growths) > 0
    ]
    more = min(needed, default=math.inf)
    return max(1, math.ceil(more)) if more <= _MOST_CASES else None
