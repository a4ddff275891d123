"""Executes evaluators in memory: their scores are kept, and not their runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from flujo.domain.evaluations import Score
from flujo.domain.usage import UsageLimits
from flujo.exceptions import FlujoError
from flujo.governance.sink import GATE
from flujo.services.runs.run_request import Request
from flujo.services.runs.run_services import RunServices
from flujo.services.runs.service import limits_of
from flujo.services.scoring.evaluators import named_evaluators, pipeline_of
from flujo.state.memory_store import MemoryStateStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from flujo.domain.evaluations import Evaluated, Evaluator
    from flujo.domain.models import PipelineResult
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
            services=in_memory,
            timeout_s=settings.evaluation.timeout_s,
            budget=settings.evaluation.budget,
            allow_callables=tuple(settings.blueprints.allow_callables),
        )

    async def judge(
        self, evaluator: Evaluator, evaluated: Evaluated, *, stop: Stop, most_usd: float | None = None
    ) -> PipelineResult[Any, Any]:
        """Return the result of the run of an evaluator.

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
            self._made[evaluator.name] = self.services.of_pipeline(pipeline, output=None)
        service = limited(self._made[evaluator.name], most_usd)
        return await service.accept(Request(evaluated.to_json()), stop=stop)


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
