"""Compiles a checked document and its imports to a `Pipeline`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from flujo.blueprint.analysis.project_facts import NOTHING_KNOWN, ProjectFacts
from flujo.blueprint.closure import Closure
from flujo.blueprint.diagnostics import Diagnostic, Severity, suggest
from flujo.blueprint.language import models as doc
from flujo.blueprint.language.models import scheduled
from flujo.blueprint.language.roles import Role, roles
from flujo.blueprint.loader import Loader
from flujo.blueprint.rules.agents import agents_that_matter
from flujo.blueprint.rules.autofix import with_fix
from flujo.blueprint.rules.budgets import budget_refuses
from flujo.blueprint.rules.registry import check
from flujo.blueprint.rules.suppressions import apply_suppressions
from flujo.blueprint.sources.signatures import class_without
from flujo.domain.agents import AgentSpec, OneOf
from flujo.domain.approvals import Approval
from flujo.domain.paths import StepPath
from flujo.domain.pipeline import Migration, Pipeline
from flujo.domain.retry import RetryPolicy
from flujo.domain.schedules import Schedule
from flujo.domain.steps import (
    KINDS,
    BaseStep,
    CachePolicy,
    CallableRef,
    Carry,
    Processors,
    State,
    StepConfig,
    Text,
    Transition,
)
from flujo.domain.steps.tools import MAX_TURNS, AgentTool, BlueprintTool
from flujo.domain.tools import CallableTool, McpEffect, McpTools
from flujo.domain.usage import UsageLimits
from flujo.domain.values import looks_like_target
from flujo.exceptions import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Span
    from flujo.blueprint.rules.registry import Also
    from flujo.blueprint.sources.source_files import Source
    from flujo.domain.tools import ToolSpec


@dataclass(frozen=True)
class Compiled:
    """The result of compiling a blueprint. `pipeline` is None if any diagnostic is an error."""

    pipeline: Pipeline | None
    diagnostics: tuple[Diagnostic, ...]
    closure: Closure
    sources: Mapping[str, str]
    """The text of each file, for `diagnostics.render`; likely secrets are masked."""


def compile_blueprint(
    entry: str,
    source: Source,
    *,
    allow_callables: Sequence[str] | None = (),
    models: Mapping[str, str] | None = None,
    overrides: Mapping[str, str] | None = None,
    strict: bool = False,
    project: ProjectFacts = NOTHING_KNOWN,
    also: Also | None = None,
) -> Compiled:
    """Read, check and compile a blueprint with all its imports.

    Python code that the blueprint names is not imported.

    Args:
        entry: the blueprint's path in the project.
        source: the project's files.
        allow_callables: the patterns of flujo.toml; a callable that matches none is an error. None allows
            all, for a pipeline whose callables are never imported.
        models: agent → model, from the project's settings; `*` stands for all other agents. They become
            overrides of the closure if the blueprint has such an agent.
        overrides: `agents.NAME.model` or `agents.*.model` to a model, `agents.NAME.instructions` to a text;
            they reach imported blueprints too.
        strict: whether warnings are errors.
        project: what the project's settings say about names in the blueprint.
        also: returns further findings in the tree of each file, imports left out.

    Raises:
        SettingsError: an override names something that cannot be overridden.
    """
    loader = Loader(source, allow_callables)
    unit = loader.load_entry(entry)
    if unit is not None:
        _inform(loader.units.values(), unit, project, source)
    known = {name for loaded in loader.units.values() for name in agents_that_matter(loaded)}
    applied = _applied(models or {}, overrides or {}, known)
    if unit is not None:
        _check_overrides(overrides or {}, known)
    tree = _Tree(*({}, {}) if unit is None else (_models(applied), _instructions(applied)))
    diagnostics = _found(loader, loader.units.values(), tree, strict=strict, also=also)
    closure = Closure(entry, dict(loader.files), applied)
    is_whole = all(loaded.is_whole for loaded in loader.units.values())
    broken = unit is None or not is_whole or any(diagnostic.is_error for diagnostic in diagnostics)
    pipeline = None if broken or unit is None else tree.pipeline(unit)
    return Compiled(pipeline, diagnostics, closure, loader.sources())


def _inform(units: Iterable[Unit], entry: Unit, project: ProjectFacts, source: Source) -> None:
    """Give each file what is known outside it; the budget of the entry also applies to imports."""
    budget, resources = entry.blueprint.budget, project.resources
    unkeyed = None if resources is None else class_without("cache_key", resources, source)
    for unit in units:
        unit.project = project
        unit.is_bounded = project.is_bounded or budget is not None
        unit.refuses_unpriced = project.refuses_unpriced or budget_refuses(budget)
        unit.unkeyed_resources = unkeyed


def check_agents(
    entry: str,
    source: Source,
    *,
    allow_callables: Sequence[str] = (),
    strict: bool = False,
    project: ProjectFacts = NOTHING_KNOWN,
) -> Compiled:
    """Read and check a file of agents, which has no pipeline.

    Args:
        entry: the file's path in the project.
        source: the project's files.
        allow_callables: the patterns of flujo.toml; a tool that matches none is an error.
        strict: whether warnings are errors.
        project: what the project's settings say about names in the file.
    """
    loader = Loader(source, allow_callables)
    unit = loader.load_agents(entry)
    unit.project = project
    diagnostics = _found(loader, [unit], _Tree({}, {}), strict=strict)
    return Compiled(None, diagnostics, Closure(entry, dict(loader.files)), loader.sources())


def _found(
    loader: Loader, units: Iterable[Unit], tree: _Tree, *, strict: bool, also: Also | None = None
) -> tuple[Diagnostic, ...]:
    """Return all findings about the loaded files."""
    found = [*loader.diagnostics]
    lines: dict[str, Span] = {}
    for unit in units:
        found += check(unit, tree.pipeline(unit), also)
        for index, files in unit.roster.files.items():
            lines |= {file: unit.span("include", index) for file in files if file not in lines}
    for document in loader.documents:
        found = list(apply_suppressions(document, found, is_included=document.file in loader.rosters))
    documents = {document.file: document for document in loader.documents}
    found = [with_fix(one, documents.get(one.span.file)) for one in found]
    shown = loader.without_secrets(_with_including(one, lines) for one in found)
    return _ordered(shown, strict=strict)


def _with_including(found: Diagnostic, lines: Mapping[str, Span]) -> Diagnostic:
    """Return a finding about a file of agents with the line that includes it."""
    line = lines.get(found.span.file)
    return found if line is None else replace(found, related=(*found.related, (line, "included here")))


def _ordered(found: Sequence[Diagnostic], *, strict: bool) -> tuple[Diagnostic, ...]:
    """Return each finding once, in the order of the files' lines."""
    if strict:
        found = [
            replace(one, severity=Severity.ERROR) if one.severity is Severity.WARNING else one
            for one in found
        ]
    unique = {(one.code, one.span, one.message): one for one in found}
    return tuple(sorted(unique.values(), key=lambda one: (one.span, one.code, one.message)))


# Overrides -----------------------------------------------------------------------------------------------

_OVERRIDE = re.compile(r"agents\.(\*|[A-Za-z_][A-Za-z0-9_]*)\.(model|instructions)")


def _models(overrides: Mapping[str, str]) -> dict[str, str]:
    return _named(overrides, "model")


def _instructions(overrides: Mapping[str, str]) -> dict[str, str]:
    return _named(overrides, "instructions")


def _named(overrides: Mapping[str, str], field: str) -> dict[str, str]:
    """Return the overrides of one field, by the names of the agents."""
    found = ((_OVERRIDE.fullmatch(key), value) for key, value in overrides.items())
    return {each[1]: value for each, value in found if each is not None and each[2] == field}


def _applied(
    models: Mapping[str, str], overrides: Mapping[str, str], known: Collection[str]
) -> dict[str, str]:
    """Return the overrides: the project's models, then those of the caller, which win."""
    if "agents.*.model" in overrides:
        return dict(overrides)
    project = {
        f"agents.{name}.model": model for name, model in models.items() if name in known or name == "*"
    }
    return {**(project if known else {}), **overrides}


def _check_overrides(overrides: Mapping[str, str], known: Collection[str]) -> None:
    for key in overrides:
        found = _OVERRIDE.fullmatch(key)
        if found is None or found.groups() == ("*", "instructions"):
            raise SettingsError(
                f"{key!r} cannot be overridden",
                hint="use `agents.NAME.model=…`, `agents.*.model=…` for all agents, or "
                "`agents.NAME.instructions=…`",
                key=key,
            )
        if found[1] != "*" and found[1] not in known:
            raise SettingsError(
                f"`{key}` cannot be overridden: there is no agent {found[1]!r}",
                hint=suggest(found[1], known, what="known agents") or "this blueprint has no agents",
                key=key,
            )


# The tree ------------------------------------------------------------------------------------------------


@dataclass
class _Tree:
    """Builds the trees of blueprints, for the checks and for the run.

    The tree of a blueprint with errors is only for the checks: in it a missing agent has no model, and a
    missing import has no steps.
    """

    models: Mapping[str, str]
    instructions: Mapping[str, str]
    """The texts of agents instead of their own."""
    built: dict[str, Pipeline] = field(default_factory=dict)
    """Pipelines by file, so that a repeated import is built once."""

    def pipeline(self, unit: Unit) -> Pipeline:
        file = unit.document.file
        if file not in self.built:
            self.built[file] = self._pipeline(unit)
        return self.built[file]

    def _pipeline(self, unit: Unit) -> Pipeline:
        blueprint, build = unit.blueprint, _Steps(unit, self).built
        return Pipeline(
            steps=build(blueprint.steps),
            name=blueprint.name,
            description=blueprint.description,
            input_schema=blueprint.input_schema,
            context_schema=blueprint.context_schema,
            context_type=blueprint.context,
            output=blueprint.output,
            budget=build(blueprint.budget),
            notify=build(blueprint.notify),
            evaluate=blueprint.evaluate,
            deadline_s=build(blueprint.deadline),
            schedules=[Schedule(**doc.Schedule.to_tree(dict(one))) for one in scheduled(blueprint)],
            migrations=tuple(
                Migration(StepPath(each.from_), StepPath(each.to)) for each in blueprint.migrations
            ),
            on_failure=build(blueprint.on_failure),
            finally_=build(blueprint.finally_),
        )

    def agent(self, unit: Unit, name: str, around: tuple[str, ...] = ()) -> AgentSpec:
        """Return an agent of a file; `around` are the agents that have it as a tool, at any depth."""
        agent = unit.blueprint.agents.get(name, doc.Agent())
        path, text = unit.prompts.get(name, (None, agent.instructions))
        if name in self.instructions:
            path, text = None, self.instructions[name]
        return AgentSpec(
            name=name,
            model=self.models.get(name) or self.models.get("*") or agent.model or "",
            instructions=None if text is None else Text(text, literal=not agent.template),
            instructions_file=path,
            output_schema=agent.output_schema,
            output_type=agent.output_type,
            model_settings=agent.model_settings,
            retries=agent.retries,
            tool_timeout=agent.tool_timeout,
            tools=[*self.tools(unit, name, agent, (*around, name))],
        )

    def tools(self, unit: Unit, name: str, agent: doc.Agent, around: tuple[str, ...]) -> Iterator[ToolSpec]:
        """Yield the tools of an agent; one that would call itself is left out, and a rule reports it."""
        for index, tool in enumerate(agent.tools):
            match tool:
                case str():
                    yield CallableTool(tool)
                case doc.Tool(call=str(call)):
                    yield CallableTool(
                        call,
                        effect=tool.effect,
                        with_=tool.with_,
                        approve=_approval(tool.approve),
                        enforce_idempotency=tool.enforce_idempotency,
                        in_doubt=tool.in_doubt,
                        executor=tool.executor,
                        resources=None if tool.resources is None else tool.resources.model_dump(),
                    )
                case doc.Tool(blueprint=str(file), description=str(text)):
                    child = unit.tool_blueprints.get((name, index))
                    tree = Pipeline() if child is None else self.pipeline(child)
                    path = file if child is None else child.document.file
                    called = tool.name or (f"tool_{index}" if child is None else None)
                    yield BlueprintTool(tree, text, called, blueprint=path)
                case doc.Tool(agent=str(other), description=str(text)) if other not in around:
                    yield AgentTool(
                        self.agent(unit, other, around),
                        text,
                        tool.name,
                        max_turns=tool.max_turns or MAX_TURNS,
                    )
                case doc.Tool(mcp=str(server)):
                    yield McpTools(
                        server,
                        allow=tool.allow,
                        effect=_effect(tool),
                        approve=_approval(tool.approve),
                        enforce_idempotency=tool.enforce_idempotency,
                        in_doubt=tool.in_doubt,
                    )
                case _:
                    continue


def _effect(tool: doc.Tool) -> McpEffect:
    """Return the effect of tools of an MCP server; a rule refuses `transactional`."""
    given = tool.effect
    return "unsafe" if given is None or given == "transactional" else given


def _approval(said: doc.Approval | Literal[True] | None) -> Approval | Literal[True] | None:
    return Approval(**said.model_dump()) if isinstance(said, doc.Approval) else said


_PARTS: Mapping[type[doc.Strict], Callable[..., Any]] = {
    doc.Budget: UsageLimits,
    doc.CacheKeys: CachePolicy,
    doc.Carry: Carry,
    doc.Config: StepConfig,
    doc.Processors: Processors,
    doc.Retry: lambda on, **keys: RetryPolicy(on=tuple(on), **keys),
    doc.State: State,
    doc.Transition: Transition,
}
"""The tree's classes for mappings of the language other than steps; all others stay mappings."""


class _Steps:
    """Builds the steps of one blueprint file."""

    def __init__(self, unit: Unit, tree: _Tree) -> None:
        self.unit = unit
        self.agent = cache(lambda name: tree.agent(unit, name))
        self.tree = tree

    def built(self, value: Any) -> Any:
        """Return the tree's value for a value of the document."""
        match value:
            case None | str():
                return value
            case doc.BaseStep():
                return self.step(value)
            case doc.Strict():
                arguments = type(value).to_tree({key: self.built(one) for key, one in value})
                return _PARTS.get(type(value), dict)(**arguments)
            case dict():
                return {key: self.built(one) for key, one in value.items()}
            case list():
                return [self.built(one) for one in value]
            case _:
                return value

    def step(self, step: doc.BaseStep) -> BaseStep:
        """Return a step of any kind: the fields of its model become arguments of its class."""
        marks = roles(type(step))
        keys = {
            key: self.who(one) if one is not None and marks.get(key) is Role.ANSWERER else self.built(one)
            for key, one in step
            if key != "kind"
        }
        arguments = type(step).to_tree(keys)
        if step.imports is not None:
            child = self.unit.imports.get(step.imports)
            arguments["blueprint"] = step.imports if child is None else child.document.file
            arguments["pipeline"] = Pipeline() if child is None else self.tree.pipeline(child)
        return KINDS[getattr(step, "kind", "")](**arguments)

    def who(self, name: str | doc.AgentChoice) -> AgentSpec | OneOf | CallableRef:
        """Return a callable or an agent of this file by its name, or several agents to choose from."""
        if isinstance(name, doc.AgentChoice):
            return OneOf({each: self.agent(each) for each in name.one_of}, by=name.by)
        return CallableRef(name) if looks_like_target(name) else self.agent(name)
