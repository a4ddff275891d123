"""The rule about the allow-list of tools in flujo.toml."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import Severity, rule
from flujo.blueprint.rules.agents import named_tools

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.language import models as doc

_STEPS = "steps:\n  - {kind: granular, name: serve, agent: clerk}"
_CLERK = "agents: {clerk: {model: a:b, tools: [skills.bank:pay]}}\n"
DENIED_TOOL = rule(
    "FLJ469",
    "denied-tool",
    "A tool that the project does not allow",
    finds="A tool that is not on the list of `[governance] tools` or of `FLUJO_GOVERNANCE_TOOL_ALLOWLIST`. A "
    "warning.",
    why="The model is offered the tool, and each of its calls is refused, or fails the step.",
    example=f'# flujo.toml: [governance] tools = ["look_up"]\n{_CLERK}{_STEPS}',
    instead=f'# flujo.toml: [governance] tools = ["look_up", "pay"]\n{_CLERK}{_STEPS}',
)


def denied_tools(unit: Unit) -> Iterator[Diagnostic]:
    """Report tools that the list of the settings denies."""
    for name, agent in unit.blueprint.agents.items():
        for path, called in named_tools(unit, name, agent):
            target = _target(agent.tools[int(path[1])], called)
            if not unit.project.allows_tool(called, target):
                yield DENIED_TOOL.at(
                    unit.span("agents", name, *path),
                    f"this project does not allow the tool `{called}` of agent {name!r}",
                    hint=f"add {called!r} to `[governance] tools` of flujo.toml, or remove the tool",
                    severity=Severity.WARNING,
                )


def _target(tool: str | doc.Tool, called: str) -> str:
    """Return the name of the code behind a tool."""
    if isinstance(tool, str):
        return tool
    if tool.mcp is not None:
        return f"mcp:{tool.mcp}/{called}"
    return tool.call or called
