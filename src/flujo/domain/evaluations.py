"""Scores of outputs: evaluators, their input and their answers, and the stored evaluations."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from flujo.domain import canonical
from flujo.domain.paths import ROOT, StepPath
from flujo.domain.wording import repr_short
from flujo.exceptions import PipelineError, ScoreRejected

if TYPE_CHECKING:
    from flujo.domain.journal import RunId

EVALUATION_ID = "e-"
"""The beginning of the id of every run that evaluates another one."""

NAMES = ("input", "output", "expected", "metadata")
"""The names that an expression or a callable has for an output and its input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What an evaluator is given: one output, and what it was made from. JSON data."""

    input: Any = None
    """The input of the run or of the step."""
    output: Any = None
    expected: Any = None
    """The expected output of a case; None for live traffic."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The metadata of the run."""

    def to_json(self) -> dict[str, Any]:
        """Return it as the input of the run that evaluates it."""
        return {name: getattr(self, name) for name in NAMES} | {"metadata": dict(self.metadata)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evaluated:
        """Return what `to_json` wrote."""
        return cls(**{name: data[name] for name in NAMES if name in data})


@dataclass(frozen=True, slots=True)
class Score:
    """How good an output is."""

    score: float
    """From 0, the worst, to 1."""
    reason: str | None = None

    @classmethod
    def read(cls, answer: Any) -> Score:
        """Return the score in the answer of an evaluator: a number, a boolean, or `{score, reason}`.

        Raises:
            ScoreRejected: it is something else, or no number from 0 to 1.
        """
        reason = None
        given = answer
        if isinstance(answer, Mapping):
            if "score" not in answer or answer.keys() - {"score", "reason"}:
                raise _no_score(answer)
            given, reason = answer["score"], answer.get("reason")
        if isinstance(given, bool):
            given = float(given)
        if not isinstance(given, int | float) or not isinstance(reason, str | None):
            raise _no_score(answer)
        if not (math.isfinite(given) and 0 <= given <= 1):
            raise ScoreRejected(f"the score {given!r} is not from 0 to 1")
        return cls(float(given), reason)


def _no_score(answer: Any) -> ScoreRejected:
    return ScoreRejected(f"the evaluator answered {repr_short(answer)}, which is not a score")


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """What scores outputs: a model that judges, a callable, or an expression; exactly one of them."""

    name: str
    """An identifier."""
    judge: str | None = None
    """What a good output is, in words for the model."""
    model: str | None = None
    """The model that judges."""
    model_settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of that model."""
    call: str | None = None
    """`module:callable`."""
    expr: str | None = None
    """An expression over `input`, `output`, `expected` and `metadata`."""

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.judge, self.call, self.expr)) != 1:
            raise PipelineError(
                f"evaluator {self.name!r} needs one of `judge`, `call` and `expr`",
                hint='write for instance `expr = "size(output) < 400"`',
            )
        if self.judge is not None and self.model is None:
            raise PipelineError(
                f"evaluator {self.name!r} has no model that judges",
                hint='write `model = "provider:model"` in its table, or under [evaluation] for all',
            )

    @cached_property
    def version(self) -> str:
        """The digest of its prompt and model, its callable's name, or its expression; not of its name."""
        own = {name: value for name, value in self.to_json().items() if name != "name"}
        return canonical.digest(canonical.encode(own))

    @property
    def by(self) -> str:
        """Who scores: the model, the callable, or the expression."""
        return self.model or self.call or f"{{{{ {self.expr} }}}}"

    def to_json(self) -> dict[str, Any]:
        """Return its definition, which the runs that it executes pin."""
        names = ("name", "judge", "model", "model_settings", "call", "expr")
        return {name: value for name in names if (value := getattr(self, name))}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Evaluator:
        """Return the evaluator that `to_json` wrote."""
        return cls(**data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One score of one output, as it is stored; or why there is none."""

    key: str
    """Unique: the run that evaluated, or an id of the rating. A later one with the same key replaces it."""
    run_id: RunId
    """The run whose output is scored."""
    path: StepPath = ROOT
    """The step whose output is scored; the root for that of the run."""
    pipeline: str
    closure: str
    """What that run has pinned."""
    lock_digest: str | None = None
    user_id: str | None = None
    evaluator: str
    version: str = ""
    """The digest of the evaluator's prompt, code reference or expression; empty for a person."""
    score: float | None = None
    """From 0 to 1; None when there is an `error`."""
    reason: str | None = None
    error: str | None = None
    """Why the evaluator has given no score."""
    by: str
    """A model, a callable, an expression, or a person."""
    cost_micro_usd: int | None = None
    """What it cost, in millionths of a dollar; None when that is unknown."""
    created_at: float = 0.0
    """Seconds since the epoch, by the store's clock once it is stored."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationQuery:
    """A filter for evaluations: all given conditions must match."""

    run_id: RunId | None = None
    path: StepPath | None = None
    pipeline: str | None = None
    evaluator: str | None = None
    lock: str | None = None
    """The beginning of the digest of a lock."""
    below: float | None = None
    """Only scores lower than this; evaluations without a score do not match."""
    since: float | None = None
    """The earliest time, in seconds since the epoch."""
    until: float | None = None
    """The time before which it must be."""
    limit: int = 100


def evaluation_id(run_id: RunId, path: StepPath, evaluator: str) -> RunId:
    """Return the id of the run that evaluates an output; the same for each repetition."""
    digest = hashlib.sha256(f"{run_id}|{path}|{evaluator}".encode()).digest()
    return cast("RunId", EVALUATION_ID + base64.b32encode(digest).decode().lower()[:26])


def is_sampled(run_id: RunId, rate: float) -> bool:
    """Return whether a run is one of the share `rate` that is evaluated; always the same for one run."""
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:8]) < rate * 2**64
