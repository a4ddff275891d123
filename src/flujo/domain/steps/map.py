"""`map`: runs its body once for each item."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, InitVar
from typing import ClassVar, Literal, get_args

from flujo.domain import values
from flujo.domain.arguments import Takes, node, takes
from flujo.domain.pipeline import BaseStep, Body, Extent, In, OnError, Out, Pipeline, Shape, body
from flujo.domain.steps.arguments import Merge, merge
from flujo.domain.values import CallableRef, Expr, Limit, Limited, Logic, Logical, Value, Valued

Keep = Literal["outputs", "failed", "none"]
"""What a map keeps of its items."""

PREVIOUS = Expr("previous")


@node
class MapStep(BaseStep[In, Out]):
    """Runs `body` once for each item of `over`; the results are in the order of the items."""

    kind: ClassVar[str] = "map"
    verb: ClassVar[str] = "runs "
    shape: ClassVar[Shape] = "inside"
    has_items: ClassVar[bool] = True

    body: Takes[Body, Pipeline] = takes(body)
    """The steps for one item, which is the first step's input and is visible as `item`."""
    _: KW_ONLY
    over: Takes[Logical, Logic] = takes(values.logic, default=PREVIOUS)
    """The items: an expression, or a callable that returns a list or an async iterator."""
    item_name: str | None = None
    """Another name for `item`."""
    max_concurrency: Takes[Limited, int | Limit] = takes(values.limit, default=10)
    """How many items are processed concurrently; `{"value": "{{ … }}", "max": 100}` takes it from data."""
    on_error: OnError = takes(values.one_of(*get_args(OnError)), default="fail")
    """Whether an item's failure fails the step, is collected, or is left out."""
    keep: Keep = takes(values.one_of(*get_args(Keep)), default="outputs")
    """What the step keeps of its items: all outputs, only the failed items, or nothing."""
    merge: Takes[Merge | None, str | CallableRef] = takes(
        merge, default=None, otherwise="no_merge", spelled="merge_strategy"
    )
    """How the items' writes to the context are merged; by default they are dropped."""
    merge_strategy: InitVar[Merge | None] = None
    """An alias of `over`."""
    output: Takes[Valued, Value] = takes(values.value, default=None)
    """The output, instead of the list of outputs."""

    def summary(self) -> str:
        """Return the items and the concurrency."""
        return f"for each of {self.over}, {self.max_concurrency} at a time"

    def limits(self) -> Iterator[str]:
        """Yield the concurrency."""
        yield f"{self.max_concurrency} at a time"

    def local_names(self) -> Mapping[str, Sequence[str]]:
        """Return the other name of the item."""
        return {} if self.item_name is None else {"as": (self.item_name,)}

    @property
    def extent(self) -> Extent:
        """An execution for each item."""
        return Extent(least=0, most=None, over=self.over)

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the body."""
        return {"steps": self.body}
