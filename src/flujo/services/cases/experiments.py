"""Runs a file of cases: all of them, or in batches beside another version until the comparison is decided."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.domain.gate import BATCH, Verdict
from flujo.services.cases.purse import Purse
from flujo.services.cases.recorded import Recorded
from flujo.services.cases.reports import CaseScores, Comparison, Report, compared, evaluator_reports
from flujo.services.cases.trials import Trials
from flujo.services.cases.versions import Version

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flujo.domain.acts import Actor
    from flujo.services.cases.files import Case, Cases
    from flujo.services.cases.trials import Trial
    from flujo.services.runs.execution import Stop
    from flujo.services.workspace import Workspace

CONCURRENCY = 8
"""How many runs are executed at once, unless a caller says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The arguments of one command."""

    version: Version
    against: Version | Recorded | None = None
    max_cost: float | None = None
    """US dollars that the command may spend at most."""
    max_concurrency: int = CONCURRENCY


async def run_cases(
    ws: Workspace,
    cases: Cases,
    wanted: Wanted,
    *,
    actor: Actor,
    stop: Stop,
    on_trial: Callable[[Trial], None],
) -> Report:
    """Run the cases of a file, score them, and compare the version with another one if there is one.

    Completed runs of the same case, input and version are taken as they are, so a command that was stopped
    continues. `on_trial` is called with each trial that has its scores.

    Raises:
        InputRejected: the input of a case does not fit the blueprint.
        PriceUnknown: there is a limit on cost, and the price of a model is unknown.
        CallableError | ProviderUnavailable: something that the blueprint needs is not available.
    """
    purse = Purse(wanted.max_cost)
    trials = await Trials.of(ws, cases, purse, actor, stop)
    order = sorted(cases.cases, key=lambda case: hashlib.sha256(case.name.encode()).digest())
    other = wanted.against
    versions = [wanted.version]
    are_same = isinstance(other, Version) and other.digest == wanted.version.digest
    if isinstance(other, Version) and not are_same:
        versions.append(other)
    is_compared = other is not None and not are_same
    size = BATCH if is_compared else len(order)
    recorded = other.of_file(cases.file) if isinstance(other, Recorded) else {}
    batch = _Batch(trials, wanted.max_concurrency, on_trial, recorded)
    for version in versions:
        await trials.check(version)
    rows: list[CaseScores] = []
    comparison: Comparison | None = None
    async with trials.services.tasks.stay():
        for start in range(0, len(order), size):
            rows += await batch.run(order[start : start + size], versions)
            if other is not None and is_compared:
                comparison = _compared(cases, other.label, rows)
                if comparison.verdict is not Verdict.CANNOT_TELL:
                    break
            if purse.is_empty:
                break
    if other is not None and are_same:
        comparison = Comparison(against=other.label, verdict=Verdict.BETTER_OR_EQUAL, are_same=True)
    place = {case.name: index for index, case in enumerate(cases.cases)}
    rows.sort(key=lambda row: place[row.case.name])
    every = [trial for row in rows for trial in (*row.trials, *row.against)]
    return Report(
        file=cases.file,
        blueprint=wanted.version.blueprint.name,
        version=wanted.version.label,
        cases=tuple(rows),
        not_run=len(cases.cases) - len(rows),
        evaluators=evaluator_reports(cases, rows),
        comparison=comparison,
        spent=sum(trial.cost for trial in every),
        is_priced=all(trial.is_priced for trial in every),
        is_out_of_money=purse.is_empty,
    )


@dataclass(frozen=True, slots=True)
class _Batch:
    """Executes the trials of some cases concurrently."""

    trials: Trials
    max_concurrency: int
    on_trial: Callable[[Trial], None]
    recorded: Mapping[str, Mapping[str, float]]
    """Scores of another version by the name of the case."""

    async def run(self, cases: Sequence[Case], versions: Sequence[Version]) -> list[CaseScores]:
        """Return the scores of these cases under these versions; without the cases that lack the money."""
        places = asyncio.Semaphore(self.max_concurrency)
        repeats = range(1, self.trials.cases.repeat + 1)

        async def trial(version: Version, case: Case, number: int) -> Trial | None:
            async with places:
                done = await self.trials.run(version, case, number)
            if done is not None:
                self.on_trial(done)
            return done

        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    (case.name, index): [
                        group.create_task(trial(version, case, number)) for number in repeats
                    ]
                    for case in cases
                    for index, version in enumerate(versions)
                }
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        found = {key: [each.result() for each in every] for key, every in tasks.items()}
        rows = []
        for case in cases:
            done = [found[case.name, index] for index in range(len(versions))]
            whole = [[each for each in every if each is not None] for every in done]
            if [len(every) for every in whole] == [len(every) for every in done]:
                against = tuple(whole[1]) if len(whole) > 1 else ()
                old = self.recorded.get(case.name, {})
                rows.append(CaseScores(case=case, trials=tuple(whole[0]), against=against, recorded=old))
        return rows


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first exception that is not a group."""
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _compared(cases: Cases, against: str, rows: Sequence[CaseScores]) -> Comparison:
    trials = [trial for row in rows for trial in (*row.trials, *row.against)]
    is_priced = bool(rows) and all(trial.is_priced for trial in trials)
    return compared(
        [(row.scores, row.scores_against) for row in rows],
        [each.name for each in cases.evaluators],
        cases.margin,
        against=against,
        price=sum(trial.price for trial in trials) / len(rows) if is_priced else None,
    )
