"""Trials: one run of one case each, executed once, and scored by the evaluators of its file."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from flujo.domain import canonical
from flujo.domain.evaluations import Evaluated, Evaluation, EvaluationQuery, Score, evaluation_id
from flujo.domain.journal import ErrorInfo
from flujo.domain.paths import ROOT
from flujo.domain.run import RunStatus
from flujo.exceptions import (
    BudgetError,
    FlujoError,
    InputRejected,
    McpServerFailed,
    ModelUnavailable,
    PriceUnknown,
    ProviderUnavailable,
    RunDeadlinePassed,
    RunNotFound,
    StateError,
)
from flujo.governance.sink import GATE
from flujo.services.cases.judges import Judges, limited
from flujo.services.runs.run_request import Request
from flujo.services.runs.run_services import RunServices

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flujo.domain.acts import Actor
    from flujo.domain.evaluations import Evaluator
    from flujo.domain.journal import RunId
    from flujo.domain.models import Metadata
    from flujo.domain.run import RunRecord
    from flujo.domain.store import StateStore
    from flujo.domain.usage import Usage
    from flujo.services.cases.files import Case, Cases
    from flujo.services.cases.purse import Purse
    from flujo.services.cases.versions import Version
    from flujo.services.runs.execution import Stop
    from flujo.services.workspace import Workspace

CASE_ID = "c-"
"""The beginning of the id of every run of a case."""

FILE, CASE, REPEAT = "evals_file", "evals_case", "evals_repeat"
"""The metadata of a run of a case: by it, recorded runs are paired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run of one case, and its scores."""

    case: Case
    version: str
    """The label of the version."""
    run_id: RunId
    scores: Mapping[str, float] = field(default_factory=dict)
    """From 0 to 1, by evaluator. Without the scores of evaluators that failed."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Why a score is what it is, or why there is none, by evaluator."""
    problem: str = ""
    """Why the run has no output."""
    is_failed: bool = False
    """Whether the run failed by itself, so that each of its scores is 0."""
    is_recorded: bool = False
    """Whether the run was completed before, so that it was not executed again."""
    cost: float = 0.0
    """US dollars that this trial has cost now."""
    price: float = 0.0
    """US dollars that the run and its scores cost, whenever they were made."""
    is_priced: bool = True
    """Whether the price of every request is known."""


def trial_id(cases: Cases, case: Case, version: Version, number: int) -> RunId:
    """Return the id of the run of a case; the same for the same file, case, input and version."""
    parts = [cases.file, case.name, case.input, version.blueprint.name, version.digest, number]
    digest = hashlib.sha256(canonical.encode(parts, what="the input of a case")).digest()
    return cast("RunId", CASE_ID + base64.b32encode(digest).decode().lower()[:26])


@dataclass(slots=True, kw_only=True)
class Trials:
    """Executes trials of one file of cases."""

    cases: Cases
    store: StateStore
    services: RunServices
    judges: Judges
    purse: Purse
    actor: Actor
    stop: Stop

    @classmethod
    async def of(cls, ws: Workspace, cases: Cases, purse: Purse, actor: Actor, stop: Stop) -> Trials:
        """Return what executes trials in a project."""
        services = await RunServices.of_project(ws)
        return cls(
            cases=cases,
            store=services.store,
            services=services,
            judges=Judges.of(services, ws),
            purse=purse,
            actor=actor,
            stop=stop,
        )

    async def check(self, version: Version) -> None:
        """Check that a version can run here, and that the inputs of all cases fit it; nothing is recorded.

        Raises:
            InputRejected: the input of a case does not fit; with its line.
            CallableError | ProviderUnavailable: something that the blueprint needs is not available.
        """
        service = self.services.of_blueprint(version.blueprint)
        for case in self.cases.cases:
            try:
                await service.new_run(Request(case.input, is_case=True))
            except InputRejected as error:
                where = f"{self.cases.file}:{case.line}: case `{case.name}`"
                raise InputRejected(f"{where}: {error.message}", hint=error.hint) from None

    async def run(self, version: Version, case: Case, number: int) -> Trial | None:
        """Return the trial of a case, executed as far as it is not recorded; None without the money for it.

        Raises:
            PriceUnknown: the purse has a limit, and the price of a model is unknown.
        """
        run_id = trial_id(self.cases, case, version, number)
        before = await self._recorded(run_id)
        given = None if _is_settled(before) else await self.purse.take()
        if given == 0:
            return None
        cost = 0.0
        try:
            record = before if before is not None and _is_settled(before) else None
            if record is None:
                await self._execute(version, case, number, run_id, before, given)
                record = await self.store.run(run_id)
                cost = _cost(record.usage) - (_cost(before.usage) if before is not None else 0.0)
        finally:
            if not _is_settled(before):
                await self.purse.settle(given, max(0.0, cost))
        trial = Trial(
            case=case,
            version=version.label,
            run_id=run_id,
            is_recorded=_is_settled(before),
            cost=cost,
            price=_cost(record.usage),
            is_priced=not record.usage.unpriced_requests,
        )
        return await self._scored(trial, record)

    async def _recorded(self, run_id: RunId) -> RunRecord | None:
        try:
            return await self.store.run(run_id)
        except RunNotFound:
            return None

    async def _execute(
        self,
        version: Version,
        case: Case,
        number: int,
        run_id: RunId,
        before: RunRecord | None,
        given: float | None,
    ) -> None:
        """Execute the run of a case to its end, or continue it."""
        service = self.services.of_blueprint(version.blueprint)
        if before is not None and (before.status is RunStatus.FAILED or before.closure != service.closure):
            service = limited(await self.services.of_run(before), given)
            await service.resume(run_id, retry_failed=True, actor=self.actor, stop=self.stop)
            return
        facts: Metadata = {FILE: self.cases.file, CASE: case.name, REPEAT: number}
        request = Request(case.input, run_id=run_id, metadata=facts, is_case=True, longest_wait_s=0)
        await limited(service, given).accept(request, stop=self.stop)

    # Scores ----------------------------------------------------------------------------------------------

    async def _scored(self, trial: Trial, record: RunRecord) -> Trial:
        """Return a trial with its scores, which are stored."""
        if record.status is not RunStatus.COMPLETED:
            return await self._without_output(trial, record)
        evaluated = Evaluated(
            input=canonical.decode(record.input),
            output=canonical.decode(record.output or b"null"),
            expected=trial.case.expected,
            metadata=trial.case.metadata,
        )
        there = await self.store.evaluations(EvaluationQuery(run_id=record.run_id, limit=1000))
        known = {each.key: each for each in there}
        found: dict[str, Evaluation] = {}
        for evaluator in self.cases.evaluators:
            key = _key(record.run_id, evaluator, evaluated.expected)
            before = known.get(key)
            if evaluator.judge is not None and before is not None and before.score is not None:
                found[evaluator.name] = before
                continue
            made, cost = await self._evaluated(evaluator, evaluated, record, key)
            found[evaluator.name] = made
            trial = replace(trial, cost=trial.cost + cost)
        # The run of a judge stores its score, or its error, itself; another process may execute it.
        judges = {each.name for each in self.cases.evaluators if each.judge is not None}
        mine = [each for name, each in found.items() if name not in judges or each.score is not None]
        await self.store.add_evaluations(mine)
        costs = [each.cost_micro_usd for each in found.values()]
        return replace(
            trial,
            scores={name: each.score for name, each in found.items() if each.score is not None},
            reasons={name: said for name, each in found.items() if (said := each.reason or each.error)},
            price=trial.price + sum(each or 0 for each in costs) / 1e6,
            is_priced=trial.is_priced and None not in costs,
        )

    async def _without_output(self, trial: Trial, record: RunRecord) -> Trial:
        """Return the trial of a run that has not completed: scores of 0 if that is its own fault."""
        error = None if record.error is None else ErrorInfo(**_facts(record.error))
        if self.purse.limit is not None and error is not None and error.code == PriceUnknown.code:
            raise PriceUnknown(f"case `{trial.case.name}`: {error.message}", hint=error.hint)
        problem = f"the run is {record.status}" if error is None else error.message
        if error is None or record.status is not RunStatus.FAILED or not self._is_own(error):
            return replace(trial, problem=problem)
        names = [each.name for each in self.cases.evaluators]
        zeros = [
            self._evaluation(each, record, _key(record.run_id, each, trial.case.expected), 0.0, problem)
            for each in self.cases.evaluators
        ]
        await self.store.add_evaluations(zeros)
        return replace(trial, problem=problem, is_failed=True, scores=dict.fromkeys(names, 0.0))

    def _is_own(self, error: ErrorInfo) -> bool:
        """Return whether an error says something about the version: its own budget does, a purse does not."""
        return error.code not in _OUTSIDE or (self.purse.limit is None and error.code in _OF_BUDGETS)

    async def _evaluated(
        self, evaluator: Evaluator, evaluated: Evaluated, record: RunRecord, key: RunId
    ) -> tuple[Evaluation, float]:
        """Return the score that an evaluator gives, or why it gives none, and what that cost.

        Raises:
            PriceUnknown: the purse has a limit, and the price of the judge is unknown.
        """
        given = None if evaluator.judge is None else await self.purse.take()
        cost = 0.0
        failed = replace(self._evaluation(evaluator, record, key), error="the money for it is spent")
        if given == 0:
            return failed, cost
        try:
            if evaluator.judge is None:
                result = await self.judges.judge(evaluator, evaluated, stop=self.stop)
            else:
                result, used = await self.judges.judge_durably(
                    evaluator, evaluated, record, key, actor=self.actor, stop=self.stop, most_usd=given
                )
                cost = _cost(used)
            micro = None if result.usage.unpriced_requests else result.usage.cost_micro_usd
            if result.success:
                score = Score.read(result.output)
                made = self._evaluation(evaluator, record, key, score.score, score.reason)
                return replace(made, cost_micro_usd=micro), cost
            error = result.error
        except FlujoError as raised:
            return replace(failed, error=GATE.text(raised.message)), cost
        finally:
            if evaluator.judge is not None:
                await self.purse.settle(given, cost)
        if error is not None and error.code == PriceUnknown.code and given is not None:
            raise PriceUnknown(f"evaluator `{evaluator.name}`: {error.message}", hint=error.hint)
        message = "the evaluator gave no score" if error is None else error.message
        return replace(failed, error=message, cost_micro_usd=micro), cost

    def _evaluation(
        self,
        evaluator: Evaluator,
        record: RunRecord,
        key: str,
        score: float | None = None,
        reason: str | None = None,
    ) -> Evaluation:
        return Evaluation(
            key=key,
            run_id=record.run_id,
            pipeline=record.pipeline,
            closure=record.closure,
            lock_digest=record.lock_digest,
            user_id=record.user_id,
            evaluator=evaluator.name,
            version=evaluator.version,
            score=score,
            reason=None if reason is None else GATE.text(reason),
            by=evaluator.by,
            cost_micro_usd=0,
        )


def _is_settled(record: RunRecord | None) -> bool:
    """Return whether a recorded run counts as it is: completed, or failed by itself."""
    if record is None:
        return False
    if record.status is RunStatus.FAILED and record.error is not None:
        return ErrorInfo(**_facts(record.error)).code not in _OUTSIDE
    return record.status is RunStatus.COMPLETED


def _facts(error: bytes) -> dict[str, Any]:
    """Return the facts of a recorded error, apart from its place in code."""
    facts = canonical.decode(error)
    return {name: facts[name] for name in ("code", "message", "hint")}


def _key(run_id: RunId, evaluator: Evaluator, expected: Any) -> RunId:
    """Return the key of a score, which is the id of the run of a judge.

    It is the same for the same output, evaluator and expected output.
    """
    wanted = canonical.digest(canonical.encode(expected, what="the expected output"))
    return evaluation_id(run_id, ROOT, f"{evaluator.name}|{evaluator.version}|{wanted}")


def _cost(used: Usage) -> float:
    return used.cost_micro_usd / 1e6


def _codes(kind: type[FlujoError]) -> Iterator[str]:
    yield kind.code
    for each in kind.__subclasses__():
        yield from _codes(each)


_OF_BUDGETS = frozenset(_codes(BudgetError))

_OUTSIDE = _OF_BUDGETS | {
    code
    for kind in (ProviderUnavailable, ModelUnavailable, McpServerFailed, StateError)
    for code in _codes(kind)
    if code != RunDeadlinePassed.code
}
"""The codes of errors that say nothing about a version: the trial is left out, and made again next time."""
