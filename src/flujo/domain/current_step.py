"""The step that the current code is executed for: log lines and spans of that code name it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from flujo.domain.journal import RunId
    from flujo.domain.model_requests import ModelRequest
    from flujo.domain.paths import StepPath
    from flujo.domain.remote_work import RemoteWorkListener


class CurrentStep(NamedTuple):
    """A run, and the step and the attempt in it; the empty path stands for the run itself."""

    run_id: RunId
    path: StepPath
    attempt: int = 0


CURRENT_STEP: ContextVar[CurrentStep | None] = ContextVar("CURRENT_STEP", default=None)
"""None outside of runs. It stays until the next step begins, so that what follows a step names it as well."""

ON_REQUEST: ContextVar[Callable[[ModelRequest], None] | None] = ContextVar("ON_REQUEST", default=None)
"""Called with each request to a model that the current code has made."""

ON_REMOTE_WORK: ContextVar[RemoteWorkListener | None] = ContextVar("ON_REMOTE_WORK", default=None)
"""Learns of each unit of the current code that a worker executes."""
