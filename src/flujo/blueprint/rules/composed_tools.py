"""Rules about blueprints and agents as tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import rule, suggest
from flujo.blueprint.language import models as doc
from flujo.blueprint.rules.agents import UNKNOWN_AGENT
from flujo.domain.steps.tools import schema_problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic

_HELP = "steps:\n  - {kind: granular, name: help, agent: helper}"
_ORDER = "agents: {helper: {model: a:b, tools: [{blueprint: ./order.yaml, description: Looks up}]}}\n"
_CHAIN = "  %s: {model: a:b, tools: [{agent: %s, description: Helps}]}\n"
_FIVE = "".join(_CHAIN % pair for pair in (("helper", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "f")))
TOOLS_TOO_DEEP = rule(
    "FLJ456",
    "tools-too-deep",
    "Agents and blueprints that are tools of each other, too deep",
    finds="A step whose agent has a tool that has a tool, and so on, more than 4 deep.",
    why="Each level is a model that waits for other models: cost and time multiply with each of them.",
    example=f"agents:\n{_FIVE}  f: {{model: a:b}}\n{_HELP}",
    instead="agents:\n" + _CHAIN % ("helper", "f") + f"  f: {{model: a:b}}\n{_HELP}",
)
TOOLS_WITHOUT_TURNS = rule(
    "FLJ457",
    "tools-without-turns",
    "A blueprint or an agent as a tool, in a step that records no tool calls",
    finds="A tool with `blueprint` or `agent` of an agent in a step of another kind than `granular`.",
    why="Such a step is one attempt: the steps below a tool call would have no entries, and a pause or a "
    "crash would lose them.",
    example=_ORDER + "steps:\n  - {name: help, agent: helper}",
    instead=_ORDER + _HELP,
)
TOOL_INPUT = rule(
    "FLJ458",
    "blueprint-tool-input",
    "A blueprint as a tool without fields for the model",
    finds="A tool with `blueprint` whose file has no `input_schema` of `type: object`.",
    why="The input schema is the schema of the tool: without fields, a model cannot call it.",
    example="# text.yaml has input_schema: {type: string}\n"
    "agents: {helper: {model: a:b, tools: [{blueprint: ./text.yaml, description: Counts}]}}\n" + _HELP,
    instead="# order.yaml has input_schema: {type: object, properties: {order: {type: string}}}\n"
    + _ORDER
    + _HELP,
)
TOOL_CYCLE = rule(
    "FLJ459",
    "agent-tool-cycle",
    "Agents that are tools of each other in a circle",
    finds="An agent that has itself as a tool, directly or through others.",
    why="The agents could call each other without end.",
    example="agents:\n" + _CHAIN % ("helper", "other") + _CHAIN % ("other", "helper") + _HELP,
    instead="agents:\n" + _CHAIN % ("helper", "other") + f"  other: {{model: a:b}}\n{_HELP}",
)
UNRECORDED_INSIDE = rule(
    "FLJ464",
    "unrecorded-inside-tool",
    "A tool that needs more than the step that calls it may do",
    finds="`enforce_idempotency: true` on a step whose agent has a blueprint as a tool, with a call that may "
    "have an effect and is not recorded before it is made.",
    why="The step promises that no effect is repeated silently; the steps of its tool break the promise.",
    example="# pay.yaml has input_schema: {type: object}, steps: [{name: pay, call: skills.bank:pay}]\n"
    "agents: {helper: {model: a:b, tools: [{blueprint: ./pay.yaml, description: Pays}]}}\n"
    "steps:\n  - {kind: granular, name: help, agent: helper, enforce_idempotency: true}",
    instead="# safe_pay.yaml has it with enforce_idempotency: true\n"
    "agents: {helper: {model: a:b, tools: [{blueprint: ./safe_pay.yaml, description: Pays}]}}\n"
    "steps:\n  - {kind: granular, name: help, agent: helper, enforce_idempotency: true}",
)


def unfit_input(unit: Unit) -> Iterator[Diagnostic]:
    """Report a blueprint as a tool that takes no object."""
    for (name, index), child in unit.tool_blueprints.items():
        problem = schema_problem(child.blueprint.input_schema)
        if problem is not None and child.is_whole:
            text = unit.blueprint.agents[name].tools[index]
            yield TOOL_INPUT.at(
                unit.span("agents", name, "tools", index, "blueprint"),
                f"{getattr(text, 'blueprint', '')!r} cannot be a tool: {problem[0]}",
                hint=problem[1],
                related=((child.span("input_schema", key=True), "its input schema"),)
                if child.blueprint.input_schema is not None
                else (),
            )


def unknown_helper(unit: Unit) -> Iterator[Diagnostic]:
    """Report an agent as a tool that is not declared, or that has the agent itself as a tool."""
    agents = unit.blueprint.agents
    for name, agent in agents.items():
        if not unit.is_own(name):
            continue
        for index, tool in doc.composed_tools(agent):
            if tool.agent is None:
                continue
            span = unit.span("agents", name, "tools", index, "agent")
            if tool.agent not in agents and unit.roster.is_whole:
                hint = suggest(tool.agent, agents, what="known agents") or f"declare {tool.agent!r}"
                message = f"agent {name!r} has the tool {tool.agent!r}, which is not in `agents:`"
                yield UNKNOWN_AGENT.at(span, message, hint=hint)
            elif name in doc.with_helpers([tool.agent], agents):
                message = f"agent {name!r} would call itself" + (
                    "" if tool.agent == name else f" through {tool.agent!r}"
                )
                yield TOOL_CYCLE.at(span, message, hint="remove one of the tools")
