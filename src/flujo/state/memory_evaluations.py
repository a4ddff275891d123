"""Evaluations in this process's memory: the same rules as in SQL."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.domain.evaluations import Evaluation, EvaluationQuery


class MemoryEvaluations:
    """The evaluations of a database in memory, by key, in the order in which each was recorded first."""

    def __init__(self) -> None:
        self._evaluations: dict[str, Evaluation] = {}

    def keep(self, evaluations: Sequence[Evaluation], now: float) -> bool:
        """Record evaluations; return whether any has a new key."""
        before = len(self._evaluations)
        for each in evaluations:
            self._evaluations[each.key] = replace(each, created_at=now)
        return len(self._evaluations) > before

    def matching(self, query: EvaluationQuery) -> list[Evaluation]:
        """Return the evaluations that match, the newest first."""
        recorded = list(self._evaluations.values())[::-1]
        recorded.sort(key=lambda each: -each.created_at)
        return [each for each in recorded if _fits(each, query)][: query.limit]


def _fits(each: Evaluation, query: EvaluationQuery) -> bool:
    return (
        query.run_id in (None, each.run_id)
        and query.path in (None, each.path)
        and query.pipeline in (None, each.pipeline)
        and query.evaluator in (None, each.evaluator)
        and (query.lock is None or (each.lock_digest or "").startswith(query.lock))
        and (query.below is None or (each.score is not None and each.score < query.below))
        and (query.since is None or each.created_at >= query.since)
        and (query.until is None or each.created_at < query.until)
    )
