"""`import`: another pipeline as one step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, overload

from typing_extensions import Unpack

from flujo.domain import values
from flujo.domain.arguments import node, takes
from flujo.domain.pipeline import BaseStep, Imported, In, Instead, Out, Pipeline, Shape
from flujo.domain.steps.arguments import instead
from flujo.domain.values import Value, Valued

if TYPE_CHECKING:
    from flujo.domain.pipeline import Common

A = TypeVar("A")
B = TypeVar("B")


if TYPE_CHECKING:  # for overloads

    class ImportKeys(Common, total=False):
        """The arguments of an import that do not affect its input and output types."""

        blueprint: str
        context: Literal["own", "inherit"]
        on_failure: Literal["fail", "skip"] | Mapping[str, Valued]


@node
class ImportStep(BaseStep[In, Out]):
    """Runs another pipeline as one step, in a separate scope. A blueprint is read when the tree is built."""

    kind: ClassVar[str] = "import"
    shape: ClassVar[Shape] = "import"

    pipeline: Pipeline = takes(values.instance(Pipeline))
    """The pipeline; `flujo.read_blueprint` reads one from a file."""
    _: KW_ONLY
    blueprint: str = ""
    """The path, relative to the project's root; empty for a pipeline written in Python."""
    arguments: Mapping[str, Value] | None = takes(values.mapping, default=None)
    """Its input, by name, instead of the output of the step before; placeholders are filled in."""
    context: Literal["own", "inherit"] = "own"
    """Whether its steps use the pipeline's own context, or the context of this step."""
    on_failure: Literal["fail", "skip"] | Mapping[str, Value] = takes(instead, default="fail")
    """Whether a failure fails the step, is skipped, or is replaced by `{"output": …}`."""

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: ImportStep[A, B], name: str, pipeline: Pipeline[A, B], **keys: Unpack[ImportKeys]
        ) -> None: ...
        @overload
        def __init__(
            self: ImportStep[Any, B],
            name: str,
            pipeline: Pipeline[Any, B],
            *,
            arguments: Mapping[str, Valued] | None,
            **keys: Unpack[ImportKeys],
        ) -> None: ...
        def __init__(self, *given: Any, **keys: Any) -> None: ...

    def summary(self) -> str:
        """Return the file of the pipeline."""
        return f"runs {self.blueprint}"

    @property
    def imported(self) -> Imported:
        """The pipeline, with its file."""
        return Imported(self.blueprint, self.pipeline, self.context == "inherit")

    @property
    def instead(self) -> Instead:
        """That of `on_failure`."""
        return self.on_failure

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the imported pipeline."""
        return {"import": self.pipeline}


def importing(name: str, pipeline: Pipeline, blueprint: str = "") -> BaseStep:
    """Return a step that runs a pipeline in a scope of its own."""
    return ImportStep(name, pipeline, blueprint=blueprint)
