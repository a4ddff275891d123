"""A frame: the values that one body of steps can read, and its place. Steps exchange data only through it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from flujo.domain import canonical, merge
from flujo.domain.agents import Ask
from flujo.domain.fast_dataclass import constructor
from flujo.domain.paths import ROOT, StepPath, child
from flujo.domain.personal_data import texts_of
from flujo.domain.steps import CallableRef, Expr, Text
from flujo.engine.foreign_code import Wish, call_code
from flujo.engine.journal import encoded
from flujo.engine.known_batches import KnownMaps
from flujo.governance.sink import GATE

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from flujo.domain.agents import AgentSpec, Reply
    from flujo.domain.current_step import CurrentStep
    from flujo.domain.events import Event, StepEnded
    from flujo.domain.journal import RunId, Transcripts
    from flujo.domain.outcomes import StepOutcome, Success
    from flujo.domain.personal_data import Pii, Pseudonyms
    from flujo.domain.pipeline import Ends, Pipeline
    from flujo.domain.ports import Binding, Chain, Clock, Feed, Observer, Random, Sink
    from flujo.domain.run import Child, Launches
    from flujo.domain.steps import BaseStep, Save, Value
    from flujo.domain.threads import Exchange
    from flujo.engine.answer_cache import AnswerCache
    from flujo.engine.budget import Budget
    from flujo.engine.context_isolation import ContextScope
    from flujo.engine.journal import Journal
    from flujo.engine.places import Place

    Work: TypeAlias = Callable[["Frame", StepPath], Awaitable[StepOutcome]]
    """Executes a step at a path."""

T = TypeVar("T")

RANGE_LENGTH = 1000
"""How many items of a map share an entry once they have ended."""

_NO_NAMES: Mapping[str, Any] = MappingProxyType({})


class RunBody(Protocol):
    """Runs a body. Composite steps take it as an argument, so that they never import the interpreter."""

    def __call__(self, body: Pipeline, frame: Frame) -> Awaitable[StepOutcome]:
        """Return the outcome of the body in its frame."""
        ...


class RecordedLeaves(Protocol):
    """Ends the leaf steps of a replay, in place of agents, callables and background tasks."""

    def perform(self, call: Any, frame: Frame, path: StepPath) -> Awaitable[StepOutcome]:
        """Return the recorded outcome of a step, a turn, a summary or a tool call; `call` is a `LeafCall`."""
        ...

    def awaited(self, step: BaseStep, ids: bytes, frame: Frame, path: StepPath) -> Awaitable[StepOutcome]:
        """Return the recorded outcome of an `await` step; `ids` are the tasks that it awaits now."""
        ...

    def launched(self, path: StepPath) -> Any:
        """Return the launch that a fork has in common with its parent, whose task it is; None for another."""
        ...

    def decided(self, path: StepPath) -> tuple[Any, Mapping[str, Any]] | None:
        """Return the arguments and the details of a call that a human has decided about; None for another."""
        ...

    def saved(self, path: StepPath, field: str, save: Save, frame: Frame) -> Any:
        """Return the recorded value of a `save:` of the step at `path` that a callable gives."""
        ...


@dataclass(slots=True)
class PlannedStep:
    """A step of a body, with everything about it that no run changes."""

    step: BaseStep
    name: str
    kind: str
    segment: StepPath
    """The step's name in a path, and its path in the body of the run."""
    facts: Mapping[str, Any]
    """The default facts beside its output."""
    work: Work
    is_background: bool = False
    ends_run: bool = False
    """Whether a new run continues this one after the step."""
    ends: Ends | None = None
    """What the step ends before the last step of it."""


class Plans:
    """The planned bodies of one bound pipeline, each planned at its first execution."""

    __slots__ = ("_bodies", "riding")

    def __init__(self) -> None:
        # By identity, because comparing trees by value is slow. A body is kept, so that its id stays taken.
        self._bodies: dict[int, tuple[Pipeline, Sequence[PlannedStep]]] = {}
        self.riding: frozenset[int] | None = None
        """The ids of the pipeline's own steps whose entries need no commit of their own, once it is known."""

    def of(self, body: Pipeline, plan: Callable[[Pipeline], Sequence[PlannedStep]]) -> Sequence[PlannedStep]:
        """Return the planned steps of a body of the pipeline; `plan` makes them."""
        known = self._bodies.get(id(body))
        if known is None:
            known = self._bodies[id(body)] = body, plan(body)
        return known[1]


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Why a run is to be cancelled, and the context that its steps have left."""

    reason: str
    tree: Any


@dataclass(slots=True)
class Run:
    """The values that all frames of one run share: its identity, its journal, and its ports."""

    id: RunId
    started_at: float
    binding: Binding
    journal: Journal
    clock: Clock
    random: Random
    plans: Plans
    resources: Any = None
    cache: AnswerCache | None = None
    """The cache of answers; None executes cached steps every time."""
    sink: Sink | None = None
    feed: Feed | None = None
    """Set while the run is followed from elsewhere; it never changes what the run commits, as a sink does."""
    observer: Observer | None = None
    """Telemetry of this execution; None for none."""
    retry_failed: bool = False
    """Whether steps that failed before this execution get all their attempts again."""
    accept_changes: bool = False
    """Whether a conversation continues with an agent that has changed."""
    ended: list[StepEnded] = field(default_factory=list)
    """The steps that ended in this execution, in order."""
    wish: Wish = field(default_factory=Wish)
    """The wish to stop this execution before the run's end."""
    cancelled: Cancelled | None = None
    """Set when the run is to be cancelled, so that only its `finally` is executed."""
    range_length: int = RANGE_LENGTH
    """`RANGE_LENGTH`, or fewer items in tests."""
    known_maps: KnownMaps = field(default_factory=KnownMaps)
    """What this process knows about the batches of maps over workers."""
    transcripts: Transcripts = "full"
    """The transcripts of attempts that are kept."""
    called: CurrentStep | None = None
    """The attempt whose code was called last."""
    exchanges: dict[StepPath, Exchange] = field(default_factory=dict)
    """The exchanges of threads that were read in this execution, by the path of their step."""
    launches: Launches | None = None
    """What background tasks of the run have in common with it; None where none can be launched."""
    evaluations: Callable[[BaseStep, StepPath, bytes | None, bytes], Sequence[Child]] | None = None
    """Returns the runs that score the output of a step, from its path, its input and its output as JSON; None
    where no output of this run is scored."""
    input_schema: Any = None
    """What an input of a run of this pipeline must fit."""
    life_of: Callable[[Any], float | None] | None = None
    """Returns how long a run of this pipeline may last, from its input; raises `InputRejected`."""
    recorded: RecordedLeaves | None = None
    """Set in a replay, which makes no call and knows no time limit."""
    pii: Pii | None = None
    """`tokenise` where the project tokenises requests; None where `GATE` decides."""
    pseudonyms: Pseudonyms | None = None
    """Makes the pseudonyms of this run; None where the storage of runs encrypts nothing."""
    is_broken: bool = False
    """Whether an error has ended a part of this execution, so that the other parts must stop."""

    def must_stop(self, *_: asyncio.Timeout) -> bool:
        """Return whether no further step of this run may begin; an event has no time limit."""
        return self.is_broken or self.wish.is_there() or self.journal.broken is not None

    async def emit(self, event: Event) -> None:
        """Send an event to the watchers; a slow watcher slows the run."""
        if self.sink is not None:
            await call_code(_sent(self.sink, event), self, "a hook")


@dataclass(slots=True)
class Frame:
    """The scope of one body: its own steps first, then those of the enclosing bodies.

    Values in a frame are shared JSON trees; foreign code gets copies.
    """

    run: Run
    scope: ContextScope
    input: Any
    previous: Any
    path: StepPath = ROOT
    outer: Frame | None = None
    names: Mapping[str, Any] = field(default_factory=lambda: _NO_NAMES)
    """Other names of this body: `loop` in a loop, `item` and `index` in a map."""
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    since: int = 0
    """Failures up to this `seq` do not count, because an enclosing composite has started another attempt."""
    limits: tuple[asyncio.Timeout, ...] = ()
    """The timeouts of the enclosing composites."""
    budget: Budget | None = None
    """The budget of this body; None when nothing is limited."""
    place: Place | None = None
    """The place of the concurrent branch that this body is in; None outside of one."""
    is_listed: bool = True
    """Whether the run's result lists the steps of this body."""
    riding: frozenset[int] = frozenset()
    """The ids of steps whose entries need no commit of their own; see `Plans`."""
    input_pii: Mapping[str, Pii] = field(default_factory=lambda: _NO_NAMES)
    """The fields of the input that declare whether their personal data is masked."""
    first: int | None = None
    """Of a run that executes a batch of a map: the number of the first of its items, which are `previous`."""
    written: tuple[Any, bytes] | None = None
    """The newest output of a leaf step of this body, and its JSON."""

    @property
    def is_out_of_time(self) -> bool:
        """Whether an enclosing composite has used up its `timeout_s`."""
        return any(limit.expired() for limit in self.limits)

    def must_stop(self, *clocks: asyncio.Timeout) -> bool:
        """Return whether nothing further may begin here: the run is stopped, or a time limit has passed."""
        if self.run.must_stop():
            return True
        limits = (*self.limits, *clocks) if self.limits else clocks
        return bool(limits) and any(limit.expired() for limit in limits)

    def require_going(self, clocks: tuple[asyncio.Timeout, ...] = ()) -> None:
        """End this part of the run with `CancelledError` when nothing further may begin in it."""
        if self.run.must_stop() or ((clocks or self.limits) and self.must_stop(*clocks)):
            raise asyncio.CancelledError

    def ask(
        self, path: StepPath, who: AgentSpec | CallableRef, question: Ask, *clocks: asyncio.Timeout
    ) -> Awaitable[Reply]:
        """Ask an agent or a callable on behalf of the step at `path`; see `call_code`."""
        self.require_going(clocks)
        return call_code(self.run.binding.agent(who).ask(question), self, path, clocks)

    def call(self, path: StepPath, work: Coroutine[Any, Any, T], *clocks: asyncio.Timeout) -> Awaitable[T]:
        """Await foreign code on behalf of the step at `path`; see `call_code`."""
        return call_code(work, self, path, clocks)

    async def tell(self, event: Event, *clocks: asyncio.Timeout) -> None:
        """Send an event to the watchers, with all timeouts suspended: a slow watcher is not a slow step."""
        if self.run.feed is not None:
            self.run.feed(event)
        if self.run.sink is None:
            return
        with ExitStack() as stack:
            for clock in (*self.limits, *clocks):
                stack.enter_context(standing_still(clock))
            await self.run.emit(event)

    def inside(self, path: StepPath, *, previous: Any, names: Mapping[str, Any] | None = None) -> Frame:
        """Return the frame of a body of this frame's step at `path`."""
        return new_frame(
            self.run,
            self.scope,
            self.input,
            previous,
            path=path,
            outer=self,
            names=names or _NO_NAMES,
            since=self.since,
            limits=self.limits,
            budget=self.budget,
            place=self.place,
            is_listed=self.is_listed,
            input_pii=self.input_pii,
        )

    def fork(
        self, path: StepPath, place: Place, *, previous: Any, names: Mapping[str, Any] | None = None
    ) -> Frame:
        """Return the frame of a concurrent branch, whose writes to the context do not affect this frame."""
        inner = self.inside(path, previous=previous, names=names)
        inner.scope, inner.place = self.scope.fork(), place
        return inner

    def advance(self, each: PlannedStep, completed: Success) -> None:
        """Make a completed step visible as `steps.NAME` and as `previous`."""
        self.previous = output = completed.output
        facts: dict[str, Any] = {"output": output}
        if each.facts or completed.facts:
            facts |= {**each.facts, **completed.facts}
        self.steps[each.name] = facts

    def recorded(self, path: StepPath, kind: str) -> Success | None:
        """Return the recorded outcome at `path`, after applying its patch to this context.

        Raises:
            JournalConflict: the journal has another kind of step there.
        """
        return self.run.journal.recorded(path, kind, self.scope)

    def encoded(self, value: Any, what: str) -> bytes:
        """Return a value for the journal; the newest output, often the next input, is not encoded again.

        Raises:
            NotJournalable: it is not JSON.
            SecretInValue: it contains a known secret.
        """
        if self.written is None or self.written[0] is not value:
            return encoded(value, what)
        return GATE.admit(self.written[1], what) if GATE.knows_secrets else self.written[1]

    def decoded(self, data: bytes) -> Any:
        """Return the value of journal data; the newest output is not decoded again if it is a text."""
        if self.written is not None and self.written[1] is data:
            return canonical.read_back(*self.written)
        return canonical.decode(data)

    def launch_evaluations(self, step: BaseStep, path: StepPath, given: bytes | None, output: bytes) -> None:
        """Launch the runs that score the output of a step, with the entry that is appended next.

        Args:
            step: the step.
            path: its path.
            given: its input, canonical JSON; None when it has none of its own.
            output: its output, canonical JSON.
        """
        if step.evaluators and self.run.evaluations is not None:
            for evaluation in self.run.evaluations(step, path, given, output):
                self.run.journal.launch(evaluation)

    def personal_data(self, declared: Pii | None) -> dict[str, Any]:
        """Return what an `Ask` says about personal data in its requests: four of its fields.

        Args:
            declared: the declaration of the step.
        """
        treated = {"pii": declared or self.run.pii, "pseudonyms": self.run.pseudonyms}
        if not self.input_pii and not self.scope.type.pii:
            return treated
        return {**treated, "kept": self._declared("keep"), "tokenised": self._declared("tokenise")}

    def _declared(self, pii: Pii) -> Sequence[str]:
        """Return the texts of the fields of the input and the context with a declaration."""
        found: list[str] = []
        for values, declared in ((self.input, self.input_pii), (self.scope.tree, self.scope.type.pii)):
            if declared and isinstance(values, dict):
                fields = (values.get(name) for name, choice in declared.items() if choice == pii)
                found += (text for each in fields for text in texts_of(each))
        return found

    def append_done(
        self, path: StepPath, kind: str, output: bytes, before: Any, facts: Mapping[str, Any]
    ) -> None:
        """Record the completion of a composite or of one iteration; `before` is its context at the start."""
        patch = merge.diff(before, self.scope.tree)
        self.run.journal.append_done(path, kind, output, patch, now=self.run.clock.now(), facts=facts)

    def lookup(self, chain: Chain) -> Any:
        """Return the value of a name chain.

        Raises:
            KeyError: with the part of the chain that does not exist.
        """
        root, *rest = chain
        match root:
            case "input":
                value = self.input
            case "context":
                value = self.scope.fields
            case "previous":
                value = self.previous
            case "run":
                started_at = datetime.fromtimestamp(self.run.started_at, UTC)
                value = {"id": self.run.id, "started_at": started_at.isoformat(timespec="milliseconds")}
            case "steps" if rest:
                value = self._step(rest.pop(0))
            case _:
                value = self._name(root)
        for key in rest:
            if not isinstance(value, dict) or key not in value:
                raise KeyError(key)
            value = value[key]
        return value

    def _step(self, name: str) -> dict[str, Any]:
        frame: Frame | None = self
        while frame is not None:
            if name in frame.steps:
                return frame.steps[name]
            frame = frame.outer
        raise KeyError(name)

    def _name(self, name: str) -> Any:
        frame: Frame | None = self
        while frame is not None:
            if name in frame.names:
                return frame.names[name]
            frame = frame.outer
        raise KeyError(name)

    def evaluate(self, expression: Expr, **more: Any) -> Any:
        """Return an expression's value; `more` are names for this evaluation only (`output`)."""
        evaluator = self.run.binding.evaluator(expression)
        if not more:
            return evaluator(self.lookup)
        return evaluator(self.inside(self.path, previous=self.previous, names=more).lookup)

    def render(self, value: Value) -> Any:
        """Return a value with every `{{ … }}` in it filled in, once."""
        match value:
            case Text():
                return self.run.binding.evaluator(value)(self.lookup)
            case tuple():
                return [self.render(item) for item in value]
            case Mapping():
                return {key: self.render(item) for key, item in value.items()}
            case _:
                return value

    async def saved(self, step: BaseStep, output: Any) -> merge.Patch:
        """Return the patch of a step's `save:`, in which `output` is the step's output.

        Raises:
            ExpressionFailed: one of the expressions cannot be evaluated.
        """
        patch: merge.Patch = []
        for name, save in step.save.items():
            match save.value:
                case Expr():
                    value = self.evaluate(save.value, output=output)
                case CallableRef() if self.run.recorded is not None:
                    value = self.run.recorded.saved(child(self.path, step.name), name, save, self)
                case CallableRef():
                    ask = Ask(data=output, resources=self.run.resources)
                    reply = await self.ask(child(self.path, step.name), save.value, ask)
                    value = canonical.normalise(reply.output, what=f"`save.{name}` of step {step.name!r}")
            patch.append(["append", [name], [value]] if save.append else ["set", [name], value])
        return patch


new_frame = constructor(Frame)
"""Creates `Frame`."""


async def _sent(sink: Sink, event: Event) -> None:
    await sink(event)


@contextmanager
def standing_still(limit: asyncio.Timeout) -> Iterator[None]:
    """Suspend the timeout of an attempt, unless it is suspended already."""
    ends_at = limit.when()
    if ends_at is None or limit.expired():
        yield
        return
    now = asyncio.get_running_loop().time
    left = ends_at - now()
    limit.reschedule(None)
    try:
        yield
    finally:
        if not limit.expired():
            limit.reschedule(now() + left)
