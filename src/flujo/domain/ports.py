"""Protocols of the packages' dependencies; `services/workspace.py` supplies the implementations."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from flujo.domain.store import CacheBackend as CacheBackend  # the documented place of both
from flujo.domain.store import StateStore as StateStore

if TYPE_CHECKING:
    from flujo.domain.agents import AgentSpec, Ask, Reply
    from flujo.domain.current_step import CurrentStep
    from flujo.domain.events import Event
    from flujo.domain.executor import Placed
    from flujo.domain.journal import CodeFrame, Entry, ErrorInfo, RunId
    from flujo.domain.model_requests import ModelRequest
    from flujo.domain.models import PipelineContext
    from flujo.domain.personal_data import Pii
    from flujo.domain.pipeline import BaseStep, Pipeline
    from flujo.domain.remote_work import RemoteWork
    from flujo.domain.run import RunStatus
    from flujo.domain.usage import Usage
    from flujo.domain.values import CallableRef, Expr, Text

Chain = tuple[str, ...]
"""A dotted name in an expression: `("steps", "sort", "output", "label")`."""

Lookup = Callable[[Chain], Any]
"""Returns the value of a chain; raises KeyError when there is none."""

Locate = Callable[[BaseException], "tuple[CodeFrame, str] | None"]
"""Returns where the code of the user raised an error, and the traceback; None if it was not involved.

It is called with errors of foreign code, and raises nothing itself."""

Sink = Callable[["Event"], Awaitable[None]]
"""Receives the events of a run; a slow listener slows the run."""


Feed = Callable[["Event"], None]
"""Notes the events of a run for those who follow it elsewhere. It neither waits nor raises."""


class Observer(Protocol):
    """Observes one execution of a run for telemetry. Its methods never wait and never raise."""

    def learned(self, entries: Sequence[Entry]) -> None:
        """Note entries of earlier executions, which the walk has read."""
        ...

    def recorded(self, entry: Entry) -> None:
        """Note a new entry."""
        ...

    def requested(self, step: CurrentStep, number: int, request: ModelRequest) -> None:
        """Note a request to a model; `number` counts the requests of an attempt from 1."""
        ...

    def traceparent(self, step: CurrentStep, number: int) -> str | None:
        """Return the W3C `traceparent` of the span of a unit that is sent to a worker; None without one.

        `number` counts the units of an attempt from 1.
        """
        ...

    def worked(self, step: CurrentStep, work: RemoteWork) -> None:
        """Note a unit that a worker has executed."""
        ...

    def enter(self, step: CurrentStep) -> Callable[[], None]:
        """Make the step known to code that is called in this context, and return what undoes it."""
        ...

    def ended(self, status: RunStatus, error: ErrorInfo | None, usage: Usage) -> None:
        """Note the end of the execution."""
        ...


class Clock(Protocol):
    """A source of time."""

    def now(self) -> float:
        """Seconds since the epoch; for display, never for leases."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go backwards; for durations."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class Random(Protocol):
    """A source of ids and randomness."""

    def run_id(self) -> RunId:
        """Return a new id that cannot be guessed: at least 80 random bits."""
        ...

    def fraction(self) -> float:
        """Return a number in [0, 1)."""
        ...


class Evaluator(Protocol):
    """A compiled expression or text."""

    source: str
    reads: tuple[Chain, ...]
    """The chains that it reads: everything it can depend on."""

    def __call__(self, lookup: Lookup) -> Any:
        """Return the value, as JSON data.

        Raises:
            ExpressionFailed: with the expression and the reason.
        """
        ...


@runtime_checkable
class Agent(Protocol):
    """Answers a step: a model, a callable or a script."""

    wants_context: bool
    """Whether an attempt needs a context of its own (a callable with a `context` parameter)."""

    def ask(self, ask: Ask) -> Coroutine[Any, Any, Reply]:
        """Answer once. An exception fails the attempt; a `ControlSignal` stops the run.

        Raises:
            AgentError: the agent failed.
        """
        ...


@runtime_checkable
class PreparedAgent(Agent, Protocol):
    """An agent that needs something before it can answer, such as the weights of a local model."""

    async def prepare(self) -> None:
        """Download what it needs, before the step's timeout starts.

        Raises:
            AgentError: the download failed.
        """
        ...


@runtime_checkable
class SecretsReader(Protocol):
    """A tool that may need secrets, or an agent with such tools."""

    def read_secrets(self, environment: Mapping[str, str]) -> None:
        """Read them, when a runner is built.

        Raises:
            SecretNotSet: a variable is not set, or too short to be hidden.
        """
        ...


@runtime_checkable
class CheckedAgent(Agent, Protocol):
    """An agent that can refuse a request before it does anything."""

    def check_arguments(self, ask: Ask) -> None:
        """Raise what `ask` would raise before it calls anything.

        Raises:
            AgentError: the request does not match the parameters.
        """
        ...


class Schema(Protocol):
    """A compiled JSON Schema."""

    def check(self, value: Any, *, what: str) -> Any:
        """Return `value`, which must match, with its numbers in their declared types.

        Raises:
            OutputRejected: with `what`, the place in the value, and the reason.
        """
        ...

    def coerced(self, value: Any) -> tuple[Any, tuple[str, ...]]:
        """Return `value`, with wrong types corrected if it then fits, and a note for each change."""
        ...


class ContextType(Protocol):
    """Creates, loads, dumps and checks a pipeline's context."""

    declared: Any
    """The class or schema of its fields; None when it has none. Equal keys mean equal contexts."""

    pii: Mapping[str, Pii]
    """The fields that declare whether their personal data is masked."""

    async def start(self, given: Mapping[str, Any]) -> Any:
        """Return the JSON tree at the start of a run: defaults and given values; large ones are stored apart.

        Raises:
            InputRejected: a field is unknown or missing, or a value does not match.
            ProviderNotGiven | ProviderFailed | ReferenceMissing: the value of a reference cannot be read.
        """
        ...

    def load(self, tree: Any) -> PipelineContext:
        """Return a new context object."""
        ...

    def view(self, tree: Any) -> PipelineContext:
        """Return a context object whose fields are loaded on first access."""
        ...

    def dump(self, context: PipelineContext) -> Any:
        """Return the tree of a context object; untouched fields of a view keep the original values.

        The types are JSON types, but values are not checked: a number may be infinite or NaN.
        """
        ...

    def check(self, tree: Any, *, what: str, changed: Collection[str] | None = None) -> Any:
        """Return a tree in which only the fields `changed` are new, with these in their declared types.

        Raises:
            OutputRejected: with `what`, the field, and the reason.
        """
        ...


class Binding(Protocol):
    """A runnable tree: everything that it names is imported and compiled once."""

    async def prepare(self) -> None:
        """Download what its agents need, before any step's timeout starts.

        Raises:
            AgentError: a download failed.
        """
        ...

    def evaluator(self, what: Expr | Text) -> Evaluator:
        """Return the compiled expression or text."""
        ...

    def agent(self, who: AgentSpec | CallableRef) -> Agent:
        """Return the agent for this step."""
        ...

    def placed(self, step: BaseStep) -> Placed | None:
        """Return the executor of a step's callable; None for this process."""
        ...

    def schema(self, schema: Any) -> Schema:
        """Return the compiled JSON Schema."""
        ...

    def identity(self, who: AgentSpec | CallableRef) -> Any:
        """Return what the answers of an agent, a callable or a class depend on, as JSON data.

        Raises:
            NotCacheable: it depends on an object that cannot be compared by value.
        """
        ...

    def identity_of_resources(self, resources: Any, who: CallableRef) -> Any:
        """Return what of the resources decides the answers of a callable that takes them, as JSON data.

        Raises:
            NotCacheable: the resources do not declare it.
        """
        ...

    def context(self, pipeline: Pipeline) -> ContextType:
        """Return the context handling of this pipeline."""
        ...
