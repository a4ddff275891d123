"""What the blueprints of a project need of its executors."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from flujo.domain.agents import AgentSpec
from flujo.domain.tools import callable_tools
from flujo.services.checks.validation import compiled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.domain.executor import Needs
    from flujo.domain.pipeline import Pipeline
    from flujo.services.project.project import Project


class Demand(NamedTuple):
    """The `resources` of one step or tool."""

    executor: str
    where: str
    """The step or tool and its blueprint, for display."""
    needs: Needs


def demands(project: Project) -> list[Demand]:
    """Return what the steps and tools need that name an executor; a blueprint with errors is left out.

    Raises:
        SettingsError: a folder of `[blueprints] paths` does not exist.
    """
    found: list[Demand] = []
    for path in project.blueprint_paths():
        tree = compiled(project, path).pipeline
        found += [] if tree is None else dict.fromkeys(_demands(tree, path))  # an agent of two steps
    return found


def _demands(tree: Pipeline, path: str) -> Iterator[Demand]:
    for place, step in tree.walk():
        config = step.config
        if config.executor is not None and config.resources is not None:
            yield Demand(config.executor, f"step `{place}` of {path}", config.resources)
        for agent in (each for each in step.names() if isinstance(each, AgentSpec)):
            for tool in callable_tools(agent.tools):
                if tool.executor is not None and tool.resources is not None:
                    where = f"tool `{tool.name}` of agent {agent.name!r} of {path}"
                    yield Demand(tool.executor, where, tool.resources)
