"""Means of scores with the intervals that hold the true ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.domain.gate import interval

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from flujo.domain.evaluations import Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatorReport:
    """The scores that one evaluator has given to all cases."""

    name: str
    count: int
    """How many cases have a score."""
    mean: float
    low: float
    """The lower end of the interval that holds the true mean with 95 % confidence."""
    high: float
    least: float
    missed: tuple[str, ...] = ()
    """The thresholds that are missed, one sentence each."""


def score_reports(rows: Sequence[Evaluation]) -> dict[tuple[str, str], EvaluatorReport]:
    """Return what each evaluator says about the runs of each blueprint; those without a score are left out.

    Args:
        rows: evaluations of any runs.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for each in rows:
        if each.score is not None:
            found.setdefault((each.pipeline, each.evaluator), []).append(each.score)
    return {key: report_of(key[1], scores) for key, scores in sorted(found.items())}


def report_of(name: str, scores: Sequence[float]) -> EvaluatorReport:
    """Return what an evaluator says with these scores."""
    low, high = interval(scores)
    return EvaluatorReport(
        name=name,
        count=len(scores),
        mean=mean(scores, 0.0),
        low=low,
        high=high,
        least=min(scores, default=0.0),
    )


def mean(values: Iterable[float], otherwise: float = 0.0) -> float:
    """Return the mean of values, or `otherwise` when there are none."""
    every = list(values)
    return math.fsum(every) / len(every) if every else otherwise
