"""What the rooms need from outside themselves, as protocols; `services.wiring` hands in who keeps them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from flujo.domain.agents import AgentSpec, Ask, Reply
    from flujo.domain.journal import Entry, RunId, StepPath
    from flujo.domain.ledger import Ledger
    from flujo.domain.models import PipelineContext
    from flujo.domain.outcomes import Event
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.run import Due, Intent, NewRun, Pause, Progress, RunQuery, RunRecord, RunStatus, Write
    from flujo.domain.steps import CallableRef, Expr, Text
    from flujo.domain.usage import Usage

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


class Agent(Protocol):
    """Who answers a step: a model, a callable, a script."""

    wants_context: bool
    """Whether an attempt needs a context of its own (a callable with a `context` parameter)."""

    async def ask(self, ask: Ask) -> Reply:
        """Answer once. Anything raised is a failed attempt; `ControlSignal`s stop the run.

        Raises:
            AgentError: the agent's own failures, typed.
        """
        ...


class Reservation(Protocol):
    """A request to a model that the budget has room for, at its worst."""

    def settle(self, used: Usage) -> None:
        """Say what the request really used; nothing when it was never sent."""
        ...

    def lose(self, known: Usage) -> None:
        """Say that the request was sent, and that `known` is not all it cost: the rest stays held."""
        ...


class Meter(Protocol):
    """Stands between an agent and its model when a run has limits: one attempt's door to the budget."""

    @property
    def bounds_answers(self) -> bool:
        """Whether a request must have a limit on the length of its answer."""
        ...

    @property
    def refuses_unpriced(self) -> bool:
        """Whether a request whose price nobody knows must not be made."""
        ...

    async def reserve(self, worst: Usage) -> Reservation:
        """Return when there is room for a request, durable by then.

        Args:
            worst: what it uses at most.

        Raises:
            UsageLimitExceeded: there is no room; the request must not be made.
        """
        ...

    async def call_tools(self, count: int) -> None:
        """Return when tools may be called that often, counted by then.

        Raises:
            UsageLimitExceeded: they must not be called.
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


class CacheBackend(Protocol):
    """Where answers are kept beyond a run. What it raises is a miss: a cache never fails a run."""

    async def get(self, key: str) -> bytes | None:
        """Return what was put under `key`, byte for byte; None when it is not there, or not good any more."""
        ...

    async def put(self, key: str, value: bytes, *, ttl_s: float | None = None) -> None:
        """Keep a value, instead of what was there.

        Args:
            key: a digest in hexadecimal.
            value: the bytes to give back.
            ttl_s: for how many seconds from now it is good; None for as long as there is room.
        """
        ...


class StateStore(Protocol):
    """Where runs and their journals are kept. SQL, memory and replay are interchangeable behind it."""

    def accept(self, run: NewRun, blobs: Mapping[str, bytes], *, claim: bool = True) -> Awaitable[RunRecord]:
        """Record a run and the blobs it needs (digest → bytes); committed when the awaitable returns.

        With `claim` the caller owns the run at once (status `running`, a lease, fence 1), otherwise the run
        is `accepted` and free to be claimed. A returned record with `owner` of this store is claimed.

        Raises:
            RunConflict: the id is taken by a run with another closure or input.
            ResumeConflict: the id is taken by a run with this closure and input; `record` has it.
        """
        ...

    def claim(
        self, run_id: RunId, *, statuses: Sequence[RunStatus], recovering: bool = False, forced: bool = False
    ) -> Awaitable[RunRecord]:
        """Take the run over: status `running`, a lease, the fence one higher.

        At once from nobody, from an owner whose lease has lapsed, or from a process that is provably dead on
        this host. `recovering` says that nobody asked for it: `recoveries` of the record counts such claims
        from a dead owner since the run's journal last grew. Any other claim sets the count to 0. `forced`
        takes it from a living owner too, whose next write is refused.

        Raises:
            RunNotFound: there is no such run.
            ResumeConflict: somebody alive holds it (`owner`, `lease_left_s`), this store included; or its
                status is none of `statuses` (`status`).
        """
        ...

    def write(self, write: Write) -> Awaitable[bool]:
        """Enqueue a write; the awaitable returns when it is committed. Writes of one run keep their order.

        Cancelling the waiter does not take the write back.

        Returns:
            For a write with a `move`: whether a question of the run was settled since it was claimed, so
            that a run which just paused can go on at once.

        Raises (from the awaitable):
            Fenced: the fence is not the run's any more; nothing was written.
            StateBackendUnavailable | StateBackendFull: nothing was written.
        """
        ...

    def may_begin(self, run_id: RunId) -> bool:
        """Return whether work of a run may begin at once: by this process's own clock its lease still lasts.

        If not, somebody else may have the run. A `write` of nothing finds out: it renews the lease, or is
        refused as `Fenced`.
        """
        ...

    def let_go(self, run_id: RunId) -> None:
        """Stop holding a run whose release could not be written.

        This store may claim it again at once, anybody else after the lease.
        """
        ...

    async def run(self, run_id: RunId) -> RunRecord:
        """Return a run.

        Raises:
            RunNotFound: there is none.
        """
        ...

    async def find(self, text: str) -> RunRecord:
        """Return the run that a user means: an id, a unique prefix of one, or `@last`.

        Raises:
            RunNotFound: none or several fit; the message lists the candidates.
        """
        ...

    async def runs(self, query: RunQuery) -> list[RunRecord]:
        """Return the runs that fit, newest first.

        Raises:
            SettingsError: a metadata key that is no identifier.
        """
        ...

    async def entries(self, run_id: RunId, *, parent: StepPath | None = None) -> list[Entry]:
        """Return the journal in order: all of it, or the level right below `parent`.

        Raises:
            CorruptState: an entry's digest differs, or (for the whole journal) one is missing.
        """
        ...

    async def progress(self, run_id: RunId) -> Progress:
        """Return how far the run is: where its journal ends, its usage, what a walk reads first."""
        ...

    async def ledger(self, run_id: RunId) -> Ledger:
        """Return what each attempt used and when, and what is held back of the run's budget."""
        ...

    async def pauses(self, run_id: RunId) -> list[Pause]:
        """Return the questions of a run, in the order in which they were asked."""
        ...

    async def intents(self, run_id: RunId) -> list[Intent]:
        """Return the calls that a run has announced, in the order in which they were sent last."""
        ...

    async def answer(self, run_id: RunId, pause_id: StepPath, answer: bytes) -> Pause:
        """Record a human's answer; the first one wins.

        Raises:
            RunNotFound: no such pause (`hint` lists the open ones).
            ResumeConflict: it is answered already with something else, void, or its deadline has passed and
                was acted on. The same answer again is fine.
        """
        ...

    async def due(
        self, *, closures: Collection[str] | None = None, without: Collection[str] = (), limit: int = 100
    ) -> Due:
        """Return what waits for somebody alive, by the store's clock, at most `limit` of each.

        Args:
            closures: only runs that have pinned one of these; None for any. Questions are of all runs.
            without: no runs that have pinned one of these.
            limit: how many questions and how many runs.
        """
        ...

    async def expire(self, run_id: RunId, pause_id: StepPath) -> Pause:
        """Settle a question whose deadline has passed; an answer that came first stays.

        Returns:
            The question as it is now: `is_expired`, or answered, void, or open because it is not time yet.

        Raises:
            RunNotFound: no such question.
        """
        ...

    async def blobs(self, digests: Sequence[str]) -> dict[str, bytes]:
        """Return content-addressed blobs.

        Raises:
            CorruptState: a blob is missing or its bytes differ from its digest.
        """
        ...

    async def aclose(self) -> None:
        """Write what is enqueued, give back what is held, close. Idempotent."""
        ...
