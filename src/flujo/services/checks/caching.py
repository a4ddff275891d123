"""Finds the cached steps that are executed every time, and the objects that are the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.domain.checks import Finding
from flujo.domain.steps import CallableRef, cached_step
from flujo.domain.wording import IS_NOT_CACHED
from flujo.engine.cache_key import require_cacheable
from flujo.exceptions import AgentError, CallableError, NotCacheable
from flujo.services.binding.binding import PipelineBinding
from flujo.services.checks.validation import check
from flujo.services.project.imports import importable
from flujo.services.workspace import agent_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flujo.domain.checks import Place
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import Binding
    from flujo.domain.steps import BaseStep
    from flujo.services.checks.validation import Report
    from flujo.services.project.project import Project


def never_cached(
    pipeline: Pipeline, binding: Binding, resources: Any
) -> Iterator[tuple[Place, BaseStep, NotCacheable]]:
    """Yield each cached step of a tree whose answers have no key, with its place and the reason.

    Raises:
        AgentError | CallableError: something that a cached step names is not available.
    """
    for place, outer in _placed(pipeline, into_imports=True):
        step, policy = cached_step(outer)
        if policy is not None:
            try:
                require_cacheable(step, policy, binding, resources)
            except NotCacheable as error:
                yield place, step, error


def check_with_imports(project: Project, paths: Sequence[str]) -> list[Report]:
    """Return the reports of `check`, with the findings that need the callables themselves.

    The project's code is imported, and no resources are made. A missing API key is not a finding.
    """
    if project.config_file is not None:  # otherwise no callable is allowed
        importable(project.root)
    allowed = project.settings.blueprints.allow_callables

    def found(pipeline: Pipeline) -> Iterator[Finding]:
        binding = PipelineBinding(allow_callables=allowed, agent_settings=agent_settings(project.settings))
        missing = list(_not_importable(pipeline, binding))
        yield from missing
        try:
            for place, step, why in () if missing else never_cached(pipeline, binding, None):
                message = f"step {step.name!r}{IS_NOT_CACHED}{why.message}"
                yield Finding("FLJ262", place, message, why.hint, is_warning=True)
        except (AgentError, CallableError):
            return  # a model that is not available here, or a class: the run reports it

    return check(project, paths, found)


def _not_importable(pipeline: Pipeline, binding: Binding) -> Iterator[Finding]:
    for place, step in _placed(pipeline, into_imports=False):
        for named in step.names():
            if isinstance(named, CallableRef):
                try:
                    binding.agent(named)
                except CallableError as error:
                    yield Finding("FLJ251", place, error.message, error.hint)


def _placed(pipeline: Pipeline, place: Place = (), *, into_imports: bool) -> Iterator[tuple[Place, BaseStep]]:
    for index, step in enumerate(pipeline.steps):
        yield (*place, index), step
        if into_imports or step.imported is None:
            for name, body in step.bodies().items():
                yield from _placed(body, (*place, index, name), into_imports=into_imports)
