"""The tree that a run walks: a pipeline is steps in order, and a step holds pipelines as its bodies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields, is_dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeAlias, TypedDict, cast, overload

from typing_extensions import TypeVar, Unpack  # with defaults, which `typing` has since 3.13

from flujo.domain import values
from flujo.domain.agents import AgentSpec
from flujo.domain.arguments import Node, Takes, node, takes
from flujo.domain.paths import ROOT, StepPath, branch, child
from flujo.domain.retry import RetryPolicy
from flujo.domain.usage import UsageLimits
from flujo.domain.values import CallableRef, Expr, Logic, Logical, Text, Value, Valued
from flujo.exceptions import PipelineError

In = TypeVar("In", contravariant=True, default=Any)
"""What a step or a pipeline takes: one that takes any animal may stand where dogs come."""
Out = TypeVar("Out", covariant=True, default=Any)
"""What it gives: one that gives dogs may stand where animals are expected."""
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")

NO_ITEMS: Mapping[str, Any] = MappingProxyType({})

ExecutionMode = Literal["sync", "background"]
Durability = Literal["sync", "exit"]
OnLimit = Literal["fail", "continue"]
OnError = Literal["fail", "collect", "skip"]
Effect = Literal["read", "idempotent", "transactional", "unsafe"]
InDoubt = Literal["pause", "retry_same_key", "reconcile", "fail"]

# What every step has -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StepConfig:
    """How a step is executed. Seconds are floats; `max_retries` counts retries, not attempts."""

    timeout_s: float | None = None
    max_retries: int = 0
    retry: RetryPolicy | None = None
    execution_mode: ExecutionMode = "sync"
    durability: Durability | None = None


@dataclass(frozen=True, slots=True)
class Save:
    """What a step writes into one field of the context: an expression's value, set or appended."""

    value: Logic
    append: bool = False


Saved = Save | Logical | Mapping[str, Logical]
"""What is saved: an expression or a callable; `{"append": …}` puts it at the end of a list."""


def _save(given: Saved, where: str) -> Save:
    match given:
        case Save(value, append):
            return Save(values.logic(value, where), append)
        case {"append": value, **others} if not others:
            return Save(values.logic(value, where), append=True)
        case Mapping():
            raise PipelineError(f"{where} is {given!r}, and takes an expression or `{{'append': …}}`")
        case _:
            return Save(values.logic(given, where))


@node
class CachePolicy(Node):
    """`cache:` on a step: which answers may be reused, and for how long."""

    owner: ClassVar[str] = "`cache`: "

    _: KW_ONLY
    key: Takes[Logical | None, Logic | None] = takes(values.logic, default=None)
    """A further part of the cache key, beside the step and its input."""
    ttl_s: float | None = None
    """For how many seconds an answer is good."""


if TYPE_CHECKING:  # for overloads

    class Common(TypedDict, total=False):
        """The arguments of every kind, for constructors with overloads."""

        when: Logical | None
        save: Mapping[str, Saved]
        cache: CachePolicy | None
        tags: Sequence[str]
        config: StepConfig


Shape = Literal["point", "human", "import", "inside", "choice", "loop", "states", "fork"]
"""How a kind is drawn: as a point, or by what its bodies are to each other."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A pipeline that a step runs in a scope of its own."""

    blueprint: str
    """Its file; empty for a pipeline written in Python."""
    pipeline: Pipeline
    inherits: bool
    """Whether its steps read and write the context around the step."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a step asks a human; no cache, timeout or retry can stand in their place."""

    answer_schema: Any
    deadline_s: float | None


@dataclass(frozen=True, slots=True)
class Flow:
    """How a run goes from one body of a step to the next."""

    first: str
    ways: Mapping[str, Sequence[tuple[str, Logic | None]]]
    """Of each body, where it leads to and when; the first condition that holds wins, None always does."""
    last: Sequence[str]


@node
class BaseStep(Node, Generic[In, Out]):
    """What every kind has."""

    name: str
    """An identifier, unique in its body."""
    _: KW_ONLY
    when: Takes[Logical | None, Logic | None] = takes(values.logic, default=None)
    """The step is skipped when it does not hold."""
    save: Takes[Mapping[str, Saved], Mapping[str, Save]] = takes(values.each(_save), default_factory=dict)
    """What is written to the context, by its field; `output` is the step's output."""
    cache: CachePolicy | None = None
    """Whether an answer may come from the cache."""
    tags: Takes[Sequence[str], tuple[str, ...]] = takes(values.texts, default=())
    """Words for people, and for filters."""
    config: StepConfig = takes(values.instance(StepConfig), default=StepConfig())
    """Timeouts, retries and durability."""

    kind: ClassVar[str]
    """The word of the YAML."""
    verb: ClassVar[str] = ""
    """What makes a sentence of `summary`, where it has no verb of its own."""
    shape: ClassVar[Shape] = "point"
    names_bodies: ClassVar[bool] = False
    """Whether paths name the body that a step stands in, as branches and states do."""
    is_ordered: ClassVar[bool] = False
    """Whether the order of its bodies decides what comes out."""

    def summary(self) -> str:
        """Return what the step does, in a few words, without its name."""
        return self.kind

    def limits(self) -> Iterator[str]:
        """Yield what bounds the step, in a few words each."""
        yield from ()

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the pipelines inside this step, by a name that tells them apart."""
        return NO_ITEMS

    def local_names(self) -> Mapping[str, Sequence[str]]:
        """Return the names that the step adds for its bodies, by the key that declares them."""
        return NO_ITEMS

    def decides(self) -> str:
        """Return what decides which body runs next, in a few words."""
        return ""

    def flow(self) -> Flow | None:
        """Return how a run goes from body to body; None for a kind whose bodies do not lead to each other."""
        return None

    @property
    def imported(self) -> Imported | None:
        """The pipeline with a scope of its own that this step runs."""
        return None

    @property
    def question(self) -> Question | None:
        """What the step asks a human."""
        return None

    @property
    def policy(self) -> CachePolicy | None:
        """How its answers are cached."""
        return self.cache

    def names(self) -> Iterator[AgentSpec | CallableRef]:
        """Yield the agents and callables that the step names, without those of its bodies."""
        yield from (leaf for leaf in leaves(self) if isinstance(leaf, AgentSpec | CallableRef))

    def usual_facts(self) -> Mapping[str, Any]:
        """Return what can be read beside the output when the step itself says nothing else."""
        return NO_ITEMS if self.cache is None else {"cached": False}

    def __rshift__(self, other: BaseStep[Out, C] | Pipeline[Out, C]) -> Pipeline[In, C]:
        """Return a pipeline of this step and what follows it."""
        return body(self, "`>>`") >> other


Leaf = Expr | Text | CallableRef | AgentSpec
"""What a tree names, and a runner compiles, imports or builds."""


def leaves(part: Any) -> Iterator[Leaf]:
    """Yield the leaves of a part of the tree, without those of the steps inside it."""
    match part:
        case Expr() | Text() | CallableRef() | AgentSpec():
            yield part
        case Mapping():
            for item in part.values():
                yield from _within(item)
        case tuple():
            for item in part:
                yield from _within(item)
        case _ if is_dataclass(part):
            for each in fields(part):
                yield from _within(getattr(part, each.name))
        case _:
            return  # names, numbers, schemas


def _within(part: Any) -> Iterator[Leaf]:
    if not isinstance(part, Pipeline | BaseStep):
        yield from leaves(part)


FALLBACK = "fallback"
"""The name of every step that takes over from another one, and so the end of its path."""

# A pipeline ----------------------------------------------------------------------------------------------

Body: TypeAlias = "Pipeline | BaseStep | Sequence[BaseStep]"
"""What may be given where steps are expected: a pipeline, one step, or several."""


def steps(given: Any, where: str) -> tuple[BaseStep, ...]:
    """Return steps in order.

    Raises:
        PipelineError: it is something else, or a pipeline with more than steps.
    """
    if isinstance(given, BaseStep):
        return (given,)
    if isinstance(given, Pipeline):
        return body(given, where).steps
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise PipelineError(f"{where} is {given!r}, and takes steps")
    for each in given:
        if not isinstance(each, BaseStep):
            raise PipelineError(
                f"{where} holds {each!r}, and takes steps",
                hint="make a step of it: `Step('name', callable)`, `ImportStep('name', pipeline)`",
            )
    return tuple(given)


def body(given: Body, where: str) -> Pipeline:
    """Return steps as a body of another step; a name is for people, and not kept.

    Raises:
        PipelineError: it is something else, or a pipeline with more than steps.
    """
    if not isinstance(given, Pipeline):
        return Pipeline(steps(given, where))
    own = ("input_schema", "context_schema", "context_type", "output", "budget")
    said = [f"`{key}`" for key in own if getattr(given, key) is not None]
    if said:
        raise PipelineError(
            f"{where} is a pipeline with {', '.join(said)}, which would be lost",
            hint="make one step of it, `ImportStep('name', pipeline)`, or give its steps alone",
        )
    return Pipeline(given.steps) if given.name or given.description else given


if TYPE_CHECKING:  # for overloads

    class PipelineKeys(TypedDict, total=False):
        """The arguments of a pipeline that do not change what it takes and gives."""

        input_schema: Any
        context_schema: Any
        context_type: CallableRef | type | str | None
        budget: UsageLimits | None


@node
class Pipeline(Node, Generic[In, Out]):
    """Steps in order. A body (branch, iteration, state) is a pipeline too, of steps alone."""

    owner: ClassVar[str] = "pipeline {name!r}: "

    steps: tuple[BaseStep, ...] = takes(steps, default=())
    """Steps in order, one step, or what `>>` made of several."""
    name: str = ""
    """What its runs are found by."""
    description: str = ""
    """A line for people."""
    _: KW_ONLY
    input_schema: Any = takes(values.schema, default=None)
    """A JSON Schema or a class that a run's input has to fit."""
    context_schema: Any = None
    """A JSON Schema of the context, when its fields are given in place."""
    context_type: CallableRef | None = takes(values.a_class, default=None)
    """The `PipelineContext` subclass, when it is named."""
    output: Value = takes(values.value, default=None)
    """What comes out, instead of the output of the last step that ran; texts are filled in."""
    budget: UsageLimits | None = None
    """What a run of it may use at most; where it is imported, what that part of a run may use."""

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: Pipeline[A, B],
            steps: BaseStep[A, B] | Pipeline[A, B],
            name: str = "",
            description: str = "",
            **keys: Unpack[PipelineKeys],
        ) -> None: ...
        @overload
        def __init__(
            self,
            steps: Body = (),
            name: str = "",
            description: str = "",
            *,
            output: Valued = None,
            **keys: Unpack[PipelineKeys],
        ) -> None: ...
        def __init__(self, *given: Any, **keys: Any) -> None: ...

    def __rshift__(self, other: BaseStep[Out, C] | Pipeline[Out, C]) -> Pipeline[In, C]:
        """Return this pipeline followed by a step, or by the steps of another one.

        Raises:
            PipelineError: the other one says more than its steps, which would be lost: an `ImportStep` makes
                one step of it.
        """
        joined = replace(self, steps=(*self.steps, *body(other, "`>>`").steps))
        return cast("Pipeline[In, C]", joined)

    @property
    def is_limited(self) -> bool:
        """Whether it, or a pipeline in it, says what may be used."""
        inner = (body for _, step in self.walk() for body in step.bodies().values())
        return any(each.budget for each in (self, *inner))

    def walk(self, path: StepPath = ROOT) -> Iterator[tuple[StepPath, BaseStep]]:
        """Yield each step with its path in the tree, outer steps first.

        The path is that of the journal without counts: `route:refund/order`, `loop/draft`.
        """
        for step in self.steps:
            here = child(path, step.name)
            yield here, step
            for name, inner in step.bodies().items():
                yield from inner.walk(branch(here, name) if step.names_bodies else here)
