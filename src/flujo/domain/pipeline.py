"""A pipeline: steps in order, with what the whole of them takes, keeps and gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flujo.domain.journal import ROOT, StepPath, child

if TYPE_CHECKING:
    from flujo.domain.steps import BaseStep, CallableRef, Value


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The tree. A body (branch, iteration, state) is a pipeline too, with nothing but steps and an output."""

    steps: tuple[BaseStep, ...] = ()
    name: str = ""
    description: str = ""
    input_schema: Any = None
    context_schema: Any = None
    """A JSON Schema of the context, when its fields are given in place."""
    context_type: CallableRef | None = None
    """The `PipelineContext` subclass, when it is named."""
    output: Value = None
    """What comes out; None means the output of the last step that ran."""
    budget: Mapping[str, float] = field(default_factory=dict)

    def __rshift__(self, other: Pipeline | BaseStep) -> Pipeline:
        """Return this pipeline followed by a step, or by another pipeline's steps."""
        more = other.steps if isinstance(other, Pipeline) else (other,)
        return replace(self, steps=(*self.steps, *more))

    def walk(self, path: StepPath = ROOT) -> Iterator[tuple[StepPath, BaseStep]]:
        """Yield each step with its path in the tree (without counts), outer steps first."""
        for step in self.steps:
            here = child(path, step.name)
            yield here, step
            for body in step.bodies().values():
                yield from body.walk(here)
