"""What users of the library hold in their hands: contexts, resources, limits and results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, PrivateAttr

from flujo.domain.journal import ErrorInfo, RunId
from flujo.domain.run import Pause, RunStatus
from flujo.domain.usage import NOTHING, Usage

Out = TypeVar("Out")
Ctx = TypeVar("Ctx", bound="PipelineContext")
T = TypeVar("T")


class PipelineContext(BaseModel):
    """The typed state of a run: extend it with fields; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class AppResources(BaseModel):
    """What steps need from the application (pools, clients): handed in by type, never journaled."""

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")


class ContextReference(BaseModel, Generic[T]):
    """A pointer to a large value that a state provider keeps outside the database."""

    provider_id: str
    key: str
    sha256: str | None = None
    size: int | None = None


class StepResult(BaseModel):
    """One step of a finished or paused run, as the journal has it."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    path: str
    kind: str
    status: Literal["completed", "failed", "skipped", "paused", "running"]
    attempt: int = 1
    output: Any = None
    error: ErrorInfo | None = None
    usage: Usage = NOTHING
    seconds: float = 0.0


class PipelineResult(BaseModel, Generic[Out, Ctx]):
    """How a run came out."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    run_id: RunId
    status: RunStatus
    output: Out | None = None
    context: Ctx | None = None
    steps: tuple[StepResult, ...] = ()
    usage: Usage = NOTHING
    error: ErrorInfo | None = None
    pauses: tuple[Pause, ...] = ()
    """The open questions of a paused run."""

    _cause: BaseException | None = PrivateAttr(default=None)

    @property
    def success(self) -> bool:
        """Whether the run completed."""
        return self.status is RunStatus.COMPLETED

    @property
    def cause(self) -> BaseException | None:
        """The exception behind `error`, in the process where the step failed."""
        return self._cause


Metadata = Mapping[str, str | int | float | bool | None]
