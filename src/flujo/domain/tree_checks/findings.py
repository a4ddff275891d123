"""A finding of a check, and a step with its place in the tree."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from flujo.domain.paths import StepPath, child
from flujo.domain.pipeline import Pipeline
from flujo.domain.steps import BaseStep
from flujo.domain.tools import Known
from flujo.domain.values import CallableRef

if TYPE_CHECKING:
    from collections.abc import Iterator


Place: TypeAlias = tuple[int | str, ...]
"""A position in the tree: `(2, "then", 0)` is the first step of body `then` of the third step."""


Field: TypeAlias = tuple[int | str, ...]
"""The blueprint's keys that lead to a value of a step: `("config", "timeout_s")`."""
Written: TypeAlias = Callable[[Place, BaseStep], Collection[str]]
"""Returns the fields of a step that are written in its source."""
Requires: TypeAlias = Callable[[CallableRef], str]
"""Returns what a callable requires of a step that must record its calls; see `domain.tools.requirement`."""
Knows: TypeAlias = Callable[[CallableRef], Known | None]
"""Returns what a callable declares and takes, and None if that is not known yet."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with one step of a tree."""

    code: str
    place: Place
    """The step's place; `()` is the pipeline itself."""
    message: str
    hint: str | None = None
    keys: Field = ()
    """The keys of the wrong value."""
    at_key: bool = False
    """Whether the key itself is wrong, not its value."""
    is_warning: bool = False
    other: tuple[Place, str] | None = None
    """A second step that the finding refers to, and a label for it."""


@dataclass(frozen=True, slots=True)
class Site:
    """A step with its place in the tree and its readable path."""

    step: BaseStep
    place: Place
    path: StepPath

    def inside(self) -> Iterator[tuple[str, Pipeline]]:
        """Yield the bodies of the step by their names."""
        yield from self.step.bodies().items()

    def below(self, body: str, pipeline: Pipeline) -> Iterator[Site]:
        """Yield the steps of one body."""
        for index, step in enumerate(pipeline.steps):
            yield Site(step, (*self.place, body, index), child(self.path, str(step.name)))


def all_inside(site: Site, *, writes_here: bool = True) -> Iterator[tuple[Site, bool]]:
    """Yield the steps inside a step, and whether they write to the context of that step."""
    own = writes_here and (site.step.imported is None or site.step.imported.inherits)
    for name, pipeline in site.inside():
        for inner in site.below(name, pipeline):
            yield inner, own
            yield from all_inside(inner, writes_here=own)
