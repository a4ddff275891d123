"""`step`: asks one agent, or calls one callable."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import KW_ONLY, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Concatenate, TypeVar, overload

from typing_extensions import Unpack

from flujo.domain import values
from flujo.domain.agents import AgentSpec
from flujo.domain.arguments import Node, Takes, node, takes
from flujo.domain.pipeline import FALLBACK, NO_ITEMS, BaseStep, Effect, In, InDoubt, Out, Pipeline
from flujo.domain.steps.arguments import Answerer, Callables
from flujo.domain.steps.granular import GranularStep
from flujo.domain.values import CallableRef, Value, Valued
from flujo.exceptions import PipelineError

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
        validators: Callables
        effect: Effect
        enforce_idempotency: bool
        in_doubt: InDoubt
        reconcile: CallableRef | str | Callable[..., Any] | None


@node
class Step(BaseStep[In, Out]):
    """Asks one agent, or calls one callable."""

    kind: ClassVar[str] = "step"

    call: CallableRef | None = takes(values.callable_ref, default=None)
    """A callable or `module:callable`; its parameters `data`, `context` and `resources` get the step's input,
    the run's context and the application's resources."""
    _: KW_ONLY
    agent: AgentSpec | None = None
    """An agent or a callable."""
    arguments: Mapping[str, Value] | None = takes(values.mapping, default=None)
    """`with:`, the callable's keyword arguments; by default the output of the step before is its `data`."""
    input: Value = takes(values.value, default=None)
    """The prompt or data, instead of the output of the step before."""
    output_schema: Any = takes(values.schema, default=None)
    """A JSON Schema or a class that every answer must match."""
    processors: Processors = takes(values.instance(Processors), default=None, otherwise=Processors())
    """Callables that convert the input and the output."""
    validators: tuple[CallableRef, ...] = takes(values.callable_refs, default=())
    """Check the output: None and True accept it; False, a reason, or a `ValueError` rejects it."""
    fallback: Step | None = takes(lambda given, where: _taking_over(given, where), default=None)
    """The step that runs when every attempt has failed; its name is always `fallback`."""
    effect: Effect = "unsafe"
    """The effect of a call; the default is the strictest one."""
    enforce_idempotency: bool = False
    """Whether a call is recorded in the journal before it is made, and never repeated silently."""
    in_doubt: InDoubt = "pause"
    """The action when the result of an enforced call is unknown."""
    reconcile: CallableRef | None = takes(values.callable_ref, default=None)
    """For `in_doubt: reconcile`: gets the key, returns `{"done": True, "result": …}` or `{"done": False}`."""

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
            agent: Answerer | None = None,
            arguments: Mapping[str, Valued] | None = None,
            input: Valued = None,
            output_schema: Any = None,
            **keys: Unpack[StepKeys],
        ) -> None: ...
        def __init__(self, *given: Any, **keys: Any) -> None: ...

    def _adapt(self, arguments: dict[str, Any]) -> None:
        answers = self._one_of(arguments, "agent", "call")
        is_agent = isinstance(answers, AgentSpec)
        arguments |= {"agent": answers if is_agent else None, "call": None if is_agent else answers}

    def summary(self) -> str:
        """Return the agent or the callable."""
        return f"calls {self.call}" if self.agent is None else f"asks {self.agent}"

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the fallback; without its own `input` and `arguments` it gets those of this step."""
        return self._bodies

    @cached_property
    def _bodies(self) -> Mapping[str, Pipeline]:
        spare = self.fallback
        if spare is None:
            return NO_ITEMS
        if spare.input is None and spare.arguments is None:
            arguments = self.arguments if spare.call is not None else None
            spare = replace(spare, input=self.input, arguments=arguments)
        return {FALLBACK: Pipeline((spare,))}

    def usual_facts(self) -> Mapping[str, Any]:
        """Return the default facts of every kind, and that no fallback was used."""
        if self.fallback is None and self.cache is None:
            return NO_ITEMS
        usual = BaseStep.usual_facts(self)
        return usual if self.fallback is None else {**usual, "fell_back": False}

    @staticmethod
    def granular(name: str, agent: AgentSpec, **keys: Any) -> GranularStep:
        """Return a `GranularStep`."""
        return GranularStep(name, agent, **keys)


def _taking_over(spare: Any, where: str) -> Step:
    """Return a step as the fallback of another one."""
    if not isinstance(spare, Step):
        raise PipelineError(f"{where} is a {type(spare).__name__}; expected a `Step`")
    if spare.when is not None:
        raise PipelineError(
            f"{where} is a step with `when`",
            hint="remove it: a fallback runs when every attempt of the step has failed",
        )
    return spare if spare.name == FALLBACK else replace(spare, name=FALLBACK)
