"""What the scores of a file of cases say: means with intervals, missed thresholds, and a comparison."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flujo.domain.gate import Judgement, Verdict, decide
from flujo.services.scoring.means import EvaluatorReport, mean, report_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.services.cases.files import Case, Cases, Threshold
    from flujo.services.cases.trials import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseScores:
    """One case: the scores of the version, and of the one that it is compared with."""

    case: Case
    trials: tuple[Trial, ...]
    against: tuple[Trial, ...] = ()
    recorded: Mapping[str, float] = field(default_factory=dict)
    """The scores of the other version by evaluator, if they were recorded and it did not run now."""

    @property
    def scores(self) -> dict[str, float]:
        """By evaluator, the mean over the repeats; without evaluators that a repeat has no score of."""
        return mean_scores(self.trials)

    @property
    def scores_against(self) -> dict[str, float]:
        """The same of the version that it is compared with."""
        return mean_scores(self.against) if self.against else dict(self.recorded)

    @property
    def problem(self) -> str:
        """Why there is no output, of the first repeat without one."""
        return next((each.problem for each in self.trials if each.problem), "")

    @property
    def is_left_out(self) -> bool:
        """Whether it has no scores, for a reason that says nothing about the version."""
        return not self.scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A version beside another one."""

    against: str
    """The label of the other version."""
    verdict: Verdict
    by_evaluator: Mapping[str, Judgement] = field(default_factory=dict)
    means: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """By evaluator, the mean scores of the version and of the other one, over the pairs."""
    are_same: bool = False
    """Whether both are the same version, so that nothing had to run."""
    left_out: int = 0
    """How many pairs have no scores for a reason that says nothing about a version."""
    more: int | None = None
    """About how many further cases decide, if they look like these; None when decided or not known."""
    more_usd: float | None = None
    """About what they cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the cases of a file have shown."""

    file: str
    blueprint: str
    version: str
    """The label of the version."""
    cases: tuple[CaseScores, ...]
    """The cases that ran, in the order of the file."""
    not_run: int
    """How many cases did not run: the comparison was decided before, or the money was spent."""
    evaluators: tuple[EvaluatorReport, ...]
    comparison: Comparison | None = None
    spent: float = 0.0
    """US dollars that the command has spent."""
    is_priced: bool = True
    """Whether the price of every request is known."""
    is_out_of_money: bool = False

    @property
    def missed(self) -> list[str]:
        """The thresholds that are missed, one sentence each."""
        return [line for each in self.evaluators for line in each.missed]

    @property
    def left_out(self) -> list[CaseScores]:
        """The cases without a score."""
        return [each for each in self.cases if each.is_left_out]

    @property
    def verdict(self) -> Verdict:
        """What the report says as a whole: a missed threshold counts as `worse`."""
        if self.missed or (self.comparison is not None and self.comparison.verdict is Verdict.WORSE):
            return Verdict.WORSE
        if self.comparison is not None and self.comparison.verdict is Verdict.CANNOT_TELL:
            return Verdict.CANNOT_TELL
        has_all = not self.is_out_of_money and any(each.count for each in self.evaluators)
        return Verdict.BETTER_OR_EQUAL if has_all else Verdict.CANNOT_TELL

    @property
    def worst_first(self) -> list[CaseScores]:
        """The cases, those with the lowest mean score first; those without one at the end."""
        return sorted(self.cases, key=lambda each: mean(each.scores.values(), math.inf))


def mean_scores(trials: Sequence[Trial]) -> dict[str, float]:
    """Return by evaluator the mean over the repeats of a case; only of evaluators that scored each repeat."""
    names = [set(trial.scores) for trial in trials]
    known = set.intersection(*names) if names else set()
    return {name: mean(trial.scores[name] for trial in trials) for name in sorted(known)}


def evaluator_reports(cases: Cases, rows: Sequence[CaseScores]) -> tuple[EvaluatorReport, ...]:
    """Return what each evaluator of a file says about the cases that ran."""
    return tuple(
        _evaluator_report(each.name, rows, cases.thresholds.get(each.name)) for each in cases.evaluators
    )


def _evaluator_report(name: str, rows: Sequence[CaseScores], threshold: Threshold | None) -> EvaluatorReport:
    scored = {row.case.name: row.scores[name] for row in rows if name in row.scores}
    scores = list(scored.values())
    report = report_of(name, scores)
    missed = []
    if threshold is not None and scores:
        if threshold.mean is not None and report.mean < threshold.mean:
            missed.append(f"{name}: the mean {report.mean:.2f} is below {threshold.mean:g}")
        if threshold.least is not None:
            for case, score in scored.items():
                if score < threshold.least:
                    missed.append(f"{name}: case `{case}` has {score:.2f}, below {threshold.least:g}")
    return replace(report, missed=tuple(missed))


def compared(
    pairs: Sequence[tuple[Mapping[str, float], Mapping[str, float]]],
    evaluators: Sequence[str],
    margin: float,
    *,
    against: str,
    price: float | None,
) -> Comparison:
    """Return the comparison of two versions from the scores of their cases.

    Args:
        pairs: of each case the scores of the version and of the other one, in the order of the batches.
        evaluators: the evaluators; the version is worse when it is for one of them.
        margin: the loss of mean score that counts as equal.
        against: the label of the other version.
        price: what a pair costs, in US dollars; None when that is unknown.
    """
    scored = {
        name: [(new[name], old[name]) for new, old in pairs if name in new and name in old]
        for name in evaluators
    }
    judged = {
        name: decide([new - old for new, old in each], margin, evaluators=len(evaluators))
        for name, each in scored.items()
    }
    verdicts = {each.verdict for each in judged.values()}
    if Verdict.WORSE in verdicts:
        verdict = Verdict.WORSE
    elif verdicts == {Verdict.BETTER_OR_EQUAL}:
        verdict = Verdict.BETTER_OR_EQUAL
    else:
        verdict = Verdict.CANNOT_TELL
    open_ = [each.more for each in judged.values() if each.verdict is Verdict.CANNOT_TELL]
    more = None
    if verdict is Verdict.CANNOT_TELL and None not in open_:
        more = max((each for each in open_ if each is not None), default=None)
    return Comparison(
        against=against,
        verdict=verdict,
        by_evaluator=judged,
        means={
            name: (mean(new for new, _ in each), mean(old for _, old in each))
            for name, each in scored.items()
        },
        left_out=sum(not (new.keys() & old.keys()) for new, old in pairs),
        more=more,
        more_usd=None if more is None or price is None else more * price,
    )
