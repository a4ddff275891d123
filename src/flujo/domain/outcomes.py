"""The outcomes of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flujo.domain.fast_dataclass import constructor, record
from flujo.domain.journal import ErrorInfo
from flujo.domain.run import Pause
from flujo.exceptions import PipelineAbortSignal


@record(frozen=True, slots=True)
class Success:
    """The step has completed; `output` is the value as the journal records it."""

    output: Any
    skipped: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Facts that expressions may read besides the output: `steps.NAME.exhausted` of a loop."""


new_success = constructor(Success)
"""Creates `Success`."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The step has failed after all retries; `cause` is the live exception when there is one."""

    error: ErrorInfo
    cause: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Paused:
    """The step waits for a human, or for a time."""

    pauses: tuple[Pause, ...]


@dataclass(frozen=True, slots=True)
class Aborted:
    """The step's code stopped the run, or the run was cancelled."""

    reason: str

    @property
    def error(self) -> ErrorInfo:
        """The error of a run that ends so."""
        return ErrorInfo("FLJ410", self.reason or "a step stopped the run", type=PipelineAbortSignal.__name__)


@dataclass(frozen=True, slots=True)
class BackgroundLaunched:
    """The step continues as a separate task."""

    task_id: str


@dataclass(frozen=True, slots=True)
class BegunAgain:
    """The run ends, and a new run with this input continues it."""

    input: Any


@dataclass(frozen=True, slots=True)
class Ended:
    """A step has ended the blueprint that it is written in; this is the output of that blueprint."""

    output: Any


StepOutcome = Success | Failure | Paused | Aborted | BackgroundLaunched | BegunAgain | Ended
