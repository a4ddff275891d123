"""Rules about agents: unknown and unused ones, missing models, duplicate tools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import Severity, rule, suggest
from flujo.blueprint.expressions.evaluators import check_expression
from flujo.blueprint.language import models as doc
from flujo.blueprint.language.traversal import asked
from flujo.blueprint.reading.syntax_rules import MISSING_KEY
from flujo.blueprint.rules.callables import readable_tools, signature_of
from flujo.blueprint.schemas.shapes import shape, values
from flujo.domain.agents import native_tools
from flujo.domain.steps.tools import tool_name
from flujo.domain.tools import EFFECTS, is_as_strict
from flujo.domain.values import looks_like_target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.scopes import Visit
    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.language.traversal import Path

UNKNOWN_AGENT = rule(
    "FLJ201",
    "unknown-agent",
    "A step uses an agent that the blueprint does not define",
    finds="A step whose `agent:` (or `router:`, `propose:`, `evaluate:`) is not an entry of `agents:` in "
    "the same file or in an included one.",
    why="The step cannot run. An imported blueprint has its own agents and does not see yours.",
    example="agents: {sorter: {model: openai:gpt-5-mini}}\nsteps:\n  - {name: sort, agent: sortr}",
    instead="agents: {sorter: {model: openai:gpt-5-mini}}\nsteps:\n  - {name: sort, agent: sorter}",
)


def unknown_agent(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Report a step whose agent is not declared."""
    for keys, name in asked(visit.step):
        if name not in unit.blueprint.agents and unit.roster.is_whole:
            yield UNKNOWN_AGENT.at(
                unit.span(*visit.path, *keys),
                f"step {visit.step.name!r} uses agent {name!r}, which is not in `agents:`",
                hint=suggest(name, unit.blueprint.agents, what="known agents")
                or f"add `agents: {{{name}: {{model: …}}}}`",
            )


_SORTER = "agents: {%s: {model: a:b}, critic: {model: a:b}}\n"
_CHOICE = (
    "# steps.plan.output.next is one of writer, critic\n"
    "steps:\n  - {name: say, agent: {one_of: [%s, critic], by: steps.plan.output.next}}"
)
AGENT_CHOICE = rule(
    "FLJ443",
    "agent-choice",
    "An expression may choose an agent that the step does not list",
    finds="A value that the schema of `agent.by` lists, and that is not one of `agent.one_of`.",
    why="The run would fail with that value: a step asks only the agents that it lists, because these are "
    "locked and checked.",
    example=_SORTER % "editor" + _CHOICE % "editor",
    instead=_SORTER % "writer" + _CHOICE % "writer",
)


def agent_choice(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Report the listed values of an expression that are not agents of the step."""
    asked_one = getattr(visit.step, "agent", None)
    if not isinstance(asked_one, doc.AgentChoice) or looks_like_target(asked_one.by):
        return
    for value in values(shape(check_expression(asked_one.by, visit.scope.tree()).schema)):
        if value not in asked_one.one_of:
            yield AGENT_CHOICE.at(
                unit.span(*visit.path, "agent", "by"),
                f"`{asked_one.by}` may be {value!r}, which step {visit.step.name!r} does not list",
                hint=suggest(str(value), asked_one.one_of, what="its agents"),
            )


UNUSED_AGENT = rule(
    "FLJ202",
    "unused-agent",
    "An agent that no step uses",
    finds="An entry of `agents:` that no step of the file uses and no other agent extends.",
    why="Its prompt is reviewed and locked but never used. Often a step names another agent by mistake.",
    example="agents: {sorter: {model: a:b}, helper: {model: a:b}}\nsteps:\n  - {name: sort, agent: sorter}",
    instead="agents: {sorter: {model: a:b}}\nsteps:\n  - {name: sort, agent: sorter}",
)


def unused_agent(unit: Unit) -> Iterator[Diagnostic]:
    """Warn of unused agents."""
    if not unit.visits:
        return
    in_use = in_use_by(unit) | bases(unit)
    for name in unit.blueprint.agents:
        if name not in in_use and unit.is_own(name):
            yield UNUSED_AGENT.at(
                unit.span("agents", name, key=True),
                f"no step uses agent {name!r}",
                hint="name it in a step's `agent:`, or remove it",
                severity=Severity.WARNING,
            )


UNUSED_INCLUDE = rule(
    "FLJ276",
    "unused-include",
    "An included file whose agents are all unused",
    finds="An entry of a blueprint's `include:` whose agents no step uses and no agent extends.",
    why="An included file is part of the blueprint: it counts in the digest and has to be reviewed.",
    example="include: [./agents/common.yaml]   # has an agent `reviewer`\n"
    "agents: {sorter: {model: a:b}}\nsteps:\n  - {name: sort, agent: sorter}",
    instead="agents: {sorter: {model: a:b}}\nsteps:\n  - {name: sort, agent: sorter}",
)


def unused_include(unit: Unit) -> Iterator[Diagnostic]:
    """Warn of included files without an agent in use."""
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
                f"no step uses an agent of {unit.blueprint.include[index]!r}",
                hint="remove the entry, or use one of its agents",
                severity=Severity.WARNING,
            )


def in_use_by(unit: Unit) -> set[str]:
    """Return the names of the agents that steps of this file use, and of those that these have as tools."""
    named = (name for visit in unit.visits for _, name in asked(visit.step))
    return set(doc.with_helpers(named, unit.blueprint.agents))


def agents_that_matter(unit: Unit) -> set[str]:
    """Return the names of the agents of this file, and of the included ones that it uses."""
    in_use = in_use_by(unit)
    return {name for name in unit.blueprint.agents if name in in_use or unit.is_own(name)}


def bases(unit: Unit) -> set[str]:
    """Return the names that agents of this file extend."""
    return {one.extends for name, one in unit.blueprint.agents.items() if one.extends and unit.is_own(name)}


def agent_without_model(unit: Unit) -> Iterator[Diagnostic]:
    """Report an agent in use, or unused without being a base, that has no model.

    An agent that only others extend needs none, and an agent in a shared file may get its model from the
    including blueprint.
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
                f"agent {name!r} has no `model`, and inherits none",
                hint="write `model: provider:model`; `model: local:smollm2` runs locally, without a key",
                related=tuple(
                    (there.span(path, key=True), "it extends this one") for there, path in bases_of
                ),
            )


TOOL_TWICE = rule(
    "FLJ255",
    "duplicate-tool",
    "Two tools of an agent have the same name",
    finds="Two tools of an agent with the same name: that of a function, whatever its module, of a blueprint "
    "or of an agent, unless the entry has a `name`, or one in `allow` of an MCP server. Without `allow` its "
    "names are those in flujo.lock.",
    why="A model calls a tool by its name, so the call would be ambiguous.",
    example="agents: {helper: {model: a:b, tools: [skills.crm:lookup, skills.erp:lookup]}}\n"
    "steps:\n  - {name: help, agent: helper}",
    instead="agents: {helper: {model: a:b, tools: [skills.crm:lookup, skills.erp:lookup_order]}}\n"
    "steps:\n  - {name: help, agent: helper}",
)


def named_tools(unit: Unit, name: str, agent: doc.Agent) -> Iterator[tuple[Path, str]]:
    """Yield the names by which a model calls the tools of an agent, each with the keys to it."""
    for path, tool in doc.callable_tools(agent):
        yield path, (tool.call or "").rpartition(":")[2]
    for index, tool in doc.composed_tools(agent):
        child = unit.tool_blueprints.get((name, index))
        called = tool.name or tool.agent or (tool_name(child.blueprint.name) if child is not None else None)
        if called is not None:
            yield ("tools", index), called
    for path, tool in doc.mcp_tools(agent):
        for number, called in enumerate(tool.allow or ()):
            yield (*path, "allow", number), called
        if tool.allow is None:
            locked = (unit.project.servers or {}).get(tool.mcp or "") or ()
            yield from (((*path, "mcp"), called) for called in locked)


def duplicate_tool(unit: Unit) -> Iterator[Diagnostic]:
    """Report an agent with two tools of the same name."""
    for name, agent in unit.blueprint.agents.items():
        first: dict[str, Path] = {}
        for path, called in named_tools(unit, name, agent):
            if first.setdefault(called, path) != path:
                earlier = unit.span("agents", name, *first[called])
                yield TOOL_TWICE.at(
                    unit.span("agents", name, *path),
                    f"agent {name!r} has two tools named `{called}`",
                    hint="rename one of them, or remove one of the tools",
                    related=((earlier, "the other one"),),
                )


WEAKER_EFFECT = rule(
    "FLJ445",
    "weaker-tool-effect",
    "A tool with a weaker effect than its callable declares",
    finds="`effect` of a tool that is weaker than the one of `@flujo.tool` on the function. From the weakest "
    "to the strictest: `read`, `idempotent`, `transactional`, `unsafe`.",
    why="The author of the function knows its effect. After a crash, a call with a weaker effect may be "
    "made twice.",
    example='# skills/bank.py: @flujo.tool(effect="unsafe")\n'
    "agents: {teller: {model: a:b, tools: [{call: skills.bank:pay, effect: read}]}}\n"
    "steps:\n  - {kind: granular, name: serve, agent: teller}",
    instead='# skills/bank.py: @flujo.tool(effect="unsafe")\n'
    "agents: {teller: {model: a:b, tools: [skills.bank:pay]}}\n"
    "steps:\n  - {kind: granular, name: serve, agent: teller}",
)


def weaker_effect(unit: Unit) -> Iterator[Diagnostic]:
    """Report a tool whose effect is weaker than the one that the source of its callable declares."""
    for name, path, tool, signature in readable_tools(unit):
        strict = signature.effect or ""
        if tool.effect is None or strict not in EFFECTS or is_as_strict(tool.effect, strict):
            continue
        yield WEAKER_EFFECT.at(
            unit.span("agents", name, *path[:2], "effect"),
            f"tool `{tool.call}` has `effect: {tool.effect}`, but its function declares {strict!r}",
            hint=f"write `effect: {strict}`; a tool may be stricter, not weaker",
        )


CLIENT_RETRIES = rule(
    "FLJ277",
    "client-retries",
    "An agent whose provider's client would retry",
    finds="`max_retries` in the `model_settings` of an agent, with another value than 0.",
    why="Only steps retry: a budget and the journal do not count the retries of a provider's client. The run "
    "could not start.",
    example="agents: {sorter: {model: a:b, model_settings: {max_retries: 2}}}\n"
    "steps:\n  - {name: sort, agent: sorter}",
    instead="agents: {sorter: {model: a:b}}\n"
    "steps:\n  - {name: sort, agent: sorter, config: {max_retries: 2}}",
)


NATIVE_TOOLS = rule(
    "FLJ446",
    "native-tools",
    "An agent whose provider would call tools of its own",
    finds="A setting of `model_settings` that lets the provider call tools: `openai_native_tools`, or "
    "`tools`, `plugins`, `web_search_options` and the like in `extra_body`.",
    why="The provider makes these calls within a request. The journal does not record them, no budget counts "
    "them, and no human approves them. The run could not start.",
    example="agents: {sorter: {model: a:b, model_settings: {openai_native_tools: [{type: web_search}]}}}\n"
    "steps:\n  - {name: sort, agent: sorter}",
    instead="agents: {sorter: {model: a:b, tools: [skills.web:search]}}\n"
    "steps:\n  - {kind: granular, name: sort, agent: sorter}",
)


def provider_tools(unit: Unit) -> Iterator[Diagnostic]:
    """Report an agent whose settings let the provider call tools of its own."""
    for name, agent in unit.blueprint.agents.items():
        if setting := native_tools(agent.model_settings):
            yield NATIVE_TOOLS.at(
                unit.span("agents", name, "model_settings", *setting.split("."), key=True),
                f"agent {name!r}: with `{setting}` the provider calls tools of its own, without a record",
                hint="remove it, and give the agent a tool: a callable, or the tools of an MCP server",
            )


OUTPUT_FUNCTION = rule(
    "FLJ448",
    "output-function",
    "A function as the output type of an agent",
    finds="`output_type` of an agent that names a function of the project.",
    why="The function would be called with the answer of a model within the request: no entry records the "
    "call, and no human approves it. The run could not start.",
    example="agents: {sorter: {model: a:b, output_type: skills.bank:pay}}\n"
    "steps:\n  - {name: sort, agent: sorter}",
    instead="agents: {sorter: {model: a:b, tools: [skills.bank:pay]}}\n"
    "steps:\n  - {kind: granular, name: sort, agent: sorter}",
)


def output_function(unit: Unit) -> Iterator[Diagnostic]:
    """Report an agent whose output type is a function."""
    for name, agent in unit.blueprint.agents.items():
        if agent.output_type is not None and signature_of(unit, agent.output_type) is not None:
            yield OUTPUT_FUNCTION.at(
                unit.span("agents", name, "output_type"),
                f"agent {name!r}: `{agent.output_type}` is a function, and an output type is a class",
                hint="give the agent the function as a tool, or call it in a step after the agent",
            )


def client_retries(unit: Unit) -> Iterator[Diagnostic]:
    """Report an agent whose settings let the provider's client retry."""
    for name, agent in unit.blueprint.agents.items():
        if retries := agent.model_settings.get("max_retries"):
            yield CLIENT_RETRIES.at(
                unit.span("agents", name, "model_settings", "max_retries", key=True),
                f"agent {name!r}: `model_settings` has `max_retries: {retries}`, but only steps retry",
                hint=f"remove it, and give the step `config: {{max_retries: {retries}}}`",
            )
