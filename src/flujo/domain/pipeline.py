"""A pipeline: steps in order, with what the whole of them takes, keeps and gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, cast, overload

from typing_extensions import TypeVar  # with defaults, which `typing` has since 3.13

from flujo.domain import values
from flujo.domain.journal import ROOT, StepPath, branch, child
from flujo.exceptions import PipelineError

if TYPE_CHECKING:
    from flujo.domain.steps import BaseStep
    from flujo.domain.usage import UsageLimits
    from flujo.domain.values import CallableRef, Value, Valued

In = TypeVar("In", contravariant=True, default=Any)
"""What a step or a pipeline takes: one that takes any animal may stand where dogs come."""
Out = TypeVar("Out", covariant=True, default=Any)
"""What it gives: one that gives dogs may stand where animals are expected."""
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")


@dataclass(frozen=True, init=False)
class Pipeline(Generic[In, Out]):
    """The tree. A body (branch, iteration, state) is a pipeline too, with nothing but steps and an output."""

    steps: tuple[BaseStep, ...]
    name: str
    description: str
    input_schema: Any
    context_schema: Any
    """A JSON Schema of the context, when its fields are given in place."""
    context_type: CallableRef | None
    """The `PipelineContext` subclass, when it is named."""
    output: Value
    """What comes out; None means the output of the last step that ran."""
    budget: UsageLimits | None
    """What a run of it may use at most; where it is imported, what that part of a run may use."""

    @overload
    def __init__(
        self: Pipeline[A, B],
        steps: BaseStep[A, B] | Pipeline[A, B],
        name: str = "",
        description: str = "",
        *,
        input_schema: Any = None,
        context_schema: Any = None,
        context_type: CallableRef | type | str | None = None,
        output: None = None,
        budget: UsageLimits | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        steps: Sequence[BaseStep[Any, Any]] = (),
        name: str = "",
        description: str = "",
        *,
        input_schema: Any = None,
        context_schema: Any = None,
        context_type: CallableRef | type | str | None = None,
        output: Valued = None,
        budget: UsageLimits | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        steps: BaseStep[Any, Any] | Pipeline[Any, Any],
        name: str = "",
        description: str = "",
        *,
        input_schema: Any = None,
        context_schema: Any = None,
        context_type: CallableRef | type | str | None = None,
        output: Valued = None,
        budget: UsageLimits | None = None,
    ) -> None: ...
    def __init__(
        self,
        steps: Any = (),
        name: str = "",
        description: str = "",
        *,
        input_schema: Any = None,
        context_schema: Any = None,
        context_type: CallableRef | type | str | None = None,
        output: Valued = None,
        budget: UsageLimits | None = None,
    ) -> None:
        """Take the steps, and what the whole of them takes, keeps and gives.

        Args:
            steps: steps in order, one step, or what `>>` made of several.
            name: what runs of it are found by.
            description: a line for people.
            input_schema: a JSON Schema or a class that a run's input has to fit.
            context_schema: a JSON Schema of the context.
            context_type: the `PipelineContext` subclass of the context.
            output: what comes out, instead of the output of the last step that ran; texts are filled in.
            budget: what a run may use at most; as a step of another pipeline, what that step may use.

        Raises:
            PipelineError: an argument is of another kind.
        """
        where = f"pipeline {name!r}: " if name else "a pipeline's "
        kept = {
            "steps": _steps(steps, f"{where}`steps`"),
            "name": name,
            "description": description,
            "input_schema": values.schema(input_schema, f"{where}`input_schema`"),
            "context_schema": context_schema,
            "context_type": None
            if context_type is None
            else values.callable_ref(context_type, f"{where}`context_type`", takes="a class"),
            "output": values.value(output, f"{where}`output`"),
            "budget": budget,
        }
        for key, value in kept.items():
            object.__setattr__(self, key, value)

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


Body: TypeAlias = "Pipeline | BaseStep | Sequence[BaseStep]"
"""What may be given where steps are expected: a pipeline, one step, or several."""


def body(given: Body, where: str) -> Pipeline:
    """Return steps as a body of another step; a name is for people, and not kept.

    Raises:
        PipelineError: it is something else, or a pipeline with more than steps.
    """
    if not isinstance(given, Pipeline):
        return Pipeline(_steps(given, where))
    own = ("input_schema", "context_schema", "context_type", "output", "budget")
    said = [f"`{key}`" for key in own if getattr(given, key) is not None]
    if said:
        raise PipelineError(
            f"{where} is a pipeline with {', '.join(said)}, which would be lost",
            hint="make one step of it, `ImportStep('name', pipeline)`, or give its steps alone",
        )
    return Pipeline(given.steps) if given.name or given.description else given


def _steps(given: Any, where: str) -> tuple[BaseStep, ...]:
    from flujo.domain.steps import BaseStep  # here, because a step's bodies are pipelines

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
