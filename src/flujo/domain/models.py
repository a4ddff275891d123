"""The models of the Python API: contexts, resources, references, limits and results."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    PrivateAttr,
)
from typing_extensions import TypeVar  # with defaults, which `typing` has since 3.13

from flujo.domain.context_references import ContextReference as ContextReference  # the manual's import path
from flujo.domain.journal import ErrorInfo, RunId
from flujo.domain.run import Intent, Pause, RunStatus
from flujo.domain.usage import NOTHING, Usage
from flujo.exceptions import ResourcesMissing, SettingsError

Out = TypeVar("Out", default=Any)
Ctx = TypeVar("Ctx", bound="PipelineContext", default=Any)


class PipelineContext(BaseModel):
    """The typed state of a run: extend it with fields; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)


class AppResources:
    """What steps need from the application (pools, clients): passed to callables, never journaled.

    Extend it with annotated fields. Tests may leave out unused ones: a missing field without a default is an
    error only when a step reads it.
    """

    def __init__(self, **resources: Any) -> None:
        """Set the resources by field name.

        Raises:
            SettingsError: a name is not a field.
        """
        fields = self._fields()
        for name, value in resources.items():
            if name not in fields:
                raise SettingsError(
                    f"{type(self).__name__} has no resource {name!r}",
                    hint=f"its fields are {', '.join(fields) or 'none'}",
                )
            setattr(self, name, value)

    if not TYPE_CHECKING:  # else type checkers would accept every attribute name

        def __getattr__(self, name: str) -> Any:
            if name in self._fields():
                raise ResourcesMissing(
                    f"{type(self).__name__} was created without {name!r}, which a step reads",
                    hint=f"pass it where the resources are created: {type(self).__name__}({name}=…)",
                    resource=name,
                )
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @classmethod
    def _fields(cls) -> tuple[str, ...]:
        return tuple(name for base in reversed(cls.__mro__) for name in inspect.get_annotations(base))


class StepResult(BaseModel):
    """One step of a finished or paused run, from the journal."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    path: str
    kind: str
    status: Literal["completed", "failed", "skipped", "paused", "waiting", "running"]
    attempt: int = 1
    output: Any = None
    error: ErrorInfo | None = None
    usage: Usage = NOTHING
    seconds: float = 0.0
    cached: bool = False
    """Whether the answer came from a cache, so that the step was not executed."""


class PipelineResult(BaseModel, Generic[Out, Ctx]):
    """The result of a run."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    run_id: RunId
    status: RunStatus
    output: Out = None  # type: ignore[assignment]  # typed for callers that check `success` first
    """The output of a completed run; None for any other run."""
    context: Ctx | None = None
    steps: tuple[StepResult, ...] = ()
    """The steps that ended in this execution; without those inside a map with `keep: failed` or `none`."""
    usage: Usage = NOTHING
    unconfirmed: Usage = NOTHING
    """The largest possible usage of requests that may or may not have been made; not included in `usage`."""
    error: ErrorInfo | None = None
    pauses: tuple[Pause, ...] = ()
    """The open questions and waits of a run that is paused or waits."""
    in_doubt: tuple[Intent, ...] = ()
    """The calls of a run that has stopped which were sent and whose outcome is not recorded."""
    ends_by: float | None = None
    """The deadline of the run, in seconds since the epoch by the database's clock; None without one."""
    continued_as: RunId | None = None
    """The run that continues this completed one, which a `continue_as_new` step has ended."""
    note: str = ""
    """A note: why the run was not continued in this process, or which calls a cancellation left in doubt."""

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
