"""How a step came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flujo.domain.fast_dataclass import record
from flujo.domain.journal import ErrorInfo
from flujo.domain.run import Pause


@record(frozen=True, slots=True)
class Success:
    """The step has finished; `output` is what a reader of the journal sees."""

    output: Any
    skipped: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What expressions may read beside the output: `steps.NAME.exhausted` of a loop."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The step has failed for good; `cause` is the live exception when there is one."""

    error: ErrorInfo
    cause: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Paused:
    """The step waits for humans."""

    pauses: tuple[Pause, ...]


@dataclass(frozen=True, slots=True)
class Aborted:
    """Step code asked to stop the run."""

    reason: str


@dataclass(frozen=True, slots=True)
class BackgroundLaunched:
    """The step goes on as a task of its own."""

    task_id: str


StepOutcome = Success | Failure | Paused | Aborted | BackgroundLaunched
