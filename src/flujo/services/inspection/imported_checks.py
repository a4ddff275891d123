"""Checks blueprints with their callables imported, for what only the callables show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.domain.steps import CallableRef
from flujo.domain.tree_checks.findings import Finding
from flujo.domain.wording import IS_NOT_CACHED
from flujo.exceptions import AgentError, CallableError
from flujo.services.binding.binding import PipelineBinding
from flujo.services.checks.caching import never_cached, placed
from flujo.services.checks.validation import check
from flujo.services.project.imports import importable
from flujo.services.workspace import agent_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flujo.domain.pipeline import Pipeline
    from flujo.domain.ports import Binding
    from flujo.services.checks.validation import Report
    from flujo.services.project.project import Project


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
    for place, step in placed(pipeline, into_imports=False):
        for named in step.names():
            if isinstance(named, CallableRef):
                try:
                    binding.agent(named)
                except CallableError as error:
                    yield Finding("FLJ251", place, error.message, error.hint)
