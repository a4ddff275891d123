"""The blueprint language as pydantic models: every kind of step, every key, and its values.

One strict model per mapping; the types of single values are in `values.py`. `validation` converts pydantic's
errors to diagnostics, and the JSON Schema for editors is generated from these models. Keys that are reserved
words of Python end in an underscore (`if_`). Expressions and texts are kept as written: `compiler.py`
compiles them.
"""

# No `from __future__ import annotations`: pydantic reads these annotations at run time.

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from flujo.blueprint.language.roles import Role, Sees, Site, in_role, keys
from flujo.blueprint.language.values import (
    AgentName,
    BlueprintName,
    BranchName,
    CallableName,
    Duration,
    EventName,
    Identifier,
    JsonSchema,
    Logic,
    Maybe,
    Merge,
    NotNegative,
    Output,
    Positive,
    ScheduleName,
    Value,
    Version,
    Who,
    problem,
)
from flujo.domain import choices
from flujo.domain.executor import memory
from flujo.domain.personal_data import Pii
from flujo.domain.schedules import CatchUp, Overlap
from flujo.domain.secrets import KEY, is_reference, name_problem
from flujo.domain.steps import FALLBACK, Durability, ExecutionMode, Keep, OnError, OnLimit
from flujo.domain.tools import Effect, InDoubt
from flujo.domain.usage import UnknownPrice
from flujo.domain.values import looks_like_target, quoted_moment
from flujo.exceptions import PipelineError


def tag(name: str) -> str:
    """Return the label of an alternative in pydantic's locations.

    A blueprint cannot contain a NUL, so no user's key equals a label.
    """
    return f"\0{name}"


def _form(value: Any) -> str:
    """Return which form a key has: the long one (a mapping) or the short one (a text)."""
    return tag("mapping" if isinstance(value, dict | BaseModel) else "text")


class Strict(BaseModel):
    """A mapping of the language: unknown keys are errors, and types are not converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    renamed: ClassVar[Mapping[str, str]] = {}
    """The fields whose name in the tree differs, with that name."""

    @classmethod
    def to_tree(cls, keys: Mapping[str, Any]) -> dict[str, Any]:
        """Convert the values of this model's fields to arguments of the tree's class."""
        return {cls.renamed.get(name, name): value for name, value in keys.items()}

    @classmethod
    def from_tree(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Convert the fields of the tree's class to values of this model's fields."""
        names = {name: cls.renamed.get(name, name) for name in cls.model_fields}
        return {name: fields[field] for name, field in names.items() if field in fields}


def _not_both(model: Strict, one: str, other: str) -> None:
    """Raise if a mapping has two keys that exclude each other."""
    if getattr(model, one) is not None and getattr(model, other) is not None:
        first, second = one.rstrip("_"), other.rstrip("_")
        raise problem(
            "conflicting-keys",
            f"`{first}` and `{second}` exclude each other",
            f"keep one of them: `{first}` or `{second}`",
            key=second,
        )


# What every step has -------------------------------------------------------------------------------------


class Append(Strict):
    """`save: {findings: {append: output}}`: appends the value to a list."""

    append: Logic


Save = Annotated[
    Annotated[Logic, Tag(tag("text"))] | Annotated[Append, Tag(tag("mapping"))], Discriminator(_form)
]


class CacheKeys(Strict):
    """`cache:` on a step."""

    key: Maybe[Logic] = None
    ttl_s: Maybe[Duration] = None


class Retry(Strict):
    """`config.retry`: the wait between attempts, and the errors that are retried."""

    backoff: Literal["none", "fixed", "exponential"] = "exponential"
    initial_s: Duration = 0.5
    factor: Annotated[float, Field(ge=1)] = 2.0
    max_s: Duration = 30.0
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.2
    on: list[str] = []


class Budget(Strict):
    """`budget:`: limits of what a run may use."""

    total_cost_usd_limit: Maybe[Annotated[float, Field(gt=0)]] = None
    total_tokens_limit: Maybe[Positive] = None
    requests_limit: Maybe[Positive] = None
    tool_calls_limit: Maybe[Positive] = None
    wall_time_s_limit: Maybe[Duration] = None
    unknown_price: UnknownPrice = "refuse"


class FromData(Strict):
    """What limits from data have in common: their expression."""

    value: Logic

    @model_validator(mode="after")
    def _is_an_expression(self) -> "FromData":
        if looks_like_target(self.value):
            message = "`value` of a limit is an expression, not a callable"
            raise problem("wrong-value", message, 'for instance `value: "{{ input.n }}"`', key="value")
        return self


class Limit(FromData):
    """A limit from data, with its maximum: `{value: "{{ input.n }}", max: 100}`."""

    value: Annotated[Logic, Site(expect="int")]
    max: Positive


class TimeLimit(FromData):
    """Seconds from data, with their maximum: `{value: "{{ input.minutes * 60 }}", max: 10m}`."""

    value: Annotated[Logic, Site(expect="number")]
    max: Duration


Count = Annotated[
    Annotated[Positive, Tag(tag("text"))] | Annotated[Limit, Tag(tag("mapping"))], Discriminator(_form)
]
"""A whole number of at least 1, or a limit from data."""
Time = Annotated[
    Annotated[Duration, Tag(tag("text"))] | Annotated[TimeLimit, Tag(tag("mapping"))], Discriminator(_form)
]
"""A duration, or one from data."""


def _memory(given: int | str) -> int | str:
    try:
        memory(given, "`memory`")
    except PipelineError as error:
        raise ValueError(f"{error.message}; {error.hint}") from error
    return given


class Resources(Strict):
    """`config.resources`: what a callable needs of the worker that executes it."""

    cpu: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    gpu: Annotated[float, Field(ge=0, le=10_000)] = 0.0
    memory: Annotated[int | str, AfterValidator(_memory)] = 0


class Config(Strict):
    """`config:`: how a step is executed."""

    timeout_s: Maybe[Time] = None
    max_retries: NotNegative = 0
    retry: Maybe[Retry] = None
    execution_mode: ExecutionMode = "sync"
    durability: Maybe[Durability] = None
    queue: Maybe[Annotated[str, Field(min_length=1)]] = None
    priority: int = 0
    budget: Maybe[Budget] = None
    executor: Maybe[Annotated[str, Field(min_length=1)]] = None
    resources: Maybe[Resources] = None
    batch_size: Maybe[int] = None


class BaseStep(Strict):
    """The keys of every kind."""

    name: Identifier
    when: Annotated[Maybe[Logic], Site(Sees.WHEN, "bool")] = None
    save: Annotated[dict[Identifier, Save], Site(Sees.OUTPUT)] = {}
    cache: Maybe[CacheKeys] = None
    tags: list[str] = []
    config: Config = Config()

    repeats: ClassVar[bool] = False
    """Whether it runs its steps or agents repeatedly."""
    asks_human: ClassVar[bool] = False
    has_substitute: ClassVar[bool] = False
    """Whether its `on_error` may skip or replace a failure of the whole step."""

    @property
    def evaluators(self) -> Sequence[str]:
        """The names of the evaluators that score the step's output."""
        return ()

    @property
    def writes(self) -> Mapping[str, tuple[str, str]]:
        """The context fields that its keys write, with the keys that lead to each."""
        return {name: ("save", name) for name in self.save}

    @property
    def is_background(self) -> bool:
        """Whether it launches a task, and the run continues."""
        return self.config.execution_mode == "background"

    @property
    def imports(self) -> str | None:
        """The path of the blueprint that the step runs, as written."""
        return None

    @property
    def inherits(self) -> bool:
        """Whether the steps of an imported blueprint write to this blueprint's context."""
        return False

    @property
    def policy(self) -> "CacheKeys | CacheStep | None":
        """How the step's output is cached."""
        return self.cache

    @property
    def is_replaced(self) -> bool:
        """Whether a failure of the step is skipped or replaced by its `on_error`."""
        return self.has_substitute and getattr(self, "on_error", "fail") != "fail"

    def asked_choices(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yield the keys and the source of each expression with the choices of a question."""
        return iter(())

    def takes_previous(self) -> bool:
        """Return whether the step reads or passes on the output of the previous step."""
        given = [getattr(self, name) for name in ("input", "with_") if name in keys(type(self))]
        is_asked = bool(given) and all(one is None for one in given)
        return self.when is not None or is_asked or any(not steps for _, steps, _ in self.bodies())

    def bodies(self) -> "Iterator[Inside]":
        """Yield the steps inside this one, in the order of its keys.

        A tuple instead of a list means that the key holds a single step.
        """
        for name in in_role(type(self), Role.STEPS):
            key = keys(type(self))[name]
            yield from _inside(key, getattr(self, name), (key,))


Inside = tuple[str, Sequence[BaseStep], tuple[str, ...]]
"""A body: its name, its steps, and the path of keys to it."""


def _inside(name: str, value: Any, path: tuple[str, ...]) -> Iterator[Inside]:
    match value:
        case list():
            yield name, value, path
        case BaseStep():
            yield name, (value,), path
        case State():
            yield name, value.steps, (*path, "steps")
        case dict():
            for key, one in value.items():
                yield from _inside(key, one, (*path, key))
        case _:
            return


class AgentChoice(Strict):
    """`agent: {one_of: [a, b], by: …}`: an expression chooses one of several agents."""

    one_of: Annotated[list[AgentName], Field(json_schema_extra={"minItems": 2, "uniqueItems": True})]
    by: Annotated[Logic, Site(expect="string")]

    @model_validator(mode="before")
    @classmethod
    def _is_no_agent(cls, said: Any) -> Any:
        if isinstance(said, dict) and said.keys() & Agent.model_fields.keys():
            message = "`agent` is the name of an agent, and this is an agent"
            raise problem("wrong-type", message, "declare it below `agents:`, and write its name here")
        return said

    @model_validator(mode="after")
    def _is_a_choice(self) -> "AgentChoice":
        twice = next((name for name in self.one_of if self.one_of.count(name) > 1), None)
        if twice is not None:
            hint, message = "name each agent once", f"`one_of` names agent {twice!r} twice"
        elif len(self.one_of) < 2:
            hint = "name another one, or write `agent: NAME`"
            message = f"`one_of` has {len(self.one_of)} agents, and a choice needs 2"
        else:
            return self
        raise problem("wrong-value", message, hint, key="one_of")


Asked = Annotated[
    Annotated[AgentName, Tag(tag("text"))] | Annotated[AgentChoice, Tag(tag("mapping"))], Discriminator(_form)
]
"""The agent of a step."""


def agents_of(asked: str | AgentChoice | None) -> Sequence[str]:
    """Return the names of the agents that a step may ask."""
    return asked.one_of if isinstance(asked, AgentChoice) else [asked] if asked is not None else []


# One class per kind --------------------------------------------------------------------------------------


class Processors(Strict):
    """`processors:` of a step: callables for the input and the output."""

    input: list[CallableName] = []
    output: list[CallableName] = []


class Step(BaseStep):
    """Runs one agent, or calls one callable."""

    renamed = {"with_": "arguments"}
    kind: Literal["step"] = "step"
    agent: Maybe[Asked] = None
    call: Maybe[CallableName] = None
    with_: Maybe[dict[str, Value]] = Field(None, alias="with")
    input: Value = None
    files: Value = None
    output_schema: Maybe[JsonSchema] = None
    processors: Processors = Processors()
    validators: list[CallableName] = []
    thread: Maybe[Identifier] = None
    evaluate: list[Identifier] = []
    fallback: "Annotated[Maybe[Fallback], Role.STEPS]" = None
    effect: Effect = "unsafe"
    enforce_idempotency: bool = False
    in_doubt: InDoubt = "pause"
    reconcile: Maybe[CallableName] = None
    pii: Maybe[Pii] = None

    @property
    def evaluators(self) -> Sequence[str]:
        """Those that it names."""
        return self.evaluate

    def bodies(self) -> Iterator[Inside]:
        """Yield the fallback as executed: it inherits this step's `input` or `with` unless it has its own."""
        spare = self.fallback
        if spare is not None and spare.input is None and spare.with_ is None:
            given = {"input": self.input, **({"with_": self.with_} if spare.call else _files(self, spare))}
            spare = spare.model_copy(update=given)
        yield from _inside(FALLBACK, spare, (FALLBACK,))

    @model_validator(mode="after")
    def _asks_or_calls(self) -> "Step":
        _not_both(self, "agent", "call")
        if self.agent is None and self.call is None:
            raise problem(
                "missing-key",
                f"step `{self.name}` has neither `agent` nor `call`",
                "write `agent: NAME` (an entry of `agents:`) or `call: module:callable`",
            )
        return self


def _files(step: "Step | GranularStep", spare: "Fallback") -> dict[str, Any]:
    """Return the files of the fallback of a step, which are those of the step unless it has its own."""
    return {"files": step.files if spare.files is None else spare.files}


class Fallback(Step):
    """`fallback:` of a step: the step that replaces it on failure; it has no `name` and no `when`."""

    name: Identifier = FALLBACK

    @model_validator(mode="after")
    def _takes_over(self) -> "Fallback":
        for key, why in (
            ("name", f"it is always named `{FALLBACK}`, below its step"),
            ("when", "it runs when all attempts of the step have failed"),
        ):
            if key in self.model_fields_set:
                raise problem("unknown-key", f"a fallback has no `{key}`", f"remove it: {why}", key=key)
        return self


class OutputInstead(Strict):
    """`on_failure: {output: …}`, and `on_error`."""

    output: Value


OnFailure = Annotated[
    Annotated[Literal["fail", "skip"], Tag(tag("text"))] | Annotated[OutputInstead, Tag(tag("mapping"))],
    Discriminator(_form),
]


class ConditionalStep(BaseStep):
    """Runs one of several branches: `if/then/else`, or `switch/branches/default`."""

    has_substitute = True
    kind: Literal["conditional"]
    if_: Annotated[Maybe[Logic], Site(expect="bool")] = Field(None, alias="if")
    then: "Maybe[list[AnyStep]]" = None
    else_: "Maybe[list[AnyStep]]" = Field(None, alias="else")
    switch: Maybe[Logic] = None
    branches: "Maybe[dict[BranchName, list[AnyStep]]]" = None
    default: "Maybe[list[AnyStep]]" = None
    output: Output = None
    on_error: OnFailure = "fail"

    def takes_previous(self) -> bool:
        """Return whether the previous step's output may pass through."""
        is_passed_on = (self.if_ is not None and self.else_ is None) or self.on_error == "skip"
        return super().takes_previous() or is_passed_on

    @classmethod
    def to_tree(cls, keys: Mapping[str, Any]) -> dict[str, Any]:
        """Convert the keys; the condition is one field, beside its form."""
        form = "switch" if keys["if_"] is None else "if"
        return {
            **{name: value for name, value in keys.items() if name not in ("if_", "switch")},
            "condition": keys["if_"] if form == "if" else keys["switch"],
            "branches": keys["branches"] or {},
            "form": form,
        }

    @classmethod
    def from_tree(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keys of the form that the condition has."""
        keys = super().from_tree(fields)
        if fields["form"] == "switch":
            return {**keys, "switch": fields["condition"]}
        ways = {"then": fields["branches"].get("then"), "else_": fields["branches"].get("else")}
        return {**keys, "branches": None, "if_": fields["condition"], **ways}

    @model_validator(mode="after")
    def _one_form(self) -> "ConditionalStep":
        if self.if_ is None and self.switch is None:
            raise problem(
                "missing-key",
                f"conditional `{self.name}` has no condition",
                "write `if:` with `then:`, or `switch:` with `branches:`",
            )
        if self.default is not None and "default" in (self.branches or {}):
            raise problem(
                "conflicting-keys",
                f"conditional `{self.name}` has a branch `default` and the key `default`",
                "rename the branch, or remove the key: its steps would have the same paths",
                key="default",
            )
        for other in ("switch", "branches", "default"):
            _not_both(self, "if_", other)
        for other in ("then", "else_"):
            _not_both(self, "switch", other)
        own, needed = ("if", "then") if self.switch is None else ("switch", "branches")
        if getattr(self, needed) is None:
            raise problem(
                "missing-key", f"the `{own}` of `{self.name}` has no `{needed}`", f"add `{needed}:`", key=own
            )
        return self


class Carry(Strict):
    """A variable of a loop, read as `loop.NAME`."""

    initial: Value = None
    next: Annotated[Logic, Site(Sees.AFTER)]


class LoopStep(BaseStep):
    """Repeats its steps until a condition holds."""

    repeats = True
    has_substitute = True
    renamed = {"steps": "body"}
    kind: Literal["loop"]
    steps: "Annotated[list[AnyStep], Field(min_length=1)]"
    until: Annotated[Maybe[Logic], Site(Sees.AFTER, "bool")] = None
    max_iterations: Count = 10
    on_limit: OnLimit = "fail"
    carry: dict[Identifier, Carry] = {}
    output: Output = None
    on_error: OnFailure = "fail"

    def takes_previous(self) -> bool:
        """Return whether the previous step's output may pass through."""
        return super().takes_previous() or self.on_error == "skip"

    @classmethod
    def to_tree(cls, keys: Mapping[str, Any]) -> dict[str, Any]:
        """Convert the keys; a loop without `until`, which FLJ216 reports, gets one for the other checks."""
        fields = super().to_tree(keys)
        return fields if fields["until"] is not None else {**fields, "until": "false"}


class Transition(Strict):
    """A transition of a state machine; without `when` it is always taken."""

    to: Identifier
    when: Annotated[Maybe[Logic], Site(Sees.BODY, "bool")] = None


class State(Strict):
    """A state: its steps, then the first transition whose condition is true."""

    renamed = {"steps": "body"}
    steps: "list[AnyStep]" = []
    transitions: list[Transition] = []
    on_error: Maybe[Identifier] = None


class StateMachineStep(BaseStep):
    """Runs states until a final one."""

    repeats = True
    kind: Literal["state_machine"]
    initial: Identifier
    states: Annotated[dict[Identifier, State], Field(min_length=1), Role.STEPS]
    final: Annotated[list[Identifier], Field(min_length=1)]
    max_transitions: Positive = 50
    on_error: Maybe[Identifier] = None
    output: Output = None


class MapStep(BaseStep):
    """Runs its steps once for each item."""

    repeats = True
    renamed = {"steps": "body", "as_": "item_name"}
    kind: Literal["map"]
    over: Annotated[Logic, Site(expect="list")]
    as_: Maybe[Identifier] = Field(None, alias="as")
    steps: "Annotated[list[AnyStep], Field(min_length=1)]"
    max_concurrency: Count = 10
    on_error: OnError = "fail"
    keep: Keep = "outputs"
    merge: Merge = "no_merge"
    output: Output = None

    def takes_previous(self) -> bool:
        """Return whether a callable computes the items from the previous step's output."""
        return super().takes_previous() or looks_like_target(self.over)


class BranchesAtOnce(BaseStep):
    """The common keys of `parallel` and `router`."""

    has_substitute = True
    branches: "Annotated[dict[BranchName, list[AnyStep]], Field(min_length=1)]"
    merge: Merge = "context_update"
    field_mapping: dict[BranchName, list[Identifier]] = {}
    on_branch_failure: OnError = "fail"
    max_concurrency: Maybe[Count] = None
    output: Output = None
    on_error: OnFailure = "fail"

    def takes_previous(self) -> bool:
        """Return whether the previous step's output may pass through."""
        return super().takes_previous() or self.on_error == "skip"


class ParallelStep(BranchesAtOnce):
    """Runs all its branches concurrently."""

    kind: Literal["parallel"]


class RouterStep(BranchesAtOnce):
    """An agent or a callable chooses branches, which then run concurrently."""

    kind: Literal["router"]
    router: Who
    input: Value = None


class History(Strict):
    """`history: {max_tokens: …}`."""

    max_tokens: Positive
    keep: Literal["last", "summary"] = "last"


HistoryLimit = Annotated[
    Annotated[Literal["full"], Tag(tag("text"))] | Annotated[History, Tag(tag("mapping"))],
    Discriminator(_form),
]


class GranularStep(BaseStep):
    """An agent that works in turns, each of which is journaled."""

    kind: Literal["granular"]
    agent: Asked
    input: Value = None
    files: Value = None
    max_turns: Positive = 20
    on_limit: Literal["fail", "finish", "pause"] = "fail"
    max_tool_concurrency: Positive = 10
    enforce_idempotency: bool = False
    in_doubt: InDoubt = "pause"
    reconcile: Maybe[CallableName] = None
    output_schema: Maybe[JsonSchema] = None
    validators: list[CallableName] = []
    thread: Maybe[Identifier] = None
    evaluate: list[Identifier] = []
    fallback: "Annotated[Maybe[Fallback], Role.STEPS]" = None
    history: HistoryLimit = "full"
    pii: Maybe[Pii] = None

    @property
    def evaluators(self) -> Sequence[str]:
        """Those that it names."""
        return self.evaluate

    def bodies(self) -> Iterator[Inside]:
        """Yield the fallback as executed: it inherits this step's `input` unless it has its own."""
        spare = self.fallback
        if spare is not None and spare.input is None and spare.with_ is None:
            files = {} if spare.call else _files(self, spare)
            spare = spare.model_copy(update={"input": self.input, **files})
        yield from _inside(FALLBACK, spare, (FALLBACK,))


AgentStep = Step | GranularStep
"""A step whose agent gets a prompt: one exchange, or a conversation."""


class CacheStep(BaseStep):
    """Answers from the cache when its step got the same input before."""

    kind: Literal["cache"]
    step: "AnyStep"
    key: Maybe[Logic] = None
    ttl_s: Maybe[Duration] = None

    @property
    def policy(self) -> "CacheStep":
        """How the output is cached: this step's own keys."""
        return self


class ImportStep(BaseStep):
    """Another blueprint as one step."""

    renamed = {"with_": "arguments"}
    kind: Literal["import"]
    blueprint: str
    with_: Maybe[dict[str, Value]] = Field(None, alias="with")
    context: Literal["own", "inherit"] = "own"
    on_failure: OnFailure = "fail"

    @property
    def imports(self) -> str | None:
        """The path of the blueprint that the step runs, as written."""
        return self.blueprint

    @property
    def inherits(self) -> bool:
        """Whether the steps of an imported blueprint write to this blueprint's context."""
        return self.context == "inherit"


class AnswerInstead(Strict):
    """`on_deadline: {answer: …}`."""

    answer: Value


OnDeadline = Annotated[
    Annotated[Literal["fail"], Tag(tag("text"))] | Annotated[AnswerInstead, Tag(tag("mapping"))],
    Discriminator(_form),
]


class HitlStep(BaseStep):
    """Asks a human and pauses the run."""

    asks_human = True
    kind: Literal["hitl"]
    message: Annotated[str, Role.VALUE]
    answer_schema: Maybe[JsonSchema] = None
    deadline_s: Maybe[Time] = None
    on_deadline: OnDeadline = "fail"

    def asked_choices(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Yield the keys and the source of each expression in the answer schema."""
        for place, source in choices.written(self.answer_schema):
            yield ("answer_schema", *place), source

    @property
    def answers(self) -> Any:
        """What is known of the answer's schema before the question is opened."""
        return choices.fixed(self.answer_schema)

    @classmethod
    def from_tree(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Convert the fields; choices from data become texts."""
        said = super().from_tree(fields)
        return said | {"answer_schema": choices.as_text(said["answer_schema"])}


class SleepStep(BaseStep):
    """Waits for some time, or until a moment."""

    renamed = {"for_": "for_s"}
    kind: Literal["sleep"]
    for_: Maybe[Duration] = Field(None, alias="for")
    until: Annotated[Maybe[Logic], BeforeValidator(quoted_moment), Site(expect="string")] = None

    def takes_previous(self) -> bool:
        """Return that the previous step's output passes through."""
        return True

    @model_validator(mode="after")
    def _ends(self) -> "SleepStep":
        _not_both(self, "for_", "until")
        if self.for_ is None and self.until is None:
            raise problem(
                "missing-key",
                f"step `{self.name}` has neither `for` nor `until`",
                "write for instance `for: 3d`, or `until:` with an expression",
            )
        return self


class SetStep(BaseStep):
    """Writes values to the context."""

    renamed = {"set_": "values"}
    kind: Literal["set"]
    set_: dict[Identifier, Value] = Field(alias="set", min_length=1)

    @property
    def writes(self) -> Mapping[str, tuple[str, str]]:
        """The fields of `set`, and those of `save`."""
        return {**{name: ("set", name) for name in self.set_}, **super().writes}


class EndStep(BaseStep):
    """Ends the blueprint or the steps around it, with an output or a failure."""

    kind: Literal["end"]
    of: Literal["blueprint", "body"] = "blueprint"
    output: Value = None
    fail: Annotated[Maybe[str], Role.VALUE] = None

    def takes_previous(self) -> bool:
        """Return whether the previous step's output is the one of what it ends, or passes on."""
        return self.when is not None or (self.output is None and self.fail is None)

    @model_validator(mode="after")
    def _one_end(self) -> "EndStep":
        _not_both(self, "output", "fail")
        if self.fail is not None and self.of == "body":
            hint = "remove `of`: a failed step fails what is around it, up to a step that handles it"
            raise problem("conflicting-keys", "`fail` and `of` exclude each other", hint, key="of")
        return self


class ContinueAsNewStep(BaseStep):
    """Ends the run; a new run of the same blueprint continues it."""

    kind: Literal["continue_as_new"]
    input: Value = None

    def takes_previous(self) -> bool:
        """Return whether the previous step's output passes through: without `input`, the run's is taken."""
        return self.when is not None


class AwaitStep(BaseStep):
    """Waits for background tasks, and takes their results."""

    kind: Literal["await"]
    task: Annotated[Maybe[str], Role.VALUE] = None
    tasks: Annotated[Maybe[list[str] | str], Role.VALUE] = None
    on_failure: OnFailure = "fail"

    def takes_previous(self) -> bool:
        """Return whether the previous step's output passes through for a task that failed."""
        return self.on_failure == "skip" or self.when is not None

    @model_validator(mode="after")
    def _waits_for_tasks(self) -> "AwaitStep":
        _not_both(self, "task", "tasks")
        if self.task is None and self.tasks is None:
            raise problem(
                "missing-key",
                f"step `{self.name}` has neither `task` nor `tasks`",
                "write for instance `task: report`, the name of a step in the background",
            )
        return self


class EventStep(BaseStep):
    """Waits for an event from outside."""

    kind: Literal["event"]
    event: Maybe[EventName] = None
    key: Maybe[Logic] = None
    event_schema: Maybe[JsonSchema] = None
    deadline_s: Maybe[Time] = None
    on_deadline: OnDeadline = "fail"


class TreeSearchStep(BaseStep):
    """Proposes candidates, evaluates them, keeps the best."""

    repeats = True
    kind: Literal["tree_search"]
    propose: Annotated[Who, Site(Sees.NODE)]
    evaluate: Annotated[Who, Site(Sees.NODE)]
    input: Value = None
    goal: Annotated[Maybe[Logic], Site(Sees.CANDIDATE, "bool")] = None
    beam_width: Positive = 3
    max_depth: Positive = 5
    max_concurrency: Count = 10


def _kind(value: Any) -> str:
    kind = value.get("kind", "step") if isinstance(value, dict) else getattr(value, "kind", "step")
    return tag(kind) if isinstance(kind, str) else tag("")


AnyStep = Annotated[
    Annotated[Step, Tag(tag("step"))]
    | Annotated[ConditionalStep, Tag(tag("conditional"))]
    | Annotated[LoopStep, Tag(tag("loop"))]
    | Annotated[StateMachineStep, Tag(tag("state_machine"))]
    | Annotated[MapStep, Tag(tag("map"))]
    | Annotated[ParallelStep, Tag(tag("parallel"))]
    | Annotated[RouterStep, Tag(tag("router"))]
    | Annotated[GranularStep, Tag(tag("granular"))]
    | Annotated[CacheStep, Tag(tag("cache"))]
    | Annotated[ImportStep, Tag(tag("import"))]
    | Annotated[HitlStep, Tag(tag("hitl"))]
    | Annotated[SleepStep, Tag(tag("sleep"))]
    | Annotated[AwaitStep, Tag(tag("await"))]
    | Annotated[EventStep, Tag(tag("event"))]
    | Annotated[TreeSearchStep, Tag(tag("tree_search"))]
    | Annotated[SetStep, Tag(tag("set"))]
    | Annotated[EndStep, Tag(tag("end"))]
    | Annotated[ContinueAsNewStep, Tag(tag("continue_as_new"))],
    Discriminator(_kind),
    Role.STEPS,
]
"""A step of any kind; `kind` decides which keys it may have."""


# Agents and the blueprint itself -------------------------------------------------------------------------


class Approval(Strict):
    """`approve:` of a tool: a human approves each call, or those that `when` names."""

    when: Maybe[Logic] = None
    message: Maybe[str] = None
    deadline_s: Maybe[Time] = None
    on_deadline: Literal["fail", "deny"] = "fail"
    editable: bool = False

    @model_validator(mode="after")
    def _is_an_expression(self) -> "Approval":
        if self.when is not None and looks_like_target(self.when):
            message = "`when` of an approval is an expression, not a callable"
            raise problem("wrong-value", message, "for instance `when: args.amount > 100`", key="when")
        return self


Approve = Annotated[
    Annotated[Literal[True], Tag(tag("text"))] | Annotated[Approval, Tag(tag("mapping"))],
    Discriminator(_form),
]


def references(said: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield the secrets in values of `with:`, at any depth: the keys to `{secret: NAME}`, and the name."""
    if isinstance(said, dict) and path and is_reference(said):
        yield path, said[KEY]
    elif isinstance(said, dict | list):
        for key, each in said.items() if isinstance(said, dict) else enumerate(said):
            yield from references(each, (*path, key))


class Tool(Strict):
    """A tool in its long form: a callable with rules for its calls, a blueprint, an agent, or MCP."""

    call: Maybe[CallableName] = None
    blueprint: Maybe[str] = None
    agent: Maybe[Identifier] = None
    description: Maybe[str] = None
    name: Maybe[Identifier] = None
    max_turns: Maybe[Positive] = None
    mcp: Maybe[str] = None
    allow: Maybe[Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]] = None
    effect: Maybe[Effect] = None
    with_: dict[str, Any] = Field({}, alias="with")
    approve: Maybe[Approve] = None
    enforce_idempotency: bool = False
    in_doubt: Maybe[InDoubt] = None
    executor: Maybe[Annotated[str, Field(min_length=1)]] = None
    resources: Maybe[Resources] = None

    of: ClassVar[Sequence[str]] = ("call", "blueprint", "agent", "mcp")
    """The keys of which a tool has exactly one."""
    of_calls: ClassVar[Sequence[str]] = (
        *("effect", "enforce_idempotency", "in_doubt", "with_", "approve"),
        *("executor", "resources"),
    )
    """The keys about a call, which a blueprint and an agent do not have: the calls inside them have."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> "Tool":
        given = [key for key in self.of if getattr(self, key) is not None]
        if not given:
            names = " or ".join(f"`{key}`" for key in self.of)
            raise problem("missing-key", f"a tool has no {names}", "write `call: module:callable`")
        if len(given) > 1:
            _not_both(self, *given[:2])
        if self.blueprint is not None or self.agent is not None:
            self._require_steps(given[0])
        else:
            self._refuse(("description", "name", "max_turns"), f"a tool with `{given[0]}`", "remove it")
        if self.mcp is not None:
            self._refuse(
                ("with_",), "a tool with `mcp`", "remove it; flujo.toml has the settings of a server"
            )
            hint = "remove it; the process of a server executes its tools"
            self._refuse(("executor", "resources"), "a tool with `mcp`", hint)
        else:
            self._refuse(("allow",), f"a tool with `{given[0]}`", "remove it")
        for path, name in references(self.with_):
            if wrong := name_problem(name):
                where = ".".join(map(str, ("with", *path)))
                raise problem("wrong-value", f"`{where}`: {wrong[0]}", wrong[1], key="with")
        return self

    def _require_steps(self, kind: str) -> None:
        """Raise unless a blueprint or an agent has a description, and no key about calls."""
        if self.description is None:
            hint = "say in a sentence when the model should call it"
            raise problem("missing-key", f"a tool with `{kind}` has no `description`", hint)
        hint = "remove it, and write it where the call is made inside"
        self._refuse(self.of_calls, f"a tool with `{kind}`", hint)
        if kind == "blueprint":
            self._refuse(("max_turns",), "a tool with `blueprint`", "remove it")

    def _refuse(self, keys: Sequence[str], what: str, hint: str) -> None:
        for key in keys:
            if key in self.model_fields_set:
                name = key.rstrip("_")
                raise problem("unknown-key", f"{what} has no `{name}`", hint, key=name)


AnyTool = Annotated[
    Annotated[CallableName, Tag(tag("text"))] | Annotated[Tool, Tag(tag("mapping"))], Discriminator(_form)
]


MODEL_SETTINGS = frozenset(
    {
        "temperature",
        "max_tokens",
        "top_p",
        "seed",
        "timeout",
        "stop_sequences",
        "presence_penalty",
        "frequency_penalty",
    }
)
# Common model settings, for the hint when one is written a level too high.


class Agent(Strict):
    """An entry of `agents:`: the fields of pydantic-ai's AgentSpec, and Flujo's."""

    model: Maybe[str] = None
    extends: Maybe[Identifier] = None
    spec: Maybe[str] = None
    description: Maybe[str] = None
    instructions: Maybe[str] = None
    instructions_file: Maybe[str] = None
    template: bool = True
    trust: bool = False
    output_schema: Maybe[JsonSchema] = None
    output_type: Maybe[CallableName] = None
    model_settings: dict[str, Value] = {}
    retries: Maybe[NotNegative] = None
    tool_timeout: Maybe[Duration] = None
    tools: list[AnyTool] = []
    capabilities: list[Value] = []

    @model_validator(mode="after")
    def _one_of_each(self) -> "Agent":
        _not_both(self, "instructions", "instructions_file")
        _not_both(self, "output_schema", "output_type")
        return self


def callable_tools(agent: Agent) -> Iterator[tuple[tuple[str | int, ...], Tool]]:
    """Yield the callables among an agent's tools in their long form, each with the keys to its name."""
    for index, tool in enumerate(agent.tools):
        if isinstance(tool, str):
            yield ("tools", index), Tool.model_validate({"call": tool})
        elif tool.call is not None:
            yield ("tools", index, "call"), tool


def called_tools(agent: Agent) -> Iterator[tuple[tuple[str | int, ...], Tool]]:
    """Yield the callables and MCP servers among an agent's tools in their long form, each with its place."""
    for index, tool in enumerate(agent.tools):
        if isinstance(tool, Tool) and (tool.call is not None or tool.mcp is not None):
            yield ("tools", index), tool


def mcp_tools(agent: Agent) -> Iterator[tuple[tuple[str | int, ...], Tool]]:
    """Yield the MCP servers among an agent's tools, each with its place."""
    for index, tool in enumerate(agent.tools):
        if not isinstance(tool, str) and tool.mcp is not None:
            yield ("tools", index), tool


def composed_tools(agent: Agent) -> Iterator[tuple[int, Tool]]:
    """Yield the blueprints and agents among an agent's tools, each with its index."""
    for index, tool in enumerate(agent.tools):
        if isinstance(tool, Tool) and (tool.blueprint is not None or tool.agent is not None):
            yield index, tool


def with_helpers(names: Iterable[str], agents: Mapping[str, Agent]) -> Sequence[str]:
    """Return the names of agents, and of those that they have as tools, at any depth."""
    found = list(dict.fromkeys(names))
    for name in found:
        if name in agents:
            tools = (tool.agent for _, tool in composed_tools(agents[name]))
            found += (other for other in tools if other is not None and other not in found)
    return found


class AgentDefaults(Strict):
    """`defaults.agent`: default values for every agent."""

    model: Maybe[str] = None
    model_settings: dict[str, Value] = {}
    retries: Maybe[NotNegative] = None
    tool_timeout: Maybe[Duration] = None


class Defaults(Strict):
    """`defaults:` of a blueprint."""

    agent: AgentDefaults = AgentDefaults()
    config: Config = Config()


class AgentsFile(Strict):
    """A file of agents, for the `include` of blueprints and of other such files."""

    version: Version
    description: str = ""
    include: list[str] = []
    agents: Annotated[dict[Identifier, Agent], Field(min_length=1)]


Targets = Annotated[list[Identifier], Field(min_length=1)]


class NotifyEvents(Strict):
    """`notify: {failed: [ops]}`: the targets of each event."""

    paused: Maybe[Targets] = None
    waiting: Maybe[Targets] = None
    completed: Maybe[Targets] = None
    failed: Maybe[Targets] = None
    cancelled: Maybe[Targets] = None
    parked: Maybe[Targets] = None

    @classmethod
    def to_tree(cls, keys: Mapping[str, Any]) -> dict[str, Any]:
        """Return the events that have targets."""
        return {event: names for event, names in keys.items() if names is not None}


def _notify_form(value: Any) -> str:
    return tag("mapping") if isinstance(value, dict | NotifyEvents) else tag("list")


Notify = Annotated[
    Annotated[list[Identifier], Tag(tag("list"))] | Annotated[NotifyEvents, Tag(tag("mapping"))],
    Discriminator(_notify_form),
]
"""`notify: [ops]`, or `notify: {failed: [ops]}`."""


class Schedule(Strict):
    """`schedule:`: when workers run the blueprint, and with what."""

    renamed = {"jitter": "jitter_s"}

    name: Maybe[ScheduleName] = None
    cron: str
    timezone: str = "UTC"
    catch_up: CatchUp = "last"
    overlap: Overlap = "skip"
    jitter: Maybe[Duration] = None
    input: Any = None
    context: dict[str, Any] = {}
    queue: Maybe[Annotated[str, Field(min_length=1)]] = None
    priority: int = 0
    metadata: dict[str, Any] = {}

    @classmethod
    def to_tree(cls, keys: Mapping[str, Any]) -> dict[str, Any]:
        """Convert the values of this model's fields to arguments of the tree's class."""
        return super().to_tree(keys) | {"name": keys["name"] or "", "jitter_s": keys["jitter"] or 0.0}

    @classmethod
    def from_tree(cls, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Convert the fields of the tree's class to values of this model's fields."""
        said = super().from_tree(fields)
        return said | {"name": said["name"] or None, "jitter": said["jitter"] or None}


def _number(value: Any) -> str:
    """Return which form `schedule` has: a list of schedules, or one."""
    return tag("several" if isinstance(value, list) else "one")


Schedules = Annotated[
    Annotated[Schedule, Tag(tag("one"))] | Annotated[list[Schedule], Tag(tag("several"))],
    Discriminator(_number),
]


class Migration(Strict):
    """One of `migrations:`: a step, branch or state that had another path."""

    from_: Annotated[str, Field(alias="from", min_length=1)]
    to: Annotated[str, Field(min_length=1)]


class Blueprint(Strict):
    """A whole blueprint."""

    renamed = {"context": "context_type", "deadline": "deadline_s", "schedule": "schedules"}
    version: Version
    name: BlueprintName
    description: str = ""
    include: list[str] = []
    defaults: Defaults = Defaults()
    input_schema: Maybe[JsonSchema] = None
    context: Maybe[CallableName] = None
    context_schema: Maybe[JsonSchema] = None
    agents: dict[Identifier, Agent] = {}
    output: Output = None
    budget: Maybe[Budget] = None
    notify: Notify = []
    evaluate: list[Identifier] = []
    deadline: Maybe[Time] = None
    schedule: Schedules = []
    migrations: list[Migration] = []
    steps: Annotated[list[AnyStep], Field(min_length=1)]
    on_failure: list[AnyStep] = []
    finally_: list[AnyStep] = Field([], alias="finally")

    @model_validator(mode="after")
    def _one_context(self) -> "Blueprint":
        _not_both(self, "context", "context_schema")
        return self


def scheduled(blueprint: Blueprint) -> list[Schedule]:
    """Return the schedules of a blueprint."""
    return blueprint.schedule if isinstance(blueprint.schedule, list) else [blueprint.schedule]


_ANY_OF = [get_args(each)[0] for each in get_args(get_args(AnyStep)[0])]
KINDS: Mapping[str, type[BaseStep]] = {
    get_args(model.model_fields["kind"].annotation)[0]: model for model in _ANY_OF
}
"""Every kind of step with its model, in the order of the language's table."""
