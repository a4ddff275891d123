"""`map`: runs its body once for each item."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, InitVar
from typing import ClassVar

from flujo.domain import values
from flujo.domain.arguments import Takes, node, takes
from flujo.domain.pipeline import BaseStep, Body, In, OnError, Out, Pipeline, Shape, body
from flujo.domain.steps.arguments import Merge, merge
from flujo.domain.values import CallableRef, Expr, Logic, Logical, Value, Valued

PREVIOUS = Expr("previous")


@node
class MapStep(BaseStep[In, Out]):
    """Runs `body` once for each item of `over`; results in the input's order."""

    kind: ClassVar[str] = "map"
    verb: ClassVar[str] = "runs "
    shape: ClassVar[Shape] = "inside"

    body: Takes[Body, Pipeline] = takes(body)
    """The steps of one item, which is the first one's input and visible as `item`."""
    _: KW_ONLY
    over: Takes[Logical, Logic] = takes(values.logic, default=PREVIOUS)
    """The items: an expression, or a callable that gives a list or an async iterator."""
    item_name: str | None = None
    """A second name for `item`."""
    max_concurrency: int = takes(values.count, default=10)
    """How many items are worked on at once."""
    on_error: OnError = "fail"
    """Whether an item's failure fails the step, is collected, or is left out."""
    merge: Takes[Merge | None, str | CallableRef] = takes(
        merge, default=None, otherwise="no_merge", spelled="merge_strategy"
    )
    """What becomes of what items write to the context; by default nothing is kept."""
    merge_strategy: InitVar[Merge | None] = None
    """The same argument under the name of the manual."""
    output: Takes[Valued, Value] = takes(values.value, default=None)
    """What comes out, instead of the list of outputs."""

    def summary(self) -> str:
        """Return what it goes through."""
        return f"for each of {self.over}, {self.max_concurrency} at a time"

    def limits(self) -> Iterator[str]:
        """Yield the number of items at once."""
        yield f"{self.max_concurrency} at a time"

    def local_names(self) -> Mapping[str, Sequence[str]]:
        """Return the second name of the item."""
        return {} if self.item_name is None else {"as": (self.item_name,)}

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the body."""
        return {"steps": self.body}
