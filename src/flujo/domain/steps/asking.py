"""Steps that ask: an agent or a callable, or a human."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Concatenate, Literal, TypeVar, overload

from typing_extensions import Unpack

from flujo.domain import values
from flujo.domain.agents import AgentSpec
from flujo.domain.pipeline import In, Out, Pipeline
from flujo.domain.steps.base import (
    NO_ITEMS,
    Answerer,
    BaseStep,
    Callables,
    Common,
    Effect,
    InDoubt,
    OnLimit,
    put,
)
from flujo.domain.steps.making import ArgumentReader, set_fields
from flujo.domain.values import CallableRef, Value, Valued
from flujo.exceptions import PipelineError

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class Processors:
    """Callables on the way in and out: each gets what the one before it returned."""

    input: tuple[CallableRef, ...]
    """They make what is really asked out of the step's input (with `with:`, the mapping of arguments)."""
    output: tuple[CallableRef, ...]
    """They make the output out of what came back, before it is validated."""

    def __init__(self, *, input: Callables = (), output: Callables = ()) -> None:
        """Take the callables of each way, in their order."""
        put(
            self,
            input=values.callable_refs(input, "`processors`: `input`"),
            output=values.callable_refs(output, "`processors`: `output`"),
        )


FALLBACK = "fallback"
"""The name of every step that takes over from another one, and so the end of its path."""


@dataclass(frozen=True, kw_only=True, init=False)
class Step(BaseStep[In, Out]):
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
        agent: Answerer | None = None,
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
        agent: Answerer | None = None,
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
        at = ArgumentReader(name)
        who = at.one_of(agent=agent, call=call)
        set_fields(
            self,
            common,
            name=name,
            agent=who if isinstance(who, AgentSpec) else None,
            call=None if isinstance(who, AgentSpec) else values.callable_ref(who, at("call")),
            arguments=values.maybe_mapping(arguments, at("arguments")),
            input=values.value(input, at("input")),
            output_schema=values.schema(output_schema, at("output_schema")),
            fallback=None if fallback is None else _taking_over(fallback, name),
            processors=Processors() if processors is None else processors,
            validators=values.callable_refs(validators, at("validators")),
            effect=effect,
            enforce_idempotency=enforce_idempotency,
            in_doubt=in_doubt,
            reconcile=None if reconcile is None else values.callable_ref(reconcile, at("reconcile")),
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
        if self.fallback is None and self.cache is None:
            return NO_ITEMS
        usual = BaseStep.usual_facts(self)
        return usual if self.fallback is None else {**usual, "fell_back": False}

    @staticmethod
    def granular(name: str, agent: AgentSpec, **keys: Any) -> GranularStep:
        """Return a step whose agent is journaled turn by turn; the same as `GranularStep(…)`."""
        return GranularStep(name, agent, **keys)


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


@dataclass(frozen=True, kw_only=True, init=False)
class HumanInTheLoopStep(BaseStep[In, Out]):
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
        at = ArgumentReader(name)
        set_fields(
            self,
            common,
            name=name,
            message=values.value(message, at("message")),
            answer_schema=values.schema(answer_schema, at("answer_schema")),
            deadline_s=deadline_s,
            on_deadline=at.instead("on_deadline", on_deadline),
        )


@dataclass(frozen=True, kw_only=True, init=False)
class GranularStep(BaseStep[In, Out]):
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
        at = ArgumentReader(name)
        set_fields(
            self,
            common,
            name=name,
            agent=at.a(AgentSpec, "agent", agent),
            input=values.value(input, at("input")),
            max_turns=at.count("max_turns", max_turns),
            on_limit=on_limit,
            enforce_idempotency=enforce_idempotency,
            in_doubt=in_doubt,
            history=history,
        )
