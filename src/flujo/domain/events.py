"""What happens in a run, as hooks, streams and progress see it."""

from __future__ import annotations

from dataclasses import dataclass

from flujo.domain.fast_dataclass import record
from flujo.domain.journal import ErrorInfo, RunId
from flujo.domain.outcomes import StepOutcome, Success
from flujo.domain.paths import StepPath
from flujo.domain.run import RunStatus
from flujo.domain.usage import NOTHING, Usage


@record(frozen=True, slots=True)
class RunStarted:
    """The run is accepted or claimed: from here on its id can be shown."""

    run_id: RunId
    pipeline: str
    resumed: bool = False


@record(frozen=True, slots=True)
class StepStarted:
    """A step, or a further attempt of it, has begun."""

    path: StepPath
    kind: str
    attempt: int = 1


@record(frozen=True, slots=True)
class StepEnded:
    """A step has come out and its entry is committed; `recorded` when the journal knew it already."""

    path: StepPath
    kind: str
    outcome: StepOutcome
    seconds: float = 0.0
    usage: Usage = NOTHING
    attempt: int = 1
    recorded: bool = False
    model: str | None = None

    @property
    def cached(self) -> bool:
        """Whether the step was not run, because a cache had its answer."""
        return isinstance(self.outcome, Success) and self.outcome.facts.get("cached") is True


@dataclass(frozen=True, slots=True)
class StepRetried:
    """An attempt has failed and another one follows after `delay_s`."""

    path: StepPath
    attempt: int
    error: ErrorInfo
    delay_s: float


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of text from a model, as it arrives. Provisional: nothing of it is recorded."""

    path: StepPath
    attempt: int
    text: str


@record(frozen=True, slots=True)
class RunEnded:
    """This execution of the run is over and recorded: it completed, failed, waits, or was cancelled."""

    run_id: RunId
    status: RunStatus
    usage: Usage = NOTHING
    """What the run has used so far, in all its executions."""


Event = RunStarted | StepStarted | StepEnded | StepRetried | Chunk | RunEnded
