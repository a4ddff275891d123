"""The events of a run, for hooks, streams and progress."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from flujo.domain.fast_dataclass import constructor, record
from flujo.domain.journal import ErrorInfo, RunId
from flujo.domain.outcomes import StepOutcome, Success
from flujo.domain.paths import StepPath
from flujo.domain.run import RunStatus
from flujo.domain.usage import NOTHING, Usage

Hook = TypeVar("Hook", bound=Any)


@record(frozen=True, slots=True)
class RunStarted:
    """The run is accepted or claimed; its id is known from now on."""

    run_id: RunId
    pipeline: str
    resumed: bool = False


@record(frozen=True, slots=True)
class StepStarted:
    """A step, or another attempt of it, has started."""

    path: StepPath
    kind: str
    attempt: int = 1
    tool: str | None = None
    """The name of the tool, if it is a call that a model has requested."""


@record(frozen=True, slots=True)
class StepEnded:
    """A step has ended and its entry is committed; `recorded` when the entry was already in the journal."""

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
        """Whether the answer came from a cache, so that the step was not executed."""
        return isinstance(self.outcome, Success) and self.outcome.facts.get("cached") is True


new_step_ended = constructor(StepEnded)
"""Creates `StepEnded`."""


@dataclass(frozen=True, slots=True)
class StepRetried:
    """An attempt has failed; the next one follows after `delay_s`."""

    path: StepPath
    attempt: int
    error: ErrorInfo
    delay_s: float


@dataclass(frozen=True, slots=True)
class ItemsKept:
    """A resumed map has found recorded items, which are not executed again; `count` is how many so far."""

    path: StepPath
    count: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of text from a model, as it arrives. Provisional: it is not recorded."""

    path: StepPath
    attempt: int
    text: str


@record(frozen=True, slots=True)
class RunEnded:
    """This execution of the run has ended and is recorded: completed, failed, paused or cancelled."""

    run_id: RunId
    status: RunStatus
    usage: Usage = NOTHING
    """The usage of the run so far, in all its executions."""


Event = RunStarted | StepStarted | StepEnded | StepRetried | ItemsKept | Chunk | RunEnded


def external_hook(hook: Hook) -> Hook:
    """Mark a hook whose events leave the process: outputs and questions in them are masked like printed ones.

    Without the mark, a hook gets the outputs of steps as they are.

    Args:
        hook: an async callable; it is returned, so that the function is a decorator.
    """
    hook.is_external = True
    return hook
