"""The syntax tree: every kind of step, as plain data. YAML and Python are two doors to these classes.

A tree holds expressions, texts, schemas and names; it holds nothing compiled. `services.wiring.bind`
imports and compiles what a tree names and hands the engine what it calls. Read from top to bottom: what
every step has, then one class a kind, in the order of the manual.

Fields have the words of the YAML. Constructors take what Python has for them: callables, texts, a list of
steps or one step where a body stands; what they make of it is the same plain data (`domain.leaves`).
`Step[In, Out]` says what a step takes and gives; type checkers join steps by it, and it holds no data.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, Generic, Literal, TypedDict, TypeVar, overload

from typing_extensions import Unpack

from flujo.domain import leaves
from flujo.domain.agents import AgentSpec
from flujo.domain.leaves import CallableRef as CallableRef
from flujo.domain.leaves import Expr as Expr
from flujo.domain.leaves import Logic as Logic
from flujo.domain.leaves import Logical, Valued
from flujo.domain.leaves import Text as Text
from flujo.domain.leaves import Value as Value
from flujo.domain.pipeline import Body, Given, Pipeline, Taken, body
from flujo.exceptions import PipelineError

if TYPE_CHECKING:
    from flujo.domain.retry import RetryPolicy

NO_ITEMS: Mapping[str, Any] = MappingProxyType({})
PREVIOUS = Expr("previous")

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")

Who = AgentSpec | CallableRef | str | Callable[..., Any]
"""Who answers: an agent, or a callable."""


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


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class CachePolicy:
    """`cache:` on a step: a further key beside the default one, and how long an answer is good."""

    key: Logic | None
    ttl_s: float | None

    def __init__(self, *, key: Logical | None = None, ttl_s: float | None = None) -> None:
        """Take the further key, and for how many seconds an answer is good."""
        _set(self, key=leaves.maybe_logic(key, "`cache`: `key`"), ttl_s=ttl_s)


@dataclass(frozen=True, kw_only=True)
class BaseStep(Generic[Taken, Given]):
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

    def usual_facts(self) -> Mapping[str, Any]:
        """Return what can be read beside the output when the step itself says nothing else."""
        return NO_ITEMS if self.cache is None else {"cached": False}

    def __rshift__(self, other: BaseStep[Given, C] | Pipeline[Given, C]) -> Pipeline[Taken, C]:
        """Return a pipeline of this step and what follows it."""
        return body(self, "`>>`") >> other


Callables = Sequence[CallableRef | str | Callable[..., Any]]
"""Several callables, each as itself or as `module:callable`."""

Saved = Save | Logical | Mapping[str, Logical]
"""What is saved: an expression or a callable; `{"append": …}` puts it at the end of a list."""


class Common(TypedDict, total=False):
    """The keys of every kind."""

    when: Logical | None
    save: Mapping[str, Saved]
    cache: CachePolicy | None
    tags: Sequence[str]
    config: StepConfig


# One class a kind ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class Processors:
    """Callables on the way in and out: each gets what the one before it returned."""

    input: tuple[CallableRef, ...]
    """They make what is really asked out of the step's input (with `with:`, the mapping of arguments)."""
    output: tuple[CallableRef, ...]
    """They make the output out of what came back, before it is validated."""

    def __init__(self, *, input: Callables = (), output: Callables = ()) -> None:
        """Take the callables of each way, in their order."""
        _set(
            self,
            input=leaves.callable_refs(input, "`processors`: `input`"),
            output=leaves.callable_refs(output, "`processors`: `output`"),
        )


FALLBACK = "fallback"
"""The name of every step that takes over from another one, and so the end of its path."""


@dataclass(frozen=True, kw_only=True, init=False)
class Step(BaseStep[Taken, Given]):
    """The atomic unit: one agent is asked, or one callable is called."""

    agent: AgentSpec | None
    call: CallableRef | None
    arguments: Mapping[str, Value] | None
    """`with:`; None when it is not given, so that `previous` goes to the callable."""
    input: Value
    """The prompt or data; None means `previous`."""
    output_schema: Any
    processors: Processors
    validators: tuple[CallableRef, ...]
    """They judge the output: None and True are fine; False, a reason, or a `ValueError` is not."""
    fallback: Step | None
    """What takes over when every attempt has failed; called `fallback`, whatever name it was given."""
    effect: Effect
    """What calling it does to the world; undeclared is the worst."""
    enforce_idempotency: bool
    """Whether a call is announced in the journal before it is made, and never silently made twice."""
    in_doubt: InDoubt
    """What happens when nobody saw how an enforced call ended."""
    reconcile: CallableRef | None
    """For `in_doubt: reconcile`: gets the key, says `{"done": True, "result": …}` or `{"done": False}`."""

    kind: ClassVar[str] = "step"

    @overload
    def __init__(
        self: Step[A, B],
        name: str,
        call: Callable[Concatenate[A, ...], Coroutine[Any, Any, B]],
        *,
        arguments: None = None,
        input: None = None,
        output_schema: None = None,
        fallback: Step[A, Any] | None = None,
        processors: Processors | None = None,
        validators: Callables = (),
        effect: Effect = "unsafe",
        enforce_idempotency: bool = False,
        in_doubt: InDoubt = "pause",
        reconcile: CallableRef | str | Callable[..., Any] | None = None,
        **common: Unpack[Common],
    ) -> None: ...
    @overload
    def __init__(
        self: Step[A, B],
        name: str,
        call: Callable[Concatenate[A, ...], B],
        *,
        arguments: None = None,
        input: None = None,
        output_schema: None = None,
        fallback: Step[A, Any] | None = None,
        processors: Processors | None = None,
        validators: Callables = (),
        effect: Effect = "unsafe",
        enforce_idempotency: bool = False,
        in_doubt: InDoubt = "pause",
        reconcile: CallableRef | str | Callable[..., Any] | None = None,
        **common: Unpack[Common],
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        call: CallableRef | str | Callable[..., Any] | None = None,
        *,
        agent: Who | None = None,
        arguments: Mapping[str, Valued] | None = None,
        input: Valued = None,
        output_schema: Any = None,
        fallback: Step[Any, Any] | None = None,
        processors: Processors | None = None,
        validators: Callables = (),
        effect: Effect = "unsafe",
        enforce_idempotency: bool = False,
        in_doubt: InDoubt = "pause",
        reconcile: CallableRef | str | Callable[..., Any] | None = None,
        **common: Unpack[Common],
    ) -> None: ...
    def __init__(
        self,
        name: str,
        call: Any = None,
        *,
        agent: Who | None = None,
        arguments: Mapping[str, Valued] | None = None,
        input: Valued = None,
        output_schema: Any = None,
        fallback: Step[Any, Any] | None = None,
        processors: Processors | None = None,
        validators: Callables = (),
        effect: Effect = "unsafe",
        enforce_idempotency: bool = False,
        in_doubt: InDoubt = "pause",
        reconcile: CallableRef | str | Callable[..., Any] | None = None,
        **common: Unpack[Common],
    ) -> None:
        """Take who answers, and what they are asked.

        Args:
            name: an identifier.
            call: a callable or `module:callable`; parameters called `data`, `context` and `resources` get
                the step's input, the run's context and the application's resources.
            agent: an agent; a callable is one as well.
            arguments: keyword arguments of the callable; texts in them are filled in.
            input: the prompt or data, instead of the output of the step before.
            output_schema: a JSON Schema or a class that every answer has to fit.
            fallback: the step that takes over when every attempt of this one has failed; it has no `when`.
            processors: callables that change what is asked, and what came back.
            validators: callables that judge the output; why they refuse it is shown to a model.
            effect: what calling does to the world.
            enforce_idempotency: whether a call is issued at most once.
            in_doubt: what happens when nobody knows whether a call arrived.
            reconcile: for `in_doubt="reconcile"`: is told the key, and says whether the call was made.
            common: `when`, `save`, `cache`, `tags`, `config`.

        Raises:
            PipelineError: there is nobody who answers, or an argument is of another kind.
        """
        at = _At(name)
        who = at.one_of(agent=agent, call=call)
        _fill(
            self,
            common,
            name=name,
            agent=who if isinstance(who, AgentSpec) else None,
            call=None if isinstance(who, AgentSpec) else leaves.callable_ref(who, at("call")),
            arguments=leaves.maybe_mapping(arguments, at("arguments")),
            input=leaves.value(input, at("input")),
            output_schema=leaves.schema(output_schema, at("output_schema")),
            fallback=None if fallback is None else _taking_over(fallback, name),
            processors=Processors() if processors is None else processors,
            validators=leaves.callable_refs(validators, at("validators")),
            effect=effect,
            enforce_idempotency=enforce_idempotency,
            in_doubt=in_doubt,
            reconcile=None if reconcile is None else leaves.callable_ref(reconcile, at("reconcile")),
        )

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the fallback; one that says nothing of its input is asked the same as this step."""
        spare = self.fallback
        if spare is None:
            return NO_ITEMS
        if spare.input is None and spare.arguments is None:
            arguments = self.arguments if spare.call is not None else None
            spare = replace(spare, input=self.input, arguments=arguments)
        return {FALLBACK: Pipeline((spare,))}

    def usual_facts(self) -> Mapping[str, Any]:
        """Return that the step itself gave the output, besides what is true of every kind."""
        usual = BaseStep.usual_facts(self)
        return usual if self.fallback is None else {**usual, "fell_back": False}

    @staticmethod
    def granular(name: str, agent: AgentSpec, **keys: Any) -> GranularStep:
        """Return a step whose agent is journaled turn by turn; the same as `GranularStep(…)`."""
        return GranularStep(name, agent, **keys)


@dataclass(frozen=True, kw_only=True, init=False)
class ConditionalStep(BaseStep[Taken, Given]):
    """Routing: `form` says whether `condition` is an `if` (branches `then`, `else`) or a `switch`."""

    condition: Logic
    form: Literal["if", "switch"]
    branches: Mapping[str, Pipeline]
    default: Pipeline | None
    output: Value

    kind: ClassVar[str] = "conditional"

    def __init__(
        self,
        name: str,
        *,
        condition: Logical | None = None,
        condition_callable: Logical | None = None,
        then: Body | None = None,
        else_: Body | None = None,
        branches: Mapping[str, Body] = NO_ITEMS,
        default: Body | None = None,
        form: Literal["if", "switch"] | None = None,
        output: Valued = None,
        **common: Unpack[Common],
    ) -> None:
        """Take a condition with `then` and `else_`, or with `branches` and `default`.

        Args:
            name: an identifier.
            condition: true or false for `then` and `else_`; the name of a branch for `branches`.
            condition_callable: the same, as the manual says it.
            then: what is run when the condition holds.
            else_: what is run otherwise; without it, what came in goes on.
            branches: what is run, by the condition's value.
            default: what is run when there is no such branch; without it, that is an error.
            form: which of the two it is; it follows from the branches' names when it is not given.
            output: what comes out, instead of the branch's output.
            common: `when`, `save`, `cache`, `tags`, `config`.

        Raises:
            PipelineError: both forms are mixed, or an argument is of another kind.
        """
        at = _At(name)
        ways = {**branches, **{key: way for key, way in (("then", then), ("else", else_)) if way is not None}}
        fits_if = default is None and ways.keys() <= {"then", "else"}
        if not fits_if and (form == "if" or then is not None or else_ is not None):
            raise PipelineError(
                f"step {name!r} mixes the two forms of a condition",
                hint="give `then` and `else_`, or `branches` and `default`",
            )
        _fill(
            self,
            common,
            name=name,
            condition=leaves.logic(
                at.one_of(condition=condition, condition_callable=condition_callable), at("condition")
            ),
            form=form or ("if" if fits_if else "switch"),
            branches=at.bodies("branches", ways),
            default=None if default is None else body(default, at("default")),
            output=leaves.value(output, at("output")),
        )

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the branches, and `default` under its own name."""
        return {**self.branches, "default": self.default} if self.default else self.branches


@dataclass(frozen=True, slots=True, init=False)
class Carry:
    """A variable of a loop: its value before the first iteration, and the expression of the next one."""

    initial: Value
    next: Logic

    def __init__(self, initial: Valued, next: Logical) -> None:
        """Take the value before the first iteration, and how the next one follows."""
        _set(
            self,
            initial=leaves.value(initial, "`carry`: `initial`"),
            next=leaves.logic(next, "`carry`: `next`"),
        )


@dataclass(frozen=True, kw_only=True, init=False)
class LoopStep(BaseStep[Taken, Given]):
    """Repeats `body` until `until` holds, at most `max_iterations` times."""

    body: Pipeline
    until: Logic
    max_iterations: int
    on_limit: OnLimit
    carry: Mapping[str, Carry]
    output: Value

    kind: ClassVar[str] = "loop"

    def __init__(
        self,
        name: str,
        body: Body,
        *,
        until: Logical | None = None,
        exit_condition_callable: Logical | None = None,
        max_iterations: int = 10,
        on_limit: OnLimit = "fail",
        carry: Mapping[str, Carry] = NO_ITEMS,
        output: Valued = None,
        **common: Unpack[Common],
    ) -> None:
        """Take what is repeated, and when that ends.

        Args:
            name: an identifier.
            body: the steps of one iteration.
            until: judged after each iteration, where the body's steps are visible; a callable gets `data`,
                the iteration's output, and `context`.
            exit_condition_callable: the same, as the manual says it.
            max_iterations: how many there are at most.
            on_limit: whether the step fails when there were so many.
            carry: variables of the loop, read as `loop.NAME`.
            output: what comes out, instead of the last iteration's output.
            common: `when`, `save`, `cache`, `tags`, `config`.

        Raises:
            PipelineError: there is no condition, or an argument is of another kind.
        """
        at = _At(name)
        _fill(
            self,
            common,
            name=name,
            body=_body(body, at("body")),
            until=leaves.logic(
                at.one_of(until=until, exit_condition_callable=exit_condition_callable), at("until")
            ),
            max_iterations=at.count("max_iterations", max_iterations),
            on_limit=on_limit,
            carry=at.each("carry", carry, Carry),
            output=leaves.value(output, at("output")),
        )

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the body."""
        return {"steps": self.body}


@dataclass(frozen=True, slots=True, init=False)
class Transition:
    """An edge of a state machine; without `when` it is the `else`."""

    to: str
    when: Logic | None

    def __init__(self, to: str, when: Logical | None = None) -> None:
        """Take the state that it leads to, and when."""
        _set(self, to=to, when=leaves.maybe_logic(when, f"transition to {to!r}: `when`"))


@dataclass(frozen=True, slots=True, init=False)
class State:
    """A state: its steps, and where it may go; none for a final state."""

    body: Pipeline
    transitions: tuple[Transition, ...]

    def __init__(self, body: Body = (), transitions: Sequence[Transition] = ()) -> None:
        """Take the state's steps and the ways out, of which the first that holds is taken."""
        _set(self, body=_body(body, "a state's `body`"), transitions=tuple(transitions))


@dataclass(frozen=True, kw_only=True, init=False)
class StateMachineStep(BaseStep[Taken, Given]):
    """Visits states from `initial` until one of `final` is left."""

    initial: str
    states: Mapping[str, State]
    final: tuple[str, ...]
    max_transitions: int
    output: Value

    kind: ClassVar[str] = "state_machine"

    def __init__(
        self,
        name: str,
        *,
        initial: str,
        states: Mapping[str, State],
        final: Sequence[str],
        max_transitions: int = 50,
        output: Valued = None,
        **common: Unpack[Common],
    ) -> None:
        """Take the states, where it begins and where it ends.

        Args:
            name: an identifier.
            initial: the first state.
            states: each with its steps and transitions.
            final: the states after which it is over.
            max_transitions: how many there are at most.
            output: what comes out, instead of the output of the last step that ran.
            common: `when`, `save`, `cache`, `tags`, `config`.

        Raises:
            PipelineError: an argument is of another kind.
        """
        at = _At(name)
        _fill(
            self,
            common,
            name=name,
            initial=initial,
            states=at.each("states", states, State),
            final=at.texts("final", final),
            max_transitions=at.count("max_transitions", max_transitions),
            output=leaves.value(output, at("output")),
        )

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return each state's steps."""
        return {name: state.body for name, state in self.states.items()}


@dataclass(frozen=True, kw_only=True, init=False)
class MapStep(BaseStep[Taken, Given]):
    """Runs `body` once for each item of `over`; results in the input's order."""

    over: Logic
    body: Pipeline
    item_name: str | None
    """`as`: a second name for `item`."""
    max_concurrency: int
    on_error: OnError
    merge: str | CallableRef
    output: Value

    kind: ClassVar[str] = "map"

    def __init__(
        self,
        name: str,
        body: Body,
        *,
        over: Logical = PREVIOUS,
        item_name: str | None = None,
        max_concurrency: int = 10,
        on_error: OnError = "fail",
        merge: Merge | None = None,
        merge_strategy: Merge | None = None,
        output: Valued = None,
        **common: Unpack[Common],
    ) -> None:
        """Take what is done with each item.

        Args:
            name: an identifier.
            body: the steps of one item, which is the first one's input and visible as `item`.
            over: the items: an expression, or a callable that gives a list or an async iterator.
            item_name: a second name for `item`.
            max_concurrency: how many items are worked on at once.
            on_error: whether an item's failure fails the step, is collected, or is left out.
            merge: what becomes of what items write to the context; by default nothing is kept.
            merge_strategy: the same, as the manual says it.
            output: what comes out, instead of the list of outputs.
            common: `when`, `save`, `cache`, `tags`, `config`.

        Raises:
            PipelineError: an argument is of another kind.
        """
        at = _At(name)
        _fill(
            self,
            common,
            name=name,
            over=leaves.logic(over, at("over")),
            body=_body(body, at("body")),
            item_name=item_name,
            max_concurrency=at.count("max_concurrency", max_concurrency),
            on_error=on_error,
            merge=at.merge(merge, merge_strategy, "no_merge"),
            output=leaves.value(output, at("output")),
        )

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the body."""
        return {"steps": self.body}


@dataclass(frozen=True, kw_only=True, init=False)
class ParallelStep(BaseStep[Taken, Given]):
    """Runs all branches at once, each on its own view of the context, then merges what they wrote."""

    branches: Mapping[str, Pipeline]
    merge: str | CallableRef
    field_mapping: Mapping[str, tuple[str, ...]]
    on_branch_failure: OnError
    max_concurrency: int | None
    output: Value

    kind: ClassVar[str] = "parallel"

    def __init__(
        self,
        name: str,
        branches: Mapping[str, Body],
        *,
        merge: Merge | None = None,
        merge_strategy: Merge | None = None,
        field_mapping: Mapping[str, Sequence[str]] = NO_ITEMS,
        on_branch_failure: OnError = "fail",
        max_concurrency: int | None = None,
        output: Valued = None,
        **common: Unpack[Common],
    ) -> None:
        """Take the branches, and how what they write comes together.

        Args:
            name: an identifier.
            branches: the steps of each branch.
            merge: a strategy, or a callable of yours; by default `CONTEXT_UPDATE`.
            merge_strategy: the same, as the manual says it.
            field_mapping: the fields of the context that each branch may write.
            on_branch_failure: whether a branch's failure fails the step, is collected, or is left out.
            max_concurrency: how many branches run at once; without it, all.
            output: what comes out, instead of `{branch: output}`.
            common: `when`, `save`, `cache`, `tags`, `config`.

        Raises:
            PipelineError: an argument is of another kind.
        """
        own = _branching(
            _At(name),
            branches,
            merge,
            merge_strategy,
            field_mapping,
            on_branch_failure,
            max_concurrency,
            output,
        )
        _fill(self, common, name=name, **own)

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the branches."""
        return self.branches


@dataclass(frozen=True, kw_only=True, init=False)
class DynamicParallelRouterStep(ParallelStep[Taken, Given]):
    """A parallel step whose branches are chosen by an agent or a callable."""

    router: AgentSpec | CallableRef
    input: Value

    kind: ClassVar[str] = "router"

    def __init__(
        self,
        name: str,
        branches: Mapping[str, Body],
        *,
        router: Who | None = None,
        router_agent: Who | None = None,
        input: Valued = None,
        merge: Merge | None = None,
        merge_strategy: Merge | None = None,
        field_mapping: Mapping[str, Sequence[str]] = NO_ITEMS,
        on_branch_failure: OnError = "fail",
        max_concurrency: int | None = None,
        output: Valued = None,
        **common: Unpack[Common],
    ) -> None:
        """Take who chooses, and what can be chosen; the other arguments are `ParallelStep`'s.

        Args:
            name: an identifier.
            branches: the steps of each branch.
            router: an agent or a callable that answers with the names of branches.
            router_agent: the same, as the manual says it.
            input: what is asked, instead of the output of the step before.
            merge: see `ParallelStep`.
            merge_strategy: see there.
            field_mapping: see there.
            on_branch_failure: see there.
            max_concurrency: see there.
            output: see there.
            common: `when`, `save`, `cache`, `tags`, `config`.

        Raises:
            PipelineError: nobody chooses, or an argument is of another kind.
        """
        at = _At(name)
        own = _branching(
            at, branches, merge, merge_strategy, field_mapping, on_branch_failure, max_concurrency, output
        )
        router = at.who("router", at.one_of(router=router, router_agent=router_agent))
        _fill(self, common, name=name, router=router, input=leaves.value(input, at("input")), **own)


@dataclass(frozen=True, kw_only=True, init=False)
class GranularStep(BaseStep[Taken, Given]):
    """An agent that is journaled turn by turn."""

    agent: AgentSpec
    input: Value
    max_turns: int
    on_limit: OnLimit
    enforce_idempotency: bool
    in_doubt: InDoubt
    history: Literal["full", "last"]

    kind: ClassVar[str] = "granular"

    def __init__(
        self,
        name: str,
        agent: AgentSpec,
        *,
        input: Valued = None,
        max_turns: int = 20,
        on_limit: OnLimit = "fail",
        enforce_idempotency: bool = False,
        in_doubt: InDoubt = "pause",
        history: Literal["full", "last"] = "full",
        **common: Unpack[Common],
    ) -> None:
        """Take the agent. It has its place in the tree; a runner refuses it, because it is not available yet.

        Args:
            name: an identifier.
            agent: who answers, turn by turn.
            input: the prompt, instead of the output of the step before.
            max_turns: how many turns there are at most.
            on_limit: whether the step fails when there were so many.
            enforce_idempotency: whether a tool call is issued at most once.
            in_doubt: what happens when nobody knows whether a call arrived.
            history: what the model sees of its turns so far.
            common: `when`, `save`, `cache`, `tags`, `config`.
        """
        at = _At(name)
        _fill(
            self,
            common,
            name=name,
            agent=at.a(AgentSpec, "agent", agent),
            input=leaves.value(input, at("input")),
            max_turns=at.count("max_turns", max_turns),
            on_limit=on_limit,
            enforce_idempotency=enforce_idempotency,
            in_doubt=in_doubt,
            history=history,
        )


@dataclass(frozen=True, kw_only=True, init=False)
class CacheStep(BaseStep[Taken, Given]):
    """Answers from the cache when `step` was asked the same before.

    `cache=CachePolicy(…)` on a step does the same without a step around it.
    """

    step: BaseStep
    key: Logic | None
    """A further part of the key, beside what the step is and what it is handed."""
    ttl_s: float | None
    """For how many seconds an answer is good, from when it was given."""

    kind: ClassVar[str] = "cache"

    def __init__(
        self,
        name: str,
        step: BaseStep[Taken, Given],
        *,
        key: Logical | None = None,
        ttl_s: float | None = None,
        **common: Unpack[Common],
    ) -> None:
        """Take the step whose answers are kept.

        Args:
            name: an identifier.
            step: who is asked when the cache has no answer.
            key: a further part of the key, beside what the step is and what it is handed.
            ttl_s: for how many seconds an answer is good.
            common: `when`, `save`, `cache`, `tags`, `config`.
        """
        at = _At(name)
        key = leaves.maybe_logic(key, at("key"))
        _fill(self, common, name=name, step=at.a(BaseStep, "step", step), key=key, ttl_s=ttl_s)

    @property
    def policy(self) -> CachePolicy:
        """How its answers are kept."""
        return CachePolicy(key=self.key, ttl_s=self.ttl_s)

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return a body of the one step."""
        return {"step": Pipeline((self.step,))}


@dataclass(frozen=True, kw_only=True, init=False)
class ImportStep(BaseStep[Taken, Given]):
    """Another pipeline as one step, with a scope of its own; a blueprint is read when the tree is built."""

    blueprint: str
    """The path, relative to the project's root; empty for a pipeline written in Python."""
    pipeline: Pipeline
    arguments: Mapping[str, Value] | None
    context: Literal["own", "inherit"]
    """Whether its steps read and write a context of the pipeline's own, or the one around this step."""
    on_failure: Literal["fail", "skip"] | Mapping[str, Value]

    kind: ClassVar[str] = "import"

    @overload
    def __init__(
        self: ImportStep[A, B],
        name: str,
        pipeline: Pipeline[A, B],
        *,
        blueprint: str = "",
        arguments: None = None,
        context: Literal["own", "inherit"] = "own",
        on_failure: Literal["fail", "skip"] | Mapping[str, Valued] = "fail",
        **common: Unpack[Common],
    ) -> None: ...
    @overload
    def __init__(
        self: ImportStep[Any, B],
        name: str,
        pipeline: Pipeline[Any, B],
        *,
        blueprint: str = "",
        arguments: Mapping[str, Valued],
        context: Literal["own", "inherit"] = "own",
        on_failure: Literal["fail", "skip"] | Mapping[str, Valued] = "fail",
        **common: Unpack[Common],
    ) -> None: ...
    def __init__(
        self,
        name: str,
        pipeline: Pipeline,
        *,
        blueprint: str = "",
        arguments: Mapping[str, Valued] | None = None,
        context: Literal["own", "inherit"] = "own",
        on_failure: Literal["fail", "skip"] | Mapping[str, Valued] = "fail",
        **common: Unpack[Common],
    ) -> None:
        """Take the pipeline that is one step of another.

        Args:
            name: an identifier.
            pipeline: what is run; `flujo.read_blueprint` gives that of a file.
            blueprint: the file that it was read from.
            arguments: its input, by name, instead of the output of the step before; texts are filled in.
            context: whether its steps have a context of their own, or the one around this step.
            on_failure: whether its failure fails the step, is skipped, or gives `{"output": …}` instead.
            common: `when`, `save`, `cache`, `tags`, `config`.

        Raises:
            PipelineError: an argument is of another kind.
        """
        at = _At(name)
        _fill(
            self,
            common,
            name=name,
            blueprint=blueprint,
            pipeline=at.a(Pipeline, "pipeline", pipeline),
            arguments=leaves.maybe_mapping(arguments, at("arguments")),
            context=context,
            on_failure=at.instead("on_failure", on_failure),
        )

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the imported pipeline."""
        return {"import": self.pipeline}


@dataclass(frozen=True, kw_only=True, init=False)
class HumanInTheLoopStep(BaseStep[Taken, Given]):
    """Asks a human and waits, for as long as it takes or until the deadline passes."""

    message: Value
    answer_schema: Any
    deadline_s: float | None
    """Counted by the database's clock from when the question is asked."""
    on_deadline: Literal["fail"] | Mapping[str, Any]
    """What happens then: the step fails, or goes on as if `{"answer": …}` had been answered."""

    kind: ClassVar[str] = "hitl"

    def __init__(
        self,
        name: str,
        message: Valued,
        *,
        answer_schema: Any = None,
        deadline_s: float | None = None,
        on_deadline: Literal["fail"] | Mapping[str, Valued] = "fail",
        **common: Unpack[Common],
    ) -> None:
        """Take what is asked.

        Args:
            name: an identifier.
            message: the question; texts are filled in.
            answer_schema: a JSON Schema or a class that the answer has to fit.
            deadline_s: how long the question is open.
            on_deadline: whether the step fails then, or takes `{"answer": …}` for the answer.
            common: `when`, `save`, `cache`, `tags`, `config`.

        Raises:
            PipelineError: an argument is of another kind.
        """
        at = _At(name)
        _fill(
            self,
            common,
            name=name,
            message=leaves.value(message, at("message")),
            answer_schema=leaves.schema(answer_schema, at("answer_schema")),
            deadline_s=deadline_s,
            on_deadline=at.instead("on_deadline", on_deadline),
        )


@dataclass(frozen=True, kw_only=True, init=False)
class TreeSearchStep(BaseStep[Taken, Given]):
    """Beam search: `propose` candidates, `evaluate` them, keep the best, until `goal` holds.

    Both are handed a node: `{candidate, path, depth, input}`. `propose` answers with a list of candidates,
    `evaluate` with a number or with `{score, reason}`; more is better.
    """

    propose: AgentSpec | CallableRef
    evaluate: AgentSpec | CallableRef
    goal: Logic | None
    """Over `candidate`, `score` and `depth`; without it the search goes to `max_depth`."""
    beam_width: int
    max_depth: int
    max_concurrency: int
    input: Value

    kind: ClassVar[str] = "tree_search"

    def __init__(
        self,
        name: str,
        *,
        propose: Who,
        evaluate: Who,
        goal: Logical | None = None,
        beam_width: int = 3,
        max_depth: int = 5,
        max_concurrency: int = 10,
        input: Valued = None,
        **common: Unpack[Common],
    ) -> None:
        """Take who proposes and who judges.

        Args:
            name: an identifier.
            propose: an agent or a callable that gives candidates.
            evaluate: an agent or a callable that scores one; more is better.
            goal: when a candidate is good enough; without it the search goes to `max_depth`.
            beam_width: how many candidates of a depth are gone on with.
            max_depth: how deep it goes at most.
            max_concurrency: how many candidates are worked on at once.
            input: what is searched for, instead of the output of the step before.
            common: `when`, `save`, `cache`, `tags`, `config`.

        Raises:
            PipelineError: an argument is of another kind.
        """
        at = _At(name)
        _fill(
            self,
            common,
            name=name,
            propose=at.who("propose", propose),
            evaluate=at.who("evaluate", evaluate),
            goal=leaves.maybe_logic(goal, at("goal")),
            beam_width=at.count("beam_width", beam_width),
            max_depth=at.count("max_depth", max_depth),
            max_concurrency=at.count("max_concurrency", max_concurrency),
            input=leaves.value(input, at("input")),
        )


# What constructors make of what they are given -----------------------------------------------------------

_body = body  # `body` is also what two constructors call an argument

Merge = str | CallableRef | Callable[..., Any]
"""A `MergeStrategy` by itself or by its value, or a callable of the branches' contexts."""


@dataclass(frozen=True, slots=True)
class _At:
    """Whose argument it is, for what is said of a wrong one."""

    name: str

    def __call__(self, key: str) -> str:
        return f"step {self.name!r}: `{key}`"

    def one_of(self, **given: Any) -> Any:
        return leaves.only_one(f"step {self.name!r}", **given)

    def who(self, key: str, given: Any) -> AgentSpec | CallableRef:
        return given if isinstance(given, AgentSpec) else leaves.callable_ref(given, self(key), takes=_WHO)

    def a(self, kind: type[C], key: str, given: C) -> C:
        if not isinstance(given, kind):
            raise PipelineError(f"{self(key)} is {given!r}, and takes a `{kind.__name__}`")
        return given

    def each(self, key: str, given: Mapping[str, C], kind: type[C]) -> Mapping[str, C]:
        for name, each in given.items():
            self.a(kind, f"{key}[{name!r}]", each)
        return dict(given)

    def bodies(self, key: str, given: Mapping[str, Body]) -> Mapping[str, Pipeline]:
        return {name: body(each, self(f"{key}[{name!r}]")) for name, each in given.items()}

    def texts(self, key: str, given: Sequence[str]) -> tuple[str, ...]:
        if isinstance(given, str):
            raise PipelineError(f"{self(key)} is {given!r}, and takes a list of texts", hint=f"[{given!r}]")
        return tuple(given)

    def count(self, key: str, given: Any) -> int:
        if type(given) is not int or given < 1:
            raise PipelineError(f"{self(key)} is {given!r}, and takes a whole number of at least 1")
        return int(given)

    def merge(self, given: Merge | None, strategy: Merge | None, otherwise: str) -> str | CallableRef:
        if given is None and strategy is None:
            return otherwise
        way = self.one_of(merge=given, merge_strategy=strategy)
        if isinstance(way, str) and not leaves.looks_like_target(way):
            return str(way)
        return leaves.callable_ref(way, self("merge"), takes="a `MergeStrategy`, or a callable")

    def instead(self, key: str, given: Any) -> Any:
        return given if isinstance(given, str) else leaves.mapping(given, self(key))


_WHO = "an `AgentSpec`, a callable, or `module:callable`"


def _branching(
    at: _At,
    branches: Mapping[str, Body],
    merge: Merge | None,
    merge_strategy: Merge | None,
    field_mapping: Mapping[str, Sequence[str]],
    on_branch_failure: OnError,
    max_concurrency: int | None,
    output: Valued,
) -> dict[str, Any]:
    """Return the fields that a parallel step and a router have in common."""
    return {
        "branches": at.bodies("branches", branches),
        "merge": at.merge(merge, merge_strategy, "context_update"),
        "field_mapping": {name: at.texts("field_mapping", each) for name, each in field_mapping.items()},
        "on_branch_failure": on_branch_failure,
        "max_concurrency": None if max_concurrency is None else at.count("max_concurrency", max_concurrency),
        "output": leaves.value(output, at("output")),
    }


def _fill(step: BaseStep, common: Common, /, *, name: str, **own: Any) -> None:
    """Set the fields of a step under construction: those of every kind, and its own."""
    at = _At(name)
    unknown = [key for key in common if key not in Common.__annotations__]
    if unknown:
        known = [each.name for each in fields(step)]
        close = difflib.get_close_matches(unknown[0], known, 1, 0.6)
        raise PipelineError(
            f"step {name!r}: there is no `{unknown[0]}` on `{type(step).__name__}`",
            hint=f"did you mean `{close[0]}`?" if close else f"there are: {', '.join(known)}",
        )
    _set(
        step,
        name=name,
        when=leaves.maybe_logic(common.get("when"), at("when")),
        save={key: _save(each, at(f"save[{key!r}]")) for key, each in common.get("save", NO_ITEMS).items()},
        cache=common.get("cache"),
        tags=at.texts("tags", common.get("tags", ())),
        config=at.a(StepConfig, "config", common.get("config", StepConfig())),
        **own,
    )


def _save(given: Saved, where: str) -> Save:
    match given:
        case Save(value, append):
            return Save(leaves.logic(value, where), append)
        case {"append": value, **others} if not others:
            return Save(leaves.logic(value, where), append=True)
        case Mapping():
            raise PipelineError(f"{where} is {given!r}, and takes an expression or `{{'append': …}}`")
        case _:
            return Save(leaves.logic(given, where))


def _taking_over(spare: Step, name: str) -> Step:
    """Return a step as the fallback of the step called `name`."""
    if not isinstance(spare, Step):
        raise PipelineError(f"step {name!r}: `fallback` is a {type(spare).__name__}, and takes a `Step`")
    if spare.when is not None:
        raise PipelineError(
            f"step {name!r}: a fallback has no `when`",
            hint="leave it out: it runs when every attempt of the step has failed",
        )
    return spare if spare.name == FALLBACK else replace(spare, name=FALLBACK)


def _set(thing: Any, **values: Any) -> None:
    """Set the fields of a frozen object under construction."""
    for name, each in values.items():
        object.__setattr__(thing, name, each)
