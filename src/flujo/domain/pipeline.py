"""The syntax tree of a run: a pipeline is a sequence of steps, and a step has pipelines as its bodies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, is_dataclass, replace
from functools import cache, cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeAlias, TypedDict, cast, overload

from typing_extensions import TypeVar, Unpack  # with defaults, which `typing` has since 3.13

from flujo.domain import values
from flujo.domain.agents import AgentSpec
from flujo.domain.arguments import Node, Takes, node, takes
from flujo.domain.executor import Needs, needs
from flujo.domain.outbox import Notified, Notify, notify
from flujo.domain.paths import FAILURE, FINALLY, ROOT, StepPath, branch, child
from flujo.domain.personal_data import Pii, pii_of
from flujo.domain.queues import DEFAULT_QUEUE
from flujo.domain.retry import RetryPolicy
from flujo.domain.schedules import Schedule
from flujo.domain.usage import UsageLimits
from flujo.domain.values import CallableRef, Expr, Logic, Logical, Text, TimeLimit, TimeLimited, Value, Valued
from flujo.exceptions import PipelineError

In = TypeVar("In", contravariant=True, default=Any)
"""The input type of a step or a pipeline, contravariant: a step for `Animal` accepts a `Dog`."""
Out = TypeVar("Out", covariant=True, default=Any)
"""The output type, covariant: a step that returns a `Dog` fits where an `Animal` is expected."""
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")

NO_ITEMS: Mapping[str, Any] = MappingProxyType({})

ExecutionMode = Literal["sync", "background"]
Durability = Literal["sync", "exit"]
OnLimit = Literal["fail", "continue"]
OnError = Literal["fail", "collect", "skip"]
Instead = Literal["fail", "skip"] | Mapping[str, Value]
"""What happens when a composite fails after its last attempt: it fails, passes on what it got, or has the
output of `{"output": …}`."""
Ends = Literal["blueprint", "body"]
"""What a step may end before its last step: the blueprint that it is written in, or the body around it."""

QUEUE_EXECUTOR = "queue"
"""The `executor` of a map whose items are executed by workers of a queue."""
MAX_BATCH_SIZE = 10_000
"""The greatest `batch_size`."""

# Common to every step ------------------------------------------------------------------------------------


@node
class StepConfig(Node):
    """Execution settings of a step. Seconds are floats; `max_retries` counts retries, not attempts."""

    owner: ClassVar[str] = "`config`: "

    _: KW_ONLY
    timeout_s: Takes[TimeLimited | None, float | TimeLimit | None] = takes(values.time_limit, default=None)
    """The seconds of an attempt; `{"value": "{{ … }}", "max": 600}` takes them from data."""
    max_retries: int = 0
    retry: RetryPolicy | None = None
    execution_mode: ExecutionMode = "sync"
    durability: Durability | None = None
    queue: str | None = None
    """Of a step in the background: the queue whose workers execute it, instead of the process of the run."""
    priority: int = 0
    """Its priority in the queue, from -1,000,000 to 1,000,000."""
    budget: UsageLimits | None = None
    """Of a step in the background: what its task may use, which is held of the limits of its run. Of a map
    over workers: what each batch may use."""
    executor: str | None = None
    """Where its callable is executed, a table `[executors.NAME]`; of a map, where those of its steps are.
    `queue` lets workers execute the items of a map, in batches."""
    resources: Takes[Needs | Mapping[str, Any] | None, Needs | None] = takes(needs, default=None)
    """What its callable needs there: `{"cpu": 2, "gpu": 1, "memory": "8GiB"}`."""
    batch_size: int | None = None
    """How many items of a map over workers one run executes; None for one."""

    @property
    def is_spread(self) -> bool:
        """Whether workers execute the items of the map, and the run waits for them."""
        return self.executor == QUEUE_EXECUTOR

    @property
    def launch(self) -> str:
        """How a step is launched, in words that follow its summary; empty for one that the run executes."""
        if self.is_spread:
            size = self.batch_size or 1
            return f", in batches of {size} by workers of the queue {self.queue or DEFAULT_QUEUE}"
        if self.execution_mode == "sync":
            return ""
        return ", in the background" + (
            "" if self.queue is None else f" by workers of the queue {self.queue}"
        )


@dataclass(frozen=True, slots=True)
class Save:
    """A write to one field of the context: the value of an expression, set or appended."""

    value: Logic
    append: bool = False


Saved = Save | Logical | Mapping[str, Logical]
"""The value: an expression or a callable; `{"append": …}` appends it to a list."""


def _save(given: Saved, where: str) -> Save:
    match given:
        case Save(value, append):
            return Save(values.logic(value, where), append)
        case {"append": value, **others} if not others:
            return Save(values.logic(value, where), append=True)
        case Mapping():
            raise PipelineError(f"{where} is {given!r}; expected an expression or `{{'append': …}}`")
        case _:
            return Save(values.logic(given, where))


@node
class CachePolicy(Node):
    """`cache:` of a step: which answers are reused, and for how long."""

    owner: ClassVar[str] = "`cache`: "

    _: KW_ONLY
    key: Takes[Logical | None, Logic | None] = takes(values.logic, default=None)
    """An additional part of the cache key, besides the step and its input."""
    ttl_s: float | None = None
    """The seconds after which an answer expires."""


if TYPE_CHECKING:  # for overloads

    class Common(TypedDict, total=False):
        """The arguments of every kind, for constructors with overloads."""

        when: Logical | None
        save: Mapping[str, Saved]
        cache: CachePolicy | None
        tags: Sequence[str]
        config: StepConfig


Shape = Literal["point", "human", "import", "inside", "choice", "loop", "states", "fork"]
"""How a kind is drawn: as a point, or by the relation of its bodies."""


@dataclass(frozen=True, slots=True)
class Migration:
    """A step, branch or state that had another path in earlier versions; both are without counts."""

    old: StepPath
    new: StepPath


@dataclass(frozen=True, slots=True)
class Imported:
    """A pipeline that a step runs in a separate scope."""

    blueprint: str
    """Its file; empty for a pipeline written in Python."""
    pipeline: Pipeline
    inherits: bool
    """Whether its steps read and write the context of the importing pipeline."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question to a human, or a wait for an event: no cache, timeout or retry can replace the answer."""

    answer_schema: Any
    deadline_s: float | TimeLimit | None
    event: str | None = None
    """The name of the event that answers it; None for a human."""
    on_deadline: Any = "fail"
    """What happens without an answer: `fail`, or `{answer: …}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How often the bodies of a step are executed; those of a fallback and of tools are not meant."""

    way: Literal["all", "one", "some"] = "all"
    """Whether each of them is executed, one of them, or any number of them."""
    least: int = 1
    most: int | None = 1
    """How often at most; None: nothing bounds it."""
    over: Logic | None = None
    """The list with an item for each execution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """A conversation that a step has with an agent."""

    who: Any
    """An `AgentSpec`, a `OneOf`, or the reference of a callable, which may be an agent in Python."""
    name: str = ""
    """The name of its part of the step; empty for the step itself."""
    input: Value = None
    schema: Any = None
    """The schema of the answer, instead of that of the agent."""
    turns: int | None = None
    """The maximum number of turns; None: one answer, with its corrections and tool calls."""
    history: int | None = None
    """The maximum number of tokens of earlier turns in a request."""
    least: int = 1
    """How many conversations the step has at least."""
    most: int | None = 1
    """How many at most; None: nothing bounds it."""


@dataclass(frozen=True, slots=True)
class Flow:
    """The transitions of a run between the bodies of a step."""

    first: str
    ways: Mapping[str, Sequence[tuple[str, Logic | None]]]
    """For each body, its successors with their conditions; the first true one wins, None is always true."""
    last: Sequence[str]
    failures: Mapping[str, str] = field(default_factory=dict)
    """For each body, its successor when a step of it fails; some have none."""


@node
class BaseStep(Node, Generic[In, Out]):
    """The fields that every kind has."""

    name: str
    """An identifier, unique in its body."""
    _: KW_ONLY
    when: Takes[Logical | None, Logic | None] = takes(values.logic, default=None)
    """A condition; the step is skipped when it is false."""
    save: Takes[Mapping[str, Saved], Mapping[str, Save]] = takes(values.each(_save), default_factory=dict)
    """The values to write to the context, by field; `output` is the step's output."""
    cache: CachePolicy | None = None
    """Whether and how answers are cached."""
    tags: Takes[Sequence[str], tuple[str, ...]] = takes(values.texts, default=())
    """Labels for display and for filters."""
    config: StepConfig = takes(values.instance(StepConfig), default=StepConfig())
    """Timeouts, retries and durability."""

    kind: ClassVar[str]
    """The value of `kind:` in a blueprint."""
    verb: ClassVar[str] = ""
    """The verb before `summary`, when the summary has none."""
    shape: ClassVar[Shape] = "point"
    names_bodies: ClassVar[bool] = False
    """Whether paths contain the name of the body, as for branches and states."""
    only_waits: ClassVar[str] = ""
    """What a step waits for that does nothing else, in words that follow its name: "asks a human"."""
    ends_run: ClassVar[bool] = False
    """Whether it ends the run, which a new run continues."""
    has_items: ClassVar[bool] = False
    """Whether it runs its body for each of several items, which workers may execute."""
    is_computed: ClassVar[bool] = False
    """Whether it evaluates expressions and does nothing else: there is nothing to retry or to cache."""
    is_ordered: ClassVar[bool] = False
    """Whether the order of its bodies affects the result."""
    records_inside: ClassVar[bool] = False
    """Whether it records entries below its path that belong to no step of a body."""

    def summary(self) -> str:
        """Describe in a few words what the step does, without its name."""
        return self.kind

    def limits(self) -> Iterator[str]:
        """Yield the step's limits, in a few words each."""
        yield from ()

    def writes(self) -> Iterator[tuple[str, str]]:
        """Yield the fields of the context that its keys write, each after the key that names it."""
        yield from (("save", name) for name in self.save)

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the pipelines inside this step, by unique names."""
        return NO_ITEMS

    @property
    def extent(self) -> Extent:
        """How often the bodies are executed."""
        return Extent()

    def conversations(self) -> Iterator[Conversation]:
        """Yield the conversations with agents that it may have."""
        yield from ()

    def is_tool(self, body: str) -> bool:  # noqa: ARG002 - no body is one
        """Return whether a body runs when a model calls it, and not in the order of the steps."""
        return False

    def local_names(self) -> Mapping[str, Sequence[str]]:
        """Return the names that the step adds for its bodies, by the key that declares them."""
        return NO_ITEMS

    def decides(self) -> str:
        """Return what chooses the next body, in a few words."""
        return ""

    def flow(self) -> Flow | None:
        """Return the transitions between bodies; None for kinds without transitions."""
        return None

    @property
    def gives_bodies(self) -> bool:
        """Whether its output is a map of the outputs of its bodies, by their names."""
        return False

    @property
    def instead(self) -> Instead:
        """What happens when it fails after its last attempt."""
        return "fail"

    @property
    def ends(self) -> Ends | None:
        """What it ends before the last step of it."""
        return None

    @property
    def imported(self) -> Imported | None:
        """The imported pipeline that this step runs."""
        return None

    @property
    def question(self) -> Question | None:
        """The step's question to a human."""
        return None

    @property
    def sends(self) -> Value:
        """The files that the step sends to a model with its input: paths, references, or a list of them."""
        return None

    @property
    def tool(self) -> str | None:
        """The name of the tool, if the step is a call that a model has requested."""
        return None

    @property
    def has_effect(self) -> bool:
        """Whether its own call has another effect than `read`; those of its agent's tools do not count."""
        return False

    @property
    def joins(self) -> str | None:
        """The thread that the step's own exchange with its agent is added to."""
        return None

    @property
    def evaluators(self) -> tuple[str, ...]:
        """The names of the evaluators of the project that score the step's output."""
        return ()

    @property
    def masking(self) -> Pii | None:
        """Whether the step's personal data is masked or kept; None where the project decides."""
        return None

    @property
    def policy(self) -> CachePolicy | None:
        """The cache policy of its answers."""
        return self.cache

    def names(self) -> Iterator[AgentSpec | CallableRef]:
        """Yield the agents and callables of the step, without those of its bodies."""
        yield from (leaf for leaf in leaves(self) if isinstance(leaf, AgentSpec | CallableRef))

    def usual_facts(self) -> Mapping[str, Any]:
        """Return the default facts beside the output, when the step returns none."""
        facts = {} if self.instead == "fail" else {"error": None}
        return facts if self.cache is None else {**facts, "cached": False}

    def __rshift__(self, other: BaseStep[Out, C] | Pipeline[Out, C]) -> Pipeline[In, C]:
        """Return a pipeline of this step and the following ones."""
        return body(self, "`>>`") >> other


Leaf = Expr | Text | CallableRef | AgentSpec
"""A value in a tree that a runner compiles, imports or builds."""


def leaves(part: Any) -> Iterator[Leaf]:
    """Yield the leaves of a part of the tree, without those of the steps inside it."""
    match part:
        case Expr() | Text() | CallableRef() | AgentSpec():
            yield part
        case Mapping():
            for item in part.values():
                yield from _within(item)
        case tuple() | list():
            for item in part:
                yield from _within(item)
        case _:  # names, numbers and schemas have no fields
            for name in _field_names(part.__class__):
                yield from _within(getattr(part, name))


@cache
def _field_names(kind: type) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind)) if is_dataclass(kind) else ()


def _within(part: Any) -> Iterator[Leaf]:
    if not isinstance(part, Pipeline | BaseStep):
        yield from leaves(part)


def ends_early(step: BaseStep) -> bool:
    """Return whether the steps after a step may not run, because it or a step inside it ends their body."""
    if step.ends is not None or step.imported is not None:
        return step.ends is not None
    inner = (each for body in step.bodies().values() for each in body.steps)
    return any(each.ends == "blueprint" or (each.ends is None and ends_early(each)) for each in inner)


FALLBACK = "fallback"
"""The name of every fallback step, and so the last part of its path."""

# A pipeline ----------------------------------------------------------------------------------------------

Body: TypeAlias = "Pipeline | BaseStep | Sequence[BaseStep]"
"""The types accepted as steps: a pipeline, one step, or several."""


def steps(given: Any, where: str) -> tuple[BaseStep, ...]:
    """Return steps in order.

    Raises:
        PipelineError: it is something else, or a pipeline with other fields than steps.
    """
    if isinstance(given, BaseStep):
        return (given,)
    if isinstance(given, Pipeline):
        return body(given, where).steps
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise PipelineError(f"{where} is {given!r}; expected steps")
    for each in given:
        if not isinstance(each, BaseStep):
            raise PipelineError(
                f"{where} contains {each!r}; expected steps",
                hint="wrap it in a step: `Step('name', callable)`, `ImportStep('name', pipeline)`",
            )
    return tuple(given)


def body(given: Body, where: str) -> Pipeline:
    """Return steps as a body of another step, without the name of a given pipeline.

    Raises:
        PipelineError: it is something else, or a pipeline with other fields than steps.
    """
    if not isinstance(given, Pipeline):
        return Pipeline(steps(given, where))
    own = (
        *("input_schema", "context_schema", "context_type", "output"),
        *("budget", "notify", "evaluate", "deadline_s", "schedules", "migrations"),
        *("on_failure", "finally_"),
    )
    extra = [f"`{key}`" for key in own if getattr(given, key) not in (None, ())]
    if extra:
        raise PipelineError(
            f"{where} is a pipeline with {', '.join(extra)}, which would be lost",
            hint="wrap it in a step, `ImportStep('name', pipeline)`, or pass only its steps",
        )
    return Pipeline(given.steps) if given.name or given.description else given


if TYPE_CHECKING:  # for overloads

    class PipelineKeys(TypedDict, total=False):
        """The arguments of a pipeline that do not affect its input and output types."""

        input_schema: Any
        context_schema: Any
        context_type: CallableRef | type | str | None
        budget: UsageLimits | None
        notify: Notified
        evaluate: Sequence[str]
        deadline_s: TimeLimited | None
        schedules: Sequence[Schedule]
        migrations: Mapping[str, str] | tuple[Migration, ...]
        on_failure: Body | None
        finally_: Body | None


def _schedules(given: Any, where: str) -> tuple[Schedule, ...]:
    """Return schedules.

    Raises:
        PipelineError: it is something else.
    """
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise PipelineError(f"{where} is {given!r}; expected a list of `Schedule`")
    return tuple(values.instance(Schedule)(each, where) for each in given)


def _migrations(given: Any, where: str) -> tuple[Migration, ...]:
    """Return migrations, from a mapping of old paths to new ones.

    Raises:
        PipelineError: it is something else.
    """
    if isinstance(given, tuple) and all(isinstance(each, Migration) for each in given):
        return given
    is_mapping = isinstance(given, Mapping)
    if not is_mapping or not all(isinstance(each, str) for pair in given.items() for each in pair):
        raise PipelineError(f"{where} is {given!r}; expected a mapping of old paths to new ones")
    return tuple(Migration(StepPath(old), StepPath(new)) for old, new in given.items())


def _handler(given: Any, where: str) -> Pipeline | None:
    """Return the steps after a failure or at the end of a run; an empty list is none.

    Raises:
        PipelineError: it is something else, or a pipeline with other fields than steps.
    """
    handler = body(given, where)
    return handler if handler.steps else None


@node
class Pipeline(Node, Generic[In, Out]):
    """A sequence of steps. A body (branch, iteration, state) is also a pipeline, with no other fields."""

    owner: ClassVar[str] = "pipeline {name!r}: "

    steps: tuple[BaseStep, ...] = takes(steps, default=())
    """A list of steps, one step, or the result of `>>`."""
    name: str = ""
    """The name by which its runs are listed."""
    description: str = ""
    """A description of one line."""
    _: KW_ONLY
    input_schema: Any = takes(values.schema, default=None)
    """A JSON Schema or a class that a run's input must match."""
    context_schema: Any = None
    """A JSON Schema of the context, when its fields are declared inline."""
    context_type: CallableRef | None = takes(values.a_class, default=None)
    """The `PipelineContext` subclass, when one is named."""
    output: Value = takes(values.value, default=None)
    """The output, instead of that of the last executed step; placeholders are filled in."""
    budget: UsageLimits | None = None
    """The limits of a run; for an imported pipeline, the limits of the importing step."""
    notify: Takes[Notified, Notify] = takes(notify, default=())
    """The targets that get messages about its runs, tables `[notify.NAME]` of flujo.toml: a list of names, or
    events with names. For an imported pipeline it has no effect."""
    evaluate: Takes[Sequence[str], tuple[str, ...]] = takes(values.texts, default=())
    """The evaluators that score the outputs of its runs: names of tables `[evaluation.evaluators.NAME]` of
    flujo.toml, besides those whose `blueprints` have its name. No effect for an imported pipeline."""
    deadline_s: Takes[TimeLimited | None, float | TimeLimit | None] = takes(values.time_limit, default=None)
    """How long a run may last from its acceptance; then it fails. `{"value": "{{ input.s }}", "max": 600}`
    takes the seconds from the input. No effect for an imported pipeline."""
    schedules: Takes[Sequence[Schedule], tuple[Schedule, ...]] = takes(_schedules, default=())
    """When workers run it. Schedules of an imported pipeline start runs of it alone."""
    migrations: Takes[Mapping[str, str] | tuple[Migration, ...], tuple[Migration, ...]] = takes(
        _migrations, default=()
    )
    """The old paths of renamed and moved parts with their new ones, for runs that began with the old ones; no
    effect for an imported pipeline."""
    on_failure: Takes[Body | None, Pipeline | None] = takes(_handler, default=None)
    """The steps that are executed when a run fails, before it ends as failed. They see `failure`. A pipeline
    with such steps cannot be imported or be a tool."""
    finally_: Takes[Body | None, Pipeline | None] = takes(_handler, default=None)
    """The steps that are executed when a run has completed, failed or been cancelled, before it ends. They
    see `ended`, wait for nothing, and take at most 60 s. As with `on_failure`, the pipeline cannot be
    imported or be a tool."""

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
        """Return this pipeline followed by a step, or by the steps of another pipeline.

        Raises:
            PipelineError: the other pipeline has other fields than steps, which would be lost; wrap it in an
                `ImportStep`.
        """
        joined = replace(self, steps=(*self.steps, *body(other, "`>>`").steps))
        return cast("Pipeline[In, C]", joined)

    @property
    def is_limited(self) -> bool:
        """Whether it, or a pipeline inside it, has limits."""
        inner = (body for _, step in self.walk() for body in step.bodies().values())
        return any(each.budget for each in (self, *inner))

    def endings(self) -> Mapping[str, Pipeline]:
        """Return the bodies that are executed after the steps, by the names of their branches."""
        if self.on_failure is None and self.finally_ is None:
            return NO_ITEMS
        both = {FAILURE: self.on_failure, FINALLY: self.finally_}
        return {name: inner for name, inner in both.items() if inner is not None}

    def walk(self, path: StepPath = ROOT) -> Iterator[tuple[StepPath, BaseStep]]:
        """Yield each step with its path in the tree, outer steps first.

        The path is the one in the journal without counts: `route:refund/order`, `loop/draft`.
        """
        return iter(self._from_root) if path == ROOT else self._below(path)

    @cached_property
    def _from_root(self) -> tuple[tuple[StepPath, BaseStep], ...]:
        """The steps of the whole tree, kept because each service of a run asks for them."""
        return tuple(self._below(ROOT))

    @cached_property
    def input_pii(self) -> Mapping[str, Pii]:
        """The fields of the input that declare `pii`; kept because each run asks for them.

        Raises:
            PipelineError: a field declares something else.
        """
        return pii_of(self.input_schema)

    def _below(self, path: StepPath) -> Iterator[tuple[StepPath, BaseStep]]:
        for step in self.steps:
            here = child(path, step.name)
            yield here, step
            for name, inner in step.bodies().items():
                yield from inner._below(branch(here, name) if step.names_bodies else here)
        for name, inner in self.endings().items():
            yield from inner._below(branch(path, name))
