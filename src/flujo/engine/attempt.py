"""One attempt of a leaf step: what it is given, and everything that its entry will need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flujo.domain.journal import EntryKind
from flujo.domain.usage import NOTHING, Usage

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from flujo.domain import merge
    from flujo.domain.models import PipelineContext
    from flujo.domain.paths import StepPath
    from flujo.domain.run import Intent
    from flujo.domain.steps import BaseStep
    from flujo.engine.frame import Frame
    from flujo.engine.step_meter import StepMeter


@dataclass(slots=True)
class Attempt:
    """What the layers around a call prepare, and what the call brings."""

    step: BaseStep
    frame: Frame
    path: StepPath
    number: int = 1
    kind: EntryKind = EntryKind.WORK
    started_at: float = 0.0

    # prepared by the layers
    limit: asyncio.Timeout | None = None
    """The attempt's clock, which stands still while a watcher takes what the attempt says."""
    meter: StepMeter | None = None
    """What the attempt's requests are reserved with; None when nothing is limited."""
    context: PipelineContext | None = None
    """A view of the context for this attempt; None when nothing in it asks for one."""
    input: bytes | None = None
    check: Callable[[Any], Awaitable[Any]] | None = None
    """What every answer has to pass; None when nothing judges or changes answers."""
    intent: Intent | None = None
    """The call that was announced, when `enforce_idempotency` is set."""

    # brought by the call
    output: Any = None
    is_passed: bool = False
    """Whether the last answer has passed `check`."""
    tree: Any = None
    """The context's tree as the processors left it for the answer that passed."""
    patch: merge.Patch | None = None
    usage: Usage = NOTHING
    detail: dict[str, Any] | None = None
    is_settled: bool = False
    """Whether the attempt's entry is in the journal: what happens after that is not a further attempt."""
