"""The state of one attempt of a leaf step, from its input to its journal entry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flujo.domain.fast_dataclass import constructor
from flujo.domain.journal import EntryKind
from flujo.domain.usage import NOTHING, Usage

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Mapping

    from flujo.domain import merge
    from flujo.domain.models import PipelineContext
    from flujo.domain.paths import StepPath
    from flujo.domain.personal_data import Pii
    from flujo.domain.run import Child, Intent
    from flujo.domain.steps import BaseStep
    from flujo.domain.threads import Exchange
    from flujo.domain.transactions import Transaction
    from flujo.engine.attachments import Attachments
    from flujo.engine.frame import Frame
    from flujo.engine.step_meter import StepMeter


class Leaf:
    """The facts about a leaf step that its entries need, found out once: attributes of steps are slow."""

    __slots__ = ("evaluates", "kind", "masking", "output_name", "saves", "step", "thread", "waits")

    def __init__(self, step: BaseStep) -> None:
        self.step = step
        self.kind = step.kind
        self.saves = bool(step.save)
        self.evaluates = bool(step.evaluators)
        self.thread = step.joins
        self.masking: Pii | None = step.masking
        self.waits = step.config.durability != "exit"
        """Whether each entry is committed before the next step."""
        self.output_name = f"output of step {step.name!r}"
        """The name of its output in errors."""


@dataclass(slots=True)
class Attempt:
    """The values that the layers around a call prepare, and the results of the call."""

    step: BaseStep
    frame: Frame
    path: StepPath
    number: int = 1
    kind: EntryKind = EntryKind.WORK
    started_at: float = 0.0

    # prepared by the layers
    clocks: tuple[asyncio.Timeout, ...] = ()
    """The attempt's timeout, if it has one; it is suspended while a watcher handles an event."""
    meter: StepMeter | None = None
    """Reserves the attempt's requests; None when nothing is limited."""
    context: PipelineContext | None = None
    """A view of the context for this attempt; None when the step needs none."""
    input: bytes | None = None
    files: Attachments | None = None
    """The files for the model; None when the step sends none."""
    check: Callable[[Any], Awaitable[Any]] | None = None
    """Processes and checks every answer; None when the step needs neither."""
    history: tuple[Exchange, ...] = ()
    """The exchanges of the step's thread before this one."""
    intent: Intent | None = None
    """The intent of the call, when `enforce_idempotency` is set."""
    repeats_doubt: bool = False
    """Whether the call is in doubt from an earlier sending under the same key."""

    transaction: Transaction | None = None
    """The transaction that a tool writes in, until it is committed or rolled back."""

    child: Child | None = None
    """The background task that the step launches with its entry."""

    # brought by the call
    output: Any = None
    is_passed: bool = False
    """Whether the last answer has passed `check`."""
    tree: Any = None
    """The context's tree after the processors of the accepted answer."""
    patch: merge.Patch | None = None
    usage: Usage = NOTHING
    detail: Mapping[str, Any] | None = None
    """The detail of the entry; `note` adds to it."""
    usual_detail: bytes | None = None
    """The detail as JSON, while nothing is noted beyond that of every attempt of the step."""
    is_settled: bool = False
    """Whether the attempt's entry is in the journal, so that a later error does not cause another attempt."""

    def roll_back(self) -> None:
        """Undo what a tool wrote in a transaction that is not committed, and forget that it was called."""
        if self.transaction is not None:
            self.transaction.roll_back()
            self.transaction = self.intent = None
            self.frame.run.journal.go_on(self)

    def note(self, detail: dict[str, Any]) -> None:
        """Add to the detail of the attempt's entry."""
        self.detail, self.usual_detail = {**(self.detail or {}), **detail}, None


new_attempt = constructor(Attempt)
"""Creates `Attempt`."""
