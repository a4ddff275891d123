"""`step`: asks one agent, or calls one callable."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, TypeVar, get_args, overload

from typing_extensions import Unpack

from flujo.domain import values
from flujo.domain.agents import AgentSpec, OneOf
from flujo.domain.arguments import Node, Takes, node, takes
from flujo.domain.personal_data import CHOICES, Pii
from flujo.domain.pipeline import NO_ITEMS, BaseStep, Conversation, In, Out, Pipeline
from flujo.domain.steps.arguments import Answerer, Callables, fallback, fallback_body, on
from flujo.domain.steps.granular import Conversing, GranularStep
from flujo.domain.tools import Effect, InDoubt
from flujo.domain.values import CallableRef, Value, Valued

if TYPE_CHECKING:
    from flujo.domain.pipeline import Common

A = TypeVar("A")
B = TypeVar("B")


@node
class Processors(Node):
    """Callables that convert the input and the output of a step: each gets the result of the one before."""

    owner: ClassVar[str] = "`processors`: "

    _: KW_ONLY
    input: Takes[Callables, tuple[CallableRef, ...]] = takes(values.callable_refs, default=())
    """Convert the step's input (with `with:`, the mapping of arguments) before the call."""
    output: Takes[Callables, tuple[CallableRef, ...]] = takes(values.callable_refs, default=())
    """Convert the answer to the output, before it is validated."""


if TYPE_CHECKING:  # for overloads

    class StepKeys(Common, total=False):
        """The arguments of a step that do not affect its input and output types."""

        fallback: Step[Any, Any] | None
        processors: Processors | None
        evaluate: Sequence[str]
        validators: Callables
        effect: Effect
        enforce_idempotency: bool
        in_doubt: InDoubt
        reconcile: CallableRef | str | Callable[..., Any] | None
        pii: Pii | None


@node
class Step(BaseStep[In, Out]):
    """Asks one agent, or calls one callable."""

    kind: ClassVar[str] = "step"

    call: CallableRef | None = takes(values.callable_ref, default=None)
    """A callable or `module:callable`; its parameters `data`, `context` and `resources` get the step's input,
    the run's context and the application's resources."""
    _: KW_ONLY
    agent: AgentSpec | OneOf | None = None
    """An agent, a choice of agents, or a callable."""
    arguments: Mapping[str, Value] | None = takes(values.mapping, default=None)
    """`with:`, the callable's keyword arguments; by default the output of the step before is its `data`."""
    input: Value = takes(values.value, default=None)
    """The prompt or data, instead of the output of the step before."""
    files: Value = takes(values.value, default=None)
    """Files for the model: paths, references, or a list of them."""
    output_schema: Any = takes(values.schema, default=None)
    """A JSON Schema or a class that every answer must match."""
    processors: Processors = takes(values.instance(Processors), default=None, otherwise=Processors())
    """Callables that convert the input and the output."""
    validators: tuple[CallableRef, ...] = takes(values.callable_refs, default=())
    """Check the output: None and True accept it; False, a reason, or a `ValueError` rejects it."""
    thread: str | None = None
    """The name of a conversation: the agent sees what the earlier steps of the thread have exchanged."""
    evaluate: tuple[str, ...] = takes(values.texts, default=())
    """The evaluators that score the output: names of tables `[evaluation.evaluators.NAME]` of flujo.toml."""
    fallback: Step | None = takes(fallback, default=None)
    """The step that runs when every attempt has failed; its name is always `fallback`."""
    effect: Effect = takes(values.one_of(*get_args(Effect)), default="unsafe")
    """The effect of a call; the default is the strictest one."""
    enforce_idempotency: bool = False
    """Whether a call is recorded in the journal before it is made, and never repeated silently."""
    in_doubt: InDoubt = takes(values.one_of(*get_args(InDoubt)), default="pause")
    """The action when the result of an enforced call is unknown."""
    reconcile: CallableRef | None = takes(values.callable_ref, default=None)
    """For `in_doubt: reconcile`: gets the key, returns `{"done": True, "result": …}` or `{"done": False}`."""
    pii: Pii | None = takes(values.one_of(*CHOICES), default=None)
    """Whether personal data is masked, tokenised or kept in requests to the model, and masked in the output
    where the database has none; by default the project decides."""

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: Step[A, B],
            name: str,
            call: Callable[Concatenate[A, ...], Coroutine[Any, Any, B]],
            **keys: Unpack[StepKeys],
        ) -> None: ...
        @overload
        def __init__(
            self: Step[A, B],
            name: str,
            call: Callable[Concatenate[A, ...], B],
            **keys: Unpack[StepKeys],
        ) -> None: ...
        @overload
        def __init__(
            self,
            name: str,
            call: CallableRef | str | Callable[..., Any] | None = None,
            *,
            agent: Answerer | OneOf | None = None,
            arguments: Mapping[str, Valued] | None = None,
            input: Valued = None,
            files: Valued = None,
            output_schema: Any = None,
            thread: str | None = None,
            **keys: Unpack[StepKeys],
        ) -> None: ...
        def __init__(self, *given: Any, **keys: Any) -> None: ...

    @property
    def asks_agent(self) -> bool:
        """Whether it asks an agent: one with a model, or an object with `ask`."""
        live = None if self.call is None else self.call.live
        return self.agent is not None or callable(getattr(live, "ask", None))

    def _adapt(self, arguments: dict[str, Any]) -> None:
        answers = self._one_of(arguments, "agent", "call")
        is_agent = isinstance(answers, AgentSpec | OneOf)
        arguments |= {"agent": answers if is_agent else None, "call": None if is_agent else answers}

    def summary(self) -> str:
        """Return the agent or the callable."""
        return f"calls {self.call}" if self.agent is None else f"asks {self.agent}{on(self.thread)}"

    @property
    def has_effect(self) -> bool:
        """Whether it calls a callable with another effect than `read`."""
        return self.call is not None and self.effect != "read" and not self.asks_agent

    @property
    def sends(self) -> Value:
        """The files for the model."""
        return self.files

    @property
    def evaluators(self) -> tuple[str, ...]:
        """Those that it names."""
        return self.evaluate

    @property
    def masking(self) -> Pii | None:
        """The declaration of the step."""
        return self.pii

    @property
    def joins(self) -> str | None:
        """The thread of the step."""
        return self.thread

    def conversations(self) -> Iterator[Conversation]:
        """Yield that with the agent, or with what it calls, which may be an agent in Python."""
        yield Conversation(who=self.agent or self.call, input=self.input, schema=self.output_schema)

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the fallback; without its own `input` and `arguments` it gets those of this step."""
        return self._bodies

    @cached_property
    def _bodies(self) -> Mapping[str, Pipeline]:
        return fallback_body(
            self.fallback,
            input=self.input,
            arguments=self.arguments,
            files=self.files,
            thread=self.thread,
            pii=self.pii,
        )

    def usual_facts(self) -> Mapping[str, Any]:
        """Return the default facts of every kind, and that no fallback was used."""
        if self.fallback is None and self.cache is None:
            return NO_ITEMS
        usual = BaseStep.usual_facts(self)
        return usual if self.fallback is None else {**usual, "fell_back": False}

    def about_call(self, sent: Any) -> Any:
        """Return the data for `reconcile`: the input or the arguments of the call in doubt."""
        return sent

    @staticmethod
    def granular(name: str, agent: Conversing, **keys: Any) -> GranularStep:
        """Return a `GranularStep`."""
        return GranularStep(name, agent, **keys)


@node
class TurnStep(Step[In, Out]):
    """The turns of a `granular` step as leaves of a run; no blueprint has one."""

    kind: ClassVar[str] = "turn"

    @property
    def has_effect(self) -> bool:
        """No call of it has an effect."""
        return False


@node
class SummaryStep(Step[In, Out]):
    """A summary of older turns of a `granular` step as a leaf of a run; no blueprint has one."""

    kind: ClassVar[str] = "summary"

    @property
    def has_effect(self) -> bool:
        """No call of it has an effect."""
        return False


@node
class ToolCallStep(Step[In, Out]):
    """A tool of a `granular` step as a leaf of a run; no blueprint has one."""

    kind: ClassVar[str] = "tool"

    @property
    def has_effect(self) -> bool:
        """Whether a fork replaces its call as that of a step: the gate of tools does that itself."""
        return False

    @property
    def tool(self) -> str | None:
        """The function's name, by which its model calls it."""
        return re.split("[:.]", str(self.call))[-1]

    def about_call(self, sent: Any) -> Any:
        """Return the tool and the arguments of a call in doubt, for `reconcile`."""
        return {"tool": self.tool, "arguments": sent}
