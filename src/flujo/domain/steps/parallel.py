"""`parallel`: runs all its branches at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, InitVar
from typing import ClassVar

from flujo.domain import values
from flujo.domain.arguments import Takes, node, takes
from flujo.domain.pipeline import BaseStep, Body, In, Instead, OnError, Out, Pipeline, Shape
from flujo.domain.steps.arguments import Merge, OnFailing, bodies, instead, merge
from flujo.domain.values import CallableRef, Limit, Limited, Value, Valued


@node
class ParallelStep(BaseStep[In, Out]):
    """Runs all branches at once, each with its own view of the context, then merges their writes."""

    kind: ClassVar[str] = "parallel"
    names_bodies: ClassVar[bool] = True
    shape: ClassVar[Shape] = "fork"
    verb: ClassVar[str] = "runs "
    is_ordered: ClassVar[bool] = True

    branches: Takes[Mapping[str, Body], Mapping[str, Pipeline]] = takes(bodies)
    """The steps of each branch."""
    _: KW_ONLY
    merge: Takes[Merge | None, str | CallableRef] = takes(
        merge, default=None, otherwise="context_update", spelled="merge_strategy"
    )
    """A strategy, or a callable; by default `CONTEXT_UPDATE`."""
    merge_strategy: InitVar[Merge | None] = None
    """An alias of `merge`."""
    field_mapping: Takes[Mapping[str, Sequence[str]], Mapping[str, tuple[str, ...]]] = takes(
        values.each(values.texts), default_factory=dict
    )
    """The fields of the context that each branch may write."""
    on_branch_failure: OnError = "fail"
    """Whether a branch's failure fails the step, is collected, or is left out."""
    max_concurrency: Takes[Limited | None, int | Limit | None] = takes(values.limit, default=None)
    """How many branches run concurrently; by default all."""
    output: Takes[Valued, Value] = takes(values.value, default=None)
    """The output, instead of `{branch: output}`."""
    on_error: OnFailing = takes(instead, default="fail")
    """Whether a failure fails the step, is skipped, or is replaced by `{"output": …}`."""

    def summary(self) -> str:
        """Return a fixed text."""
        return "all branches at once"

    @property
    def gives_bodies(self) -> bool:
        """Whether its output is `{branch: output}`."""
        return self.output is None

    @property
    def instead(self) -> Instead:
        """That of `on_error`."""
        return self.on_error

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return the branches."""
        return self.branches
