"""The syntax tree: every kind of step, as plain data. YAML and Python are two doors to these classes.

A tree holds expressions, texts, schemas and names; it holds nothing compiled. `services.wiring.bind`
imports and compiles what a tree names and hands the engine what it calls. Read from top to bottom: the
leaves of the language first, then what every step has, then one class a kind, in the order of the manual.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from flujo.domain.agents import AgentSpec
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.retry import RetryPolicy

NO_ITEMS: Mapping[str, Any] = MappingProxyType({})


# The leaves of the language ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Expr:
    """A CEL expression, without the braces."""

    source: str


@dataclass(frozen=True, slots=True)
class Text:
    """A text in which `{{ expression }}` is filled in once; nothing but one keeps the value's type."""

    source: str
    literal: bool = False
    """Whether braces mean nothing (`template: false`)."""


@dataclass(frozen=True, slots=True)
class CallableRef:
    """`module:callable`. A live object given in Python is remembered; equality is by the name."""

    target: str
    live: Callable[..., Any] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, thing: Callable[..., Any]) -> CallableRef:
        """Return the reference of a live callable."""
        return cls(f"{thing.__module__}:{thing.__qualname__}", thing)


Logic = Expr | CallableRef
"""What a key that holds logic may be."""

Value = None | bool | int | float | Text | tuple["Value", ...] | Mapping[str, "Value"]
"""What a key that holds a value may be: JSON in which every text is a `Text`."""


# What every step has -------------------------------------------------------------------------------------

ExecutionMode = Literal["sync", "background"]
Durability = Literal["sync", "exit"]
OnLimit = Literal["fail", "continue"]
OnError = Literal["fail", "collect", "skip"]
Effect = Literal["read", "idempotent", "transactional", "unsafe"]
InDoubt = Literal["pause", "retry_same_key", "reconcile", "fail"]


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


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """`cache:` on a step: a further key beside the default one, and how long an answer is good."""

    key: Logic | None = None
    ttl_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseStep:
    """What every kind has. `name` is an identifier, unique in its body."""

    name: str
    when: Logic | None = None
    save: Mapping[str, Save] = field(default_factory=dict)
    cache: CachePolicy | None = None
    tags: tuple[str, ...] = ()
    config: StepConfig = StepConfig()

    kind: ClassVar[str]

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the pipelines inside this step, by a name that tells them apart."""
        return NO_ITEMS


# One class a kind ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(BaseStep):
    """The atomic unit: one agent is asked, or one callable is called."""

    agent: AgentSpec | None = None
    call: CallableRef | None = None
    arguments: Mapping[str, Value] | None = None
    """`with:`; None when it is not given, so that `previous` goes to the callable."""
    input: Value = None
    """The prompt or data; None means `previous`."""
    output_schema: Any = None
    fallback: Step | None = None
    validators: tuple[CallableRef, ...] = ()
    effect: Effect = "unsafe"
    enforce_idempotency: bool = False
    in_doubt: InDoubt = "pause"

    kind: ClassVar[str] = "step"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionalStep(BaseStep):
    """Routing: `form` says whether `condition` is an `if` (branches `then`, `else`) or a `switch`."""

    condition: Logic
    form: Literal["if", "switch"] = "if"
    branches: Mapping[str, Pipeline] = field(default_factory=dict)
    default: Pipeline | None = None
    output: Value = None

    kind: ClassVar[str] = "conditional"

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the branches, and `default` under its own name."""
        return {**self.branches, "default": self.default} if self.default else self.branches


@dataclass(frozen=True, slots=True)
class Carry:
    """A variable of a loop: its value before the first iteration, and the expression of the next one."""

    initial: Value
    next: Logic


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopStep(BaseStep):
    """Repeats `body` until `until` holds, at most `max_iterations` times."""

    body: Pipeline
    until: Logic
    max_iterations: int = 10
    on_limit: OnLimit = "fail"
    carry: Mapping[str, Carry] = field(default_factory=dict)
    output: Value = None

    kind: ClassVar[str] = "loop"

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the body."""
        return {"steps": self.body}


@dataclass(frozen=True, slots=True)
class Transition:
    """An edge of a state machine; without `when` it is the `else`."""

    to: str
    when: Logic | None = None


@dataclass(frozen=True, slots=True)
class State:
    """A state: its steps, and where it may go; none for a final state."""

    body: Pipeline
    transitions: tuple[Transition, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StateMachineStep(BaseStep):
    """Visits states from `initial` until one of `final` is left."""

    initial: str
    states: Mapping[str, State]
    final: tuple[str, ...]
    max_transitions: int = 50
    output: Value = None

    kind: ClassVar[str] = "state_machine"

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return each state's steps."""
        return {name: state.body for name, state in self.states.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class MapStep(BaseStep):
    """Runs `body` once for each item of `over`; results in the input's order."""

    over: Logic
    body: Pipeline
    item_name: str | None = None
    """`as`: a second name for `item`."""
    max_concurrency: int = 10
    on_error: OnError = "fail"
    merge: str | CallableRef = "no_merge"
    output: Value = None

    kind: ClassVar[str] = "map"

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the body."""
        return {"steps": self.body}


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelStep(BaseStep):
    """Runs all branches at once, each on its own view of the context, then merges what they wrote."""

    branches: Mapping[str, Pipeline]
    merge: str | CallableRef = "context_update"
    field_mapping: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    on_branch_failure: Literal["fail", "collect", "skip"] = "fail"
    max_concurrency: int | None = None
    output: Value = None

    kind: ClassVar[str] = "parallel"

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the branches."""
        return self.branches


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicParallelRouterStep(ParallelStep):
    """A parallel step whose branches are chosen by an agent or a callable."""

    router: AgentSpec | CallableRef
    input: Value = None

    kind: ClassVar[str] = "router"


@dataclass(frozen=True, slots=True, kw_only=True)
class GranularStep(BaseStep):
    """An agent that is journaled turn by turn."""

    agent: AgentSpec
    input: Value = None
    max_turns: int = 20
    on_limit: OnLimit = "fail"
    enforce_idempotency: bool = False
    in_doubt: InDoubt = "pause"
    history: Literal["full", "last"] = "full"

    kind: ClassVar[str] = "granular"


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheStep(BaseStep):
    """Answers from the cache when `step` was asked the same before.

    `cache=CachePolicy(…)` on a step does the same without a step around it.
    """

    step: BaseStep
    key: Logic | None = None
    """A further part of the key, beside what the step is and what it is handed."""
    ttl_s: float | None = None
    """For how many seconds an answer is good, from when it was given."""

    kind: ClassVar[str] = "cache"

    @property
    def policy(self) -> CachePolicy:
        """How its answers are kept."""
        return CachePolicy(key=self.key, ttl_s=self.ttl_s)

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return a body of the one step."""
        from flujo.domain.pipeline import Pipeline  # here: a pipeline is made of steps

        return {"step": Pipeline((self.step,))}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportStep(BaseStep):
    """Another blueprint as one step; resolved when the tree is built, so that nobody opens files later."""

    blueprint: str
    """The path, relative to the project's root."""
    pipeline: Pipeline
    arguments: Mapping[str, Value] | None = None
    context: Literal["own", "inherit"] = "own"
    """Whether its steps read and write a context of the blueprint's own, or the one around this step."""
    on_failure: Literal["fail", "skip"] | Mapping[str, Value] = "fail"

    kind: ClassVar[str] = "import"

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the imported pipeline."""
        return {"import": self.pipeline}


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanInTheLoopStep(BaseStep):
    """Asks a human and waits, for as long as it takes or until the deadline passes."""

    message: Value
    answer_schema: Any = None
    deadline_s: float | None = None
    """Counted by the database's clock from when the question is asked."""
    on_deadline: Literal["fail"] | Mapping[str, Any] = "fail"
    """What happens then: the step fails, or goes on as if `{"answer": …}` had been answered."""

    kind: ClassVar[str] = "hitl"


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeSearchStep(BaseStep):
    """Beam search: `propose` candidates, `evaluate` them, keep the best, until `goal` holds.

    Both are handed a node: `{candidate, path, depth, input}`. `propose` answers with a list of candidates,
    `evaluate` with a number or with `{score, reason}`; more is better.
    """

    propose: AgentSpec | CallableRef
    evaluate: AgentSpec | CallableRef
    goal: Logic | None = None
    """Over `candidate`, `score` and `depth`; without it the search goes to `max_depth`."""
    beam_width: int = 3
    max_depth: int = 5
    max_concurrency: int = 10
    input: Value = None

    kind: ClassVar[str] = "tree_search"
