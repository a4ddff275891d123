"""`cache`: answers from the cache when its step got the same input before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY
from functools import cached_property
from typing import Any, ClassVar

from flujo.domain import values
from flujo.domain.arguments import Takes, node, takes
from flujo.domain.pipeline import BaseStep, CachePolicy, In, Out, Pipeline, Shape
from flujo.domain.values import Logic, Logical


@node
class CacheStep(BaseStep[In, Out]):
    """Answers from the cache when `step` got the same input before.

    `cache=CachePolicy(…)` on a step does the same without a separate step.
    """

    kind: ClassVar[str] = "cache"
    verb: ClassVar[str] = "answers "
    shape: ClassVar[Shape] = "inside"

    step: BaseStep[In, Out] = takes(values.instance(BaseStep))
    """The step that runs when the cache has no answer."""
    _: KW_ONLY
    key: Takes[Logical | None, Logic | None] = takes(values.logic, default=None)
    """An additional part of the cache key, besides the step and its input."""
    ttl_s: float | None = None
    """The seconds after which an answer expires."""

    def summary(self) -> str:
        """Return the source of its answers."""
        return "from the cache when it got the same input before"

    @property
    def policy(self) -> CachePolicy:
        """The cache policy of its answers."""
        return CachePolicy(key=self.key, ttl_s=self.ttl_s)

    def bodies(self) -> Mapping[str, Pipeline]:
        """Return a body of the one step."""
        return self._bodies

    @cached_property
    def _bodies(self) -> Mapping[str, Pipeline]:
        return {"step": Pipeline((self.step,))}


def cached_step(step: BaseStep[Any, Any]) -> tuple[BaseStep[Any, Any], CachePolicy | None]:
    """Return the step whose answers are cached, which is inside a `CacheStep`, and how they are cached."""
    return (step.step, step.policy) if isinstance(step, CacheStep) else (step, step.cache)
