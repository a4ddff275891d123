"""Executes evaluators: a judge of a case as a run of its own, and everything else in memory.

A model costs money, so its run is journaled: after a crash it continues, and asks for no recorded answer
again. The scores of code and expressions are computed each time, because code may have changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flujo.domain import canonical
from flujo.domain.evaluations import Score
from flujo.domain.run import RunStatus
from flujo.domain.usage import MICRO_USD, NOTHING, UsageLimits
from flujo.exceptions import FlujoError, RunNotFound
from flujo.governance.sink import GATE
from flujo.services.runs.execution import standing
from flujo.services.runs.run_request import Request
from flujo.services.runs.run_services import RunServices
from flujo.services.runs.service import limits_of
from flujo.services.scoring.evaluators import named_evaluators, pipeline_of
from flujo.services.scoring.shadow import PinnedEvaluator
from flujo.state.memory_store import MemoryStateStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from flujo.domain.acts import Actor
    from flujo.domain.evaluations import Evaluated, Evaluator
    from flujo.domain.journal import RunId
    from flujo.domain.models import PipelineResult
    from flujo.domain.run import RunRecord
    from flujo.domain.usage import Usage
    from flujo.services.runs.execution import Stop
    from flujo.services.runs.service import RunService
    from flujo.services.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Judged:
    """A score, or why there is none."""

    evaluator: str
    score: float | None
    reason: str | None
    """Of the score, or of the failure."""


@dataclass(slots=True, kw_only=True)
class Judges:
    """The evaluators of a project, ready to be executed."""

    services: RunServices
    """Those of the project."""
    in_memory: RunServices
    """Those whose runs are not kept."""
    timeout_s: float
    budget: float | None
    """US dollars for one evaluation; None: no limit."""
    allow_callables: tuple[str, ...]
    _made: dict[str, RunService] = field(default_factory=dict)

    @classmethod
    def of(cls, services: RunServices, ws: Workspace) -> Judges:
        """Return the evaluators of a project."""
        settings = ws.project.settings
        in_memory = replace(
            services, store=MemoryStateStore(), limits=None, context_model=None, is_durable=False
        )
        return cls(
            services=services,
            in_memory=in_memory,
            timeout_s=settings.evaluation.timeout_s,
            budget=settings.evaluation.budget,
            allow_callables=tuple(settings.blueprints.allow_callables),
        )

    async def judge(
        self, evaluator: Evaluator, evaluated: Evaluated, *, stop: Stop, most_usd: float | None = None
    ) -> PipelineResult[Any, Any]:
        """Return the result of an evaluator, whose run is not kept.

        Raises:
            FlujoError: something that it needs is not available.
        """
        if evaluator.name not in self._made:
            pipeline = pipeline_of(
                evaluator,
                name=f"evaluate_{evaluator.name}",
                allow_callables=self.allow_callables,
                timeout_s=self.timeout_s,
                cost_usd=self.budget,
            )
            self._made[evaluator.name] = self.in_memory.of_pipeline(pipeline, output=None)
        service = limited(self._made[evaluator.name], most_usd)
        return await service.accept(Request(evaluated.to_json()), stop=stop)

    async def judge_durably(
        self,
        evaluator: Evaluator,
        evaluated: Evaluated,
        scored: RunRecord,
        key: RunId,
        *,
        actor: Actor,
        stop: Stop,
        most_usd: float | None = None,
    ) -> tuple[PipelineResult[Any, Any], Usage]:
        """Return the result of the run that scores an output, and what it has spent now.

        Its last commit stores the score. If there is such a run, it continues where its journal ends.

        Args:
            evaluator: the judge.
            evaluated: what it judges.
            scored: the run whose output that is.
            key: the key of the score, which is the id of the run.
            actor: who asks.
            stop: stops it.
            most_usd: what it may cost at most.

        Raises:
            FlujoError: something that it needs is not available, or another process executes it.
        """
        try:
            before = await self.services.store.run(key)
        except RunNotFound:
            pinned = PinnedEvaluator(
                evaluator=evaluator,
                closure=scored.closure,
                timeout_s=self.timeout_s,
                cost_usd=self.budget,
            )
            child = pinned.run(scored, key, canonical.encode(evaluated.to_json()))
            service = limited(self.services.of_evaluator(pinned, scored.pipeline), most_usd)
            result = await service.begin(child.run, child.blobs, stop=stop)
            return result, result.usage
        spent = before.usage or NOTHING
        most = None if most_usd is None else most_usd + spent.cost_micro_usd / MICRO_USD
        service = limited(await self.services.of_run(before), most)
        if before.status is RunStatus.COMPLETED:
            result = await standing(service.runtime, before)
        else:
            result = await service.resume(key, retry_failed=True, actor=actor, stop=stop)
        return result, result.usage.beyond(spent)


async def judge_outputs(
    ws: Workspace, names: Sequence[str], evaluated: Sequence[Evaluated], stop: Stop
) -> list[list[Judged]]:
    """Return the scores of outputs, which are recorded nowhere.

    Args:
        ws: the project.
        names: evaluators of its flujo.toml.
        evaluated: the outputs, each with what it was made from.
        stop: stops the evaluations.

    Raises:
        EvaluatorUnknown: flujo.toml has no evaluator of a name.
    """
    evaluators = named_evaluators(ws.project.settings, names)
    judges = Judges.of(await RunServices.of_project(ws), ws)
    return [[await _judged(judges, each, one, stop) for each in evaluators] for one in evaluated]


async def _judged(judges: Judges, evaluator: Evaluator, evaluated: Evaluated, stop: Stop) -> Judged:
    try:
        result = await judges.judge(evaluator, evaluated, stop=stop)
        if result.success:
            score = Score.read(result.output)
            return Judged(evaluator.name, score.score, score.reason)
        reason = "the evaluator gave no score" if result.error is None else result.error.message
    except FlujoError as error:
        reason = error.message
    return Judged(evaluator.name, None, GATE.text(reason))


def limited(service: RunService, cost_usd: float | None) -> RunService:
    """Return a service whose next run costs at most this."""
    if cost_usd is None:
        return service
    runtime = service.runtime
    limits = limits_of(runtime.pipeline, runtime.limits, UsageLimits(total_cost_usd_limit=cost_usd))
    return replace(service, runtime=replace(runtime, limits=limits))
