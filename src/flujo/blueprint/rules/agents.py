"""Rules about agents: whom a step asks, whom nobody asks, and by which model an agent answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import Severity, rule, suggest
from flujo.blueprint.language.traversal import asked
from flujo.blueprint.reading.syntax_rules import MISSING_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.scopes import Visit
    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic

UNKNOWN_AGENT = rule(
    "FLJ201",
    "unknown-agent",
    "A step asks an agent that the blueprint does not have",
    finds="A step whose `agent:` (or `router:`, `propose:`, `evaluate:`) is no entry of `agents:` in the "
    "same file or in one that it includes.",
    why="There is nobody to ask. A blueprint that is imported has its own agents and does not see yours.",
    example="agents: {sorter: {model: openai:gpt-5-mini}}\nsteps:\n  - {name: sort, agent: sortr}",
    instead="agents: {sorter: {model: openai:gpt-5-mini}}\nsteps:\n  - {name: sort, agent: sorter}",
)


def unknown_agent(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Refuse a step whose agent is not declared."""
    for key, name in asked(visit.step):
        if name not in unit.blueprint.agents and unit.roster.is_whole:
            yield UNKNOWN_AGENT.at(
                unit.span(*visit.path, key),
                f"step {visit.step.name!r} asks agent {name!r}, which `agents:` does not have",
                hint=suggest(name, unit.blueprint.agents, what="there are")
                or f"add `agents: {{{name}: {{model: …}}}}`",
            )


UNUSED_AGENT = rule(
    "FLJ202",
    "unused-agent",
    "An agent that no step asks",
    finds="An entry of `agents:` that no step of the file names, and no other agent extends.",
    why="Its prompt is reviewed and locked, and never used; often a step names another by mistake.",
    example="agents: {sorter: {model: a:b}, helper: {model: a:b}}\nsteps:\n  - {name: sort, agent: sorter}",
    instead="agents: {sorter: {model: a:b}}\nsteps:\n  - {name: sort, agent: sorter}",
)


def unused_agent(unit: Unit) -> Iterator[Diagnostic]:
    """Warn of agents that nobody asks."""
    if not unit.visits:
        return
    in_use = in_use_by(unit) | bases(unit)
    for name in unit.blueprint.agents:
        if name not in in_use and unit.is_own(name):
            yield UNUSED_AGENT.at(
                unit.span("agents", name, key=True),
                f"no step asks agent {name!r}",
                hint="name it in a step's `agent:`, or take it out",
                severity=Severity.WARNING,
            )


UNUSED_INCLUDE = rule(
    "FLJ276",
    "unused-include",
    "A file of agents of which nobody asks any",
    finds="An entry of a blueprint's `include:` whose agents no step asks and no agent extends.",
    why="What is included is part of the blueprint: of its digest, and of what is reviewed when it changes.",
    example="include: [./agents/common.yaml]   # has an agent `reviewer`\n"
    "agents: {sorter: {model: a:b}}\nsteps:\n  - {name: sort, agent: sorter}",
    instead="agents: {sorter: {model: a:b}}\nsteps:\n  - {name: sort, agent: sorter}",
)


def unused_include(unit: Unit) -> Iterator[Diagnostic]:
    """Warn of files of agents that nobody needs."""
    roster = unit.roster
    names = in_use_by(unit) | bases(unit)
    is_certain = roster.is_whole and not roster.twice and names <= roster.agents.keys()
    if not unit.visits or not is_certain or not all(one.is_whole for one in roster.agents.values()):
        return
    needed = {there.file for name in names for there, _ in roster.agents[name].layers}
    for index, files in roster.files.items():
        if not files & needed:
            yield UNUSED_INCLUDE.at(
                unit.span("include", index),
                f"no step asks an agent of {unit.blueprint.include[index]!r}",
                hint="take it out, or ask one of them",
                severity=Severity.WARNING,
            )


def in_use_by(unit: Unit) -> set[str]:
    """Return the names of the agents that steps of this file ask."""
    return {name for visit in unit.visits for _, name in asked(visit.step)}


def agents_that_matter(unit: Unit) -> set[str]:
    """Return the names of the agents of this file, and of those that it includes and asks."""
    in_use = in_use_by(unit)
    return {name for name in unit.blueprint.agents if name in in_use or unit.is_own(name)}


def bases(unit: Unit) -> set[str]:
    """Return the names that agents of this file extend."""
    return {one.extends for name, one in unit.blueprint.agents.items() if one.extends and unit.is_own(name)}


def agent_without_model(unit: Unit) -> Iterator[Diagnostic]:
    """Refuse an agent that could be asked, and of which nothing says by which model.

    One that others extend is not asked, and the model of one in a file of agents may come from whoever
    includes it.
    """
    in_use = in_use_by(unit)
    idle = {name for name in unit.blueprint.agents if unit.visits and unit.is_own(name)} - bases(unit)
    for name, agent in unit.blueprint.agents.items():
        declared = unit.roster.agents[name]
        lacks = agent.model is None and agent.spec is None and declared.is_whole
        if lacks and name in in_use | idle:
            bases_of = [(there, path) for there, path in declared.layers[1:] if path[0] == "agents"]
            yield MISSING_KEY.at(
                unit.span("agents", name, key=True),
                f"agent {name!r} has no `model`, nor does anything that it starts from",
                hint="write `model: provider:model`; `model: local:smollm2` runs here without a key",
                related=tuple(
                    (there.span(path, key=True), "it extends this one") for there, path in bases_of
                ),
            )


TOOL_TWICE = rule(
    "FLJ255",
    "duplicate-tool",
    "Two tools of one agent with one name",
    finds="Two entries of an agent's `tools` whose functions have the same name, whatever their modules.",
    why="A model calls a tool by its function's name: it could not say which of the two it means.",
    example="agents: {helper: {model: a:b, tools: [skills.crm:lookup, skills.erp:lookup]}}\n"
    "steps:\n  - {name: help, agent: helper}",
    instead="agents: {helper: {model: a:b, tools: [skills.crm:lookup, skills.erp:lookup_order]}}\n"
    "steps:\n  - {name: help, agent: helper}",
)


def duplicate_tool(unit: Unit) -> Iterator[Diagnostic]:
    """Refuse an agent two of whose tools a model could not tell apart."""
    for name, agent in unit.blueprint.agents.items():
        first: dict[str, int] = {}
        for index, tool in enumerate(agent.tools):
            called = tool.rpartition(":")[2] if isinstance(tool, str) else ""
            if called and first.setdefault(called, index) != index:
                earlier = unit.span("agents", name, "tools", first[called])
                yield TOOL_TWICE.at(
                    unit.span("agents", name, "tools", index),
                    f"agent {name!r} has two tools called `{called}`",
                    hint="rename one of the functions, or leave one tool out",
                    related=((earlier, "the other one"),),
                )
