"""The tools of a step with their declared effects, read from the project's source text."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from flujo.blueprint.sources.signatures import read_module
from flujo.blueprint.sources.source_files import FileSource
from flujo.domain import canonical
from flujo.domain.agents import AgentSpec
from flujo.domain.secrets import Secret, named
from flujo.domain.tools import ComposedTool, McpTools
from flujo.services.mcp_servers import locked_servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from flujo.blueprint.sources.signatures import Module
    from flujo.domain.pipeline import BaseStep
    from flujo.domain.tools import ToolSpec
    from flujo.domain.values import CallableRef
    from flujo.services.project.project import Project

    Effects = Callable[[ToolSpec], str]


def declared_effects(project: Project) -> Effects:
    """Return a function that says in a few words which effect a tool declares; it imports nothing."""
    source = FileSource(project.root)
    modules: dict[str, Module | None] = {}
    servers = cache(lambda: locked_servers(project))  # a broken lock hides no other tool

    def effect(tool: ToolSpec) -> str:
        if isinstance(tool, ComposedTool):
            return f"that of its steps ({tool.runs})"
        rules = ["recorded before it is made"] if tool.enforce_idempotency else []
        rules += [] if tool.approve is None else [str(tool.approve)]
        if isinstance(tool, McpTools):
            rules += [] if tool.server in servers() else ["not in the lock"]
            return ", ".join([tool.effect, *rules])
        rules += [f"`{name}` is {_shown(value)}" for name, value in tool.with_.items()]
        return ", ".join([tool.effect or declared(tool.call), *rules])

    def declared(ref: CallableRef) -> str:
        name, _, function = ref.target.partition(":")
        if name not in modules:
            modules[name] = read_module(name, source)
        module = modules[name]
        found = None if module is None else module.names.get(function)
        if found is None:
            return "declared in code that is not read"
        return found.effect or "unsafe, not declared"

    return effect


def _shown(value: Any) -> str:
    return str(value) if isinstance(value, Secret) else canonical.encode(named(value)).decode()


def notes(step: BaseStep, effects: Effects) -> Iterator[str]:
    """Yield a line for each tool of a step's agents, and its limits if it has no steps inside."""
    for agent in step.names():
        for tool in agent.tools if isinstance(agent, AgentSpec) else ():
            yield f"tool {tool.name}: {effects(tool)}"
    if step.shape == "point":
        yield from step.limits()
