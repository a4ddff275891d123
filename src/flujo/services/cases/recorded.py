"""Scores that the database has of a set of runs, as one side of a comparison."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from flujo.domain import canonical
from flujo.domain.queues import RunKind
from flujo.domain.run import RunQuery
from flujo.exceptions import RunNotFound, SettingsError
from flujo.governance.sink import GATE
from flujo.services.cases.reports import compared
from flujo.services.cases.trials import CASE, FILE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.domain.evaluations import EvaluationQuery
    from flujo.domain.journal import RunId
    from flujo.domain.store import StateStore
    from flujo.services.cases.files import Cases
    from flujo.services.cases.reports import Comparison

_MOST = 10_000
"""How many scores are read of each side at most; the newest ones."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Recorded scores: by the file and the name of a case, or of other runs by their ids."""

    label: str
    cases: Mapping[tuple[str, str], Mapping[str, float]]
    runs: Mapping[str, Mapping[str, float]]
    """The scores of runs that are not cases, by evaluator."""

    @property
    def evaluators(self) -> set[str]:
        """The evaluators that have given a score."""
        return {name for one in (*self.cases.values(), *self.runs.values()) for name in one}

    def of_file(self, file: str) -> dict[str, Mapping[str, float]]:
        """Return the scores of the cases of one file, by the name of the case."""
        return {name: scores for (of, name), scores in self.cases.items() if of == file}


async def recorded(store: StateStore, query: EvaluationQuery, label: str) -> Recorded:
    """Return the recorded scores that a query matches; several of one case and evaluator are averaged.

    Raises:
        SettingsError: there are none.
    """
    rows = [each for each in await store.evaluations(replace(query, limit=_MOST)) if each.score is not None]
    if not rows:
        raise SettingsError(
            f"there are no scores of {label}",
            hint="`flujo evals run` scores the cases of a file; scores belong to a lock only if the "
            "blueprint matched it",
        )
    runs = await store.runs(RunQuery(kinds=(RunKind.CASE,), pipeline=query.pipeline, limit=_MOST))
    named = {run.run_id: (str(run.metadata.get(FILE)), str(run.metadata.get(CASE))) for run in runs}
    cases: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    others: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for each in rows:
        score = each.score or 0.0
        if each.run_id in named:
            cases[named[each.run_id]][each.evaluator].append(score)
        else:
            others[each.run_id][each.evaluator].append(score)
    means = {case: _means(scores) for case, scores in cases.items()}
    return Recorded(label, means, {run: _means(scores) for run, scores in others.items()})


async def with_inputs_of(store: StateStore, found: Recorded, cases: Cases) -> Recorded:
    """Return recorded scores in which the runs that have the input of a case count as runs of that case.

    The scores of several such runs are averaged.

    Raises:
        SettingsError: no case of the file has a recorded score.
    """
    by_input = {canonical.encode(each.input): each.name for each in cases.cases}
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run_id, by_evaluator in found.runs.items():
        try:
            run = await store.run(cast("RunId", run_id))
        except RunNotFound:
            continue  # purged; its scores are kept
        given = canonical.decode(run.input)
        case = by_input.get(canonical.encode(given)) or by_input.get(canonical.encode(GATE.data(given)))
        if case is not None:
            for name, score in by_evaluator.items():
                scores[case][name].append(score)
    of_runs = {(cases.file, case): _means(each) for case, each in scores.items()}
    whole = replace(found, cases={**of_runs, **found.cases})
    if not whole.of_file(cases.file):
        raise SettingsError(
            f"no run of {found.label} has the input of a case of {cases.file}",
            hint="`flujo evals add --from` makes cases of scored runs",
        )
    return whole


def compare_recorded(new: Recorded, old: Recorded, margin: float) -> tuple[Comparison, bool]:
    """Return the comparison of two sets of scores, and whether it is by the same cases.

    Without a common case the scores of other runs are compared: each run of one side with one of the other,
    in the order of a digest of their ids. That needs more runs than pairs of one case.

    Raises:
        SettingsError: the sides have no evaluator in common.
    """
    evaluators = sorted(new.evaluators & old.evaluators)
    if not evaluators:
        raise SettingsError(
            f"{new.label} and {old.label} have no evaluator in common",
            hint=f"{new.label}: {', '.join(sorted(new.evaluators))}; {old.label}: "
            f"{', '.join(sorted(old.evaluators))}",
        )
    common = sorted(new.cases.keys() & old.cases.keys(), key=lambda each: _digest("/".join(each)))
    pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]]
    if common:
        pairs = [(new.cases[case], old.cases[case]) for case in common]
    else:
        pairs = list(zip(_shuffled(new.runs), _shuffled(old.runs), strict=False))
    return compared(pairs, evaluators, margin, against=old.label, price=None), bool(common)


def _shuffled(runs: Mapping[str, Mapping[str, float]]) -> list[Mapping[str, float]]:
    return [runs[run] for run in sorted(runs, key=_digest)]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _means(scores: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: sum(every) / len(every) for name, every in scores.items()}
