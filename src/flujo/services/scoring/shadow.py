"""Shadow evaluation: which outputs of live traffic are scored, and the runs that score them.

A run that evaluates begins in the commit of the end that it scores, like a background task in that of its
launch. It pins its evaluator, so that any process can execute it, and ends with its score in one commit.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.evaluations import Evaluation, Evaluator, Score, evaluation_id, is_sampled
from flujo.domain.paths import ROOT
from flujo.domain.queues import Parent, RunKind
from flujo.domain.run import Child, NewRun, RunStatus
from flujo.governance.events import read_error
from flujo.governance.logs import logger
from flujo.governance.sink import GATE
from flujo.services.scoring.evaluators import evaluators_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from flujo.domain.journal import RunId
    from flujo.domain.paths import StepPath
    from flujo.domain.pipeline import BaseStep, Pipeline
    from flujo.domain.run import Move, RunRecord
    from flujo.domain.usage import Usage
    from flujo.settings import Settings

ENTRY = "evaluate:"
"""Before the name of the evaluator in the `entry` of a run that evaluates: no step has such a path."""

log = logger("flujo.evaluation")


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedEvaluator:
    """What a run that evaluates pins."""

    evaluator: Evaluator
    closure: str
    """What the run pins that it scores."""
    timeout_s: float
    cost_usd: float | None = None

    @property
    def manifest(self) -> bytes:
        """The content of the closure of the run that evaluates.

        A version without evaluations treats the run as a task, finds no step for it, and leaves it alone.
        """
        return canonical.encode(
            {
                "task": self.closure,
                "entry": f"{ENTRY}{self.evaluator.name}",
                "evaluator": self.evaluator.to_json(),
                "timeout_s": self.timeout_s,
                "cost_usd": self.cost_usd,
            }
        )

    def run(self, record: RunRecord, run_id: RunId, evaluated: bytes, *, path: StepPath = ROOT) -> Child:
        """Return the run that scores an output of a run.

        Args:
            record: the run.
            run_id: the id of the run that evaluates, which is the key of the score.
            evaluated: what it scores: `Evaluated.to_json()`, canonical JSON.
            path: the step whose output it is; the root for that of the run.
        """
        manifest = self.manifest
        closure = canonical.digest(manifest)
        entry = f"{ENTRY}{self.evaluator.name}"
        return Child(
            run=NewRun(
                run_id=run_id,
                pipeline=record.pipeline,
                closure=closure,
                input=evaluated,
                context=b"{}",
                metadata=record.metadata,
                user_id=record.user_id,
                lock_digest=record.lock_digest,
                parent=Parent(run_id=record.run_id, path=path, entry=entry, kind=RunKind.EVAL),
            ),
            blobs={closure: manifest},
        )

    @classmethod
    def load(cls, manifest: bytes) -> PinnedEvaluator:
        """Return what `manifest` wrote."""
        pinned = canonical.decode(manifest)
        return cls(
            evaluator=Evaluator.from_json(pinned["evaluator"]),
            closure=pinned["task"],
            timeout_s=pinned["timeout_s"],
            cost_usd=pinned["cost_usd"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadow:
    """Chooses the outputs of one pipeline's runs that are scored."""

    evaluators: Mapping[str, Evaluator] = field(default_factory=dict)
    """All evaluators of the project, by name."""
    of_runs: Sequence[str] = ()
    """The names of those that score the outputs of runs."""
    sample_rate: float = 1.0
    timeout_s: float = 60.0
    cost_usd: float | None = None

    @classmethod
    def of(cls, settings: Settings, pipeline: Pipeline) -> Shadow | None:
        """Return the shadow evaluation of a pipeline; None when the settings or the pipeline have none.

        A name in `evaluate` that the settings do not have is left out: an older run may have pinned it.

        Raises:
            SettingsError: an evaluator of the settings cannot be used.
        """
        table = settings.evaluation
        if not table.enabled or not table.evaluators:
            return None
        chosen = [
            name
            for name, each in table.evaluators.items()
            if name in pipeline.evaluate or any(fnmatchcase(pipeline.name, one) for one in each.blueprints)
        ]
        if not chosen and not any(True for _ in named_in_steps(pipeline)):
            return None
        return cls(
            evaluators=evaluators_of(settings),
            of_runs=chosen,
            sample_rate=table.sample_rate,
            timeout_s=table.timeout_s,
            cost_usd=table.budget,
        )

    def takes(self, record: RunRecord) -> bool:
        """Return whether outputs of a run are scored: the sample has it, and a caller started it."""
        return record.kind is RunKind.RUN and is_sampled(record.run_id, self.sample_rate)

    def of_run(self, record: RunRecord, move: Move) -> list[Child]:
        """Return the runs that score the output with which a run completes."""
        if move.status is not RunStatus.COMPLETED or move.output is None or not self.takes(record):
            return []
        return [self._child(record, name, ROOT, record.input, move.output) for name in self.of_runs]

    def of_step(
        self, record: RunRecord, step: BaseStep, path: StepPath, given: bytes | None, output: bytes
    ) -> list[Child]:
        """Return the runs that score the output of a step.

        Args:
            record: the run.
            step: the step.
            path: its path in the run.
            given: its input, canonical JSON; None when it has none.
            output: its output, canonical JSON.
        """
        names = [name for name in step.evaluators if name in self.evaluators]
        return [self._child(record, name, path, given or b"null", output) for name in names]

    def _child(self, record: RunRecord, name: str, path: StepPath, given: bytes, output: bytes) -> Child:
        pinned = PinnedEvaluator(
            evaluator=self.evaluators[name],
            closure=record.closure,
            timeout_s=self.timeout_s,
            cost_usd=self.cost_usd,
        )
        metadata = canonical.encode(dict(record.metadata))
        # The values are canonical already, and may be large: they are not decoded and encoded again.
        evaluated = b'{"expected":null,"input":%b,"metadata":%b,"output":%b}' % (given, metadata, output)
        run_id = evaluation_id(record.run_id, path, name)
        return pinned.run(record, run_id, evaluated, path=path)


def named_in_steps(pipeline: Pipeline) -> list[tuple[StepPath, str]]:
    """Return the evaluators that steps of a pipeline name, each with the path of its step."""
    return [(path, name) for path, step in pipeline.walk() for name in step.evaluators]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """Adds the score to the move with which a run that evaluates ends."""

    pinned: PinnedEvaluator
    to_log: bool = False
    """Whether scores go to the log instead of the database."""

    def scored(self, record: RunRecord, move: Move, used: Usage) -> Move:
        """Return the move with its score, or with the reason why there is none."""
        if move.status not in _ENDS or record.parent is None:
            return move
        evaluator, parent = self.pinned.evaluator, record.parent
        result: dict[str, Any] = {}
        if move.status is RunStatus.COMPLETED:
            found = Score.read(canonical.decode(move.output or b"null"))
            reason = None if found.reason is None else GATE.text(found.reason)
            result |= {"score": found.score, "reason": reason}
        else:
            error = read_error(move.error or b"{}")
            result |= {"error": GATE.text(f"{error.message} [{error.code}]")}
        evaluation = Evaluation(
            key=record.run_id,
            run_id=parent.run_id,
            path=parent.path,
            pipeline=record.pipeline,
            closure=self.pinned.closure,
            lock_digest=record.lock_digest,
            user_id=record.user_id,
            evaluator=evaluator.name,
            version=evaluator.version,
            by=evaluator.by,
            cost_micro_usd=None if used.unpriced_requests else used.cost_micro_usd,
            **result,
        )
        if not self.to_log:
            return replace(move, evaluations=(evaluation,))
        said = f"{evaluation.score}" if evaluation.error is None else f"no score: {evaluation.error}"
        why = "" if evaluation.reason is None else f": {evaluation.reason}"
        log.info("run %s%s: %s %s%s", parent.run_id, _at(parent.path), evaluator.name, said, why)
        return move


_ENDS = (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.PARKED)
"""The ends of a run that evaluates that are recorded; one that a person cancels leaves nothing."""


def _at(path: StepPath) -> str:
    return f" at `{path}`" if path else ""
