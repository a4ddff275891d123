"""Finds the cached steps that are executed every time, and the objects that are the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain.steps import cached_step
from flujo.engine.cache_key import require_cacheable
from flujo.exceptions import NotCacheable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import Binding
    from flujo.domain.steps import BaseStep
    from flujo.domain.tree_checks.findings import Place


def never_cached(
    pipeline: Pipeline, binding: Binding, resources: Any
) -> Iterator[tuple[Place, BaseStep, NotCacheable]]:
    """Yield each cached step of a tree whose answers have no key, with its place and the reason.

    Raises:
        AgentError | CallableError: something that a cached step names is not available.
    """
    for place, outer in placed(pipeline):
        step, policy = cached_step(outer)
        if policy is not None:
            try:
                require_cacheable(step, policy, binding, resources)
            except NotCacheable as error:
                yield place, step, error


def placed(
    pipeline: Pipeline, place: Place = (), *, into_imports: bool = True
) -> Iterator[tuple[Place, BaseStep]]:
    """Yield every step of a tree with its place."""
    for index, step in enumerate(pipeline.steps):
        yield (*place, index), step
        if into_imports or step.imported is None:
            for name, body in step.bodies().items():
                yield from placed(body, (*place, index, name), into_imports=into_imports)
    for name, body in pipeline.endings().items():
        yield from placed(body, (*place, name), into_imports=into_imports)
