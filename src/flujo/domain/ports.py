"""What the rooms need from outside themselves, as protocols; `services/workspace.py` supplies them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from flujo.domain.store import CacheBackend as CacheBackend  # the documented place of both
from flujo.domain.store import StateStore as StateStore

if TYPE_CHECKING:
    from flujo.domain.agents import AgentSpec, Ask, Reply
    from flujo.domain.events import Event
    from flujo.domain.journal import RunId
    from flujo.domain.models import PipelineContext
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.values import CallableRef, Expr, Text

Chain = tuple[str, ...]
"""A name as an expression says it: `("steps", "sort", "output", "label")`."""

Lookup = Callable[[Chain], Any]
"""Gives the value of a chain; raises KeyError when there is none."""

Sink = Callable[["Event"], Awaitable[None]]
"""Takes what happens in a run; a slow one slows the run."""


class Clock(Protocol):
    """Time, from outside."""

    def now(self) -> float:
        """Seconds since the epoch; for people, never for leases."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go backwards; for durations."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class Random(Protocol):
    """Ids and randomness, from outside."""

    def run_id(self) -> RunId:
        """Return a new id of at least 128 random bits."""
        ...

    def fraction(self) -> float:
        """Return a number in [0, 1)."""
        ...


class Evaluator(Protocol):
    """A compiled expression or text."""

    source: str
    reads: tuple[Chain, ...]
    """The chains that it asks for: everything it can depend on."""

    def __call__(self, lookup: Lookup) -> Any:
        """Return the value, as JSON data.

        Raises:
            ExpressionFailed: naming the expression and the reason.
        """
        ...


@runtime_checkable
class Agent(Protocol):
    """What answers a step: a model, a callable, a script."""

    wants_context: bool
    """Whether an attempt needs a context of its own (a callable with a `context` parameter)."""

    async def ask(self, ask: Ask) -> Reply:
        """Answer once. Anything raised is a failed attempt; `ControlSignal`s stop the run.

        Raises:
            AgentError: the agent's own failures, typed.
        """
        ...


@runtime_checkable
class PreparedAgent(Agent, Protocol):
    """An agent that needs something before it can answer, such as the weights of a local model."""

    async def prepare(self) -> None:
        """Get what it needs onto this machine, before any step's clock runs.

        Raises:
            AgentError: it cannot be had.
        """
        ...


class Schema(Protocol):
    """A compiled JSON Schema."""

    def check(self, value: Any, *, what: str) -> None:
        """Return when `value` fits.

        Raises:
            OutputRejected: naming `what`, the place in the value, and the reason.
        """
        ...


class ContextType(Protocol):
    """How a pipeline's context is started, handed out and taken back."""

    declared: Any
    """The class or schema that says its fields; None when it has none. Contexts are the same when it is."""

    async def start(self, given: Mapping[str, Any]) -> Any:
        """Return the JSON tree at the start: defaults and what was given, large values stored elsewhere.

        Raises:
            InputRejected: for an unknown or missing field, or a value that does not fit.
            ProviderNotGiven | ProviderFailed | ReferenceMissing: a reference has no value behind it.
        """
        ...

    def load(self, tree: Any) -> PipelineContext:
        """Return a context object of the caller's own."""
        ...

    def view(self, tree: Any) -> PipelineContext:
        """Return one whose fields are loaded when they are touched."""
        ...

    def dump(self, context: PipelineContext) -> Any:
        """Return the tree of a context object; of a view, what nobody touched is its tree's own.

        It is JSON data by its types, and not looked at further: a number in it may be no finite one.
        """
        ...

    def check(self, tree: Any, *, what: str, changed: Collection[str] | None = None) -> None:
        """Return when a tree still fits, of which nothing but the fields `changed` is new.

        Raises:
            OutputRejected: naming `what`, the field, and the reason.
        """
        ...


class Binding(Protocol):
    """A tree made runnable: everything it names, imported and compiled once."""

    async def prepare(self) -> None:
        """Have on this machine what its agents need, before any step's clock runs.

        Raises:
            AgentError: something cannot be had.
        """
        ...

    def evaluator(self, what: Expr | Text) -> Evaluator:
        """Return the compiled expression or text."""
        ...

    def agent(self, who: AgentSpec | CallableRef) -> Agent:
        """Return who answers."""
        ...

    def schema(self, schema: Any) -> Schema:
        """Return the compiled JSON Schema."""
        ...

    def source(self, ref: CallableRef) -> str:
        """Return a digest of a callable's source, which changes when the module it stands in does."""
        ...

    def context(self, pipeline: Pipeline) -> ContextType:
        """Return how this pipeline's context is handled."""
        ...
