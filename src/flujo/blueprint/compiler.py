"""A checked document becomes a `Pipeline`, its imports with it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from flujo.blueprint.closure import Closure
from flujo.blueprint.diagnostics import Diagnostic, Severity, suggest
from flujo.blueprint.language import models as doc
from flujo.blueprint.loader import Loader
from flujo.blueprint.rules.agents import agents_that_matter
from flujo.blueprint.rules.registry import check
from flujo.blueprint.rules.suppressions import apply_suppressions
from flujo.domain.agents import AgentSpec
from flujo.domain.pipeline import Pipeline
from flujo.domain.retry import RetryPolicy
from flujo.domain.steps import (
    BaseStep,
    CachePolicy,
    CacheStep,
    CallableRef,
    Carry,
    ConditionalStep,
    DynamicParallelRouterStep,
    HumanInTheLoopStep,
    ImportStep,
    LoopStep,
    MapStep,
    ParallelStep,
    Processors,
    State,
    StateMachineStep,
    Step,
    StepConfig,
    Text,
    Transition,
    TreeSearchStep,
)
from flujo.domain.usage import UsageLimits
from flujo.domain.values import looks_like_target
from flujo.exceptions import SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Span
    from flujo.blueprint.sources.source_files import Source


@dataclass(frozen=True)
class Compiled:
    """What became of a blueprint. `pipeline` is None when any diagnostic is an error."""

    pipeline: Pipeline | None
    diagnostics: tuple[Diagnostic, ...]
    closure: Closure
    sources: Mapping[str, str]
    """The text of each file, for `diagnostics.render`; what looks like a secret is blotted out."""


def compile_blueprint(
    entry: str,
    source: Source,
    *,
    allow_callables: Sequence[str] = (),
    models: Mapping[str, str] | None = None,
    overrides: Mapping[str, str] | None = None,
    strict: bool = False,
    is_bounded: bool = False,
) -> Compiled:
    """Read, check and compile a blueprint with everything that it imports.

    Nothing that the blueprint names is imported or run.

    Args:
        entry: the blueprint's path in the project.
        source: where files are read from.
        allow_callables: the patterns of flujo.toml; a callable that none admits is an error.
        models: agent → model, as the project's settings say; `*` is every agent that is not named. They
            become overrides of the closure, where the blueprint has such an agent.
        overrides: `agents.NAME.model` or `agents.*.model` to a model; they reach imported blueprints too.
        strict: whether warnings are errors.
        is_bounded: whether the project bounds what a run may use, whatever the blueprint says.

    Raises:
        SettingsError: an override names something that cannot be overridden.
    """
    loader = Loader(source, allow_callables)
    unit = loader.load_entry(entry)
    if unit is not None:
        for loaded in loader.units.values():  # the entry's budget holds for all that it imports
            loaded.is_bounded = is_bounded or unit.blueprint.budget is not None
    diagnostics = _found(loader, loader.units.values(), strict=strict)
    known = {name for loaded in loader.units.values() for name in agents_that_matter(loaded)}
    applied = _applied(models or {}, overrides or {}, known)
    if unit is not None:
        _check_overrides(_models(overrides or {}), known)
    closure = Closure(entry, dict(loader.files), applied)
    is_whole = all(loaded.is_whole for loaded in loader.units.values())
    broken = unit is None or not is_whole or any(diagnostic.is_error for diagnostic in diagnostics)
    pipeline = None if broken or unit is None else _Tree(_models(applied)).pipeline(unit)
    return Compiled(pipeline, diagnostics, closure, loader.sources())


def check_agents(
    entry: str, source: Source, *, allow_callables: Sequence[str] = (), strict: bool = False
) -> Compiled:
    """Read and check a file of agents by itself; there is no pipeline in it.

    Args:
        entry: the file's path in the project.
        source: where files are read from.
        allow_callables: the patterns of flujo.toml; a tool that none admits is an error.
        strict: whether warnings are errors.
    """
    loader = Loader(source, allow_callables)
    unit = loader.load_agents(entry)
    diagnostics = _found(loader, [unit], strict=strict)
    return Compiled(None, diagnostics, Closure(entry, dict(loader.files)), loader.sources())


def _found(loader: Loader, units: Iterable[Unit], *, strict: bool) -> tuple[Diagnostic, ...]:
    """Return all that is wrong with what was loaded."""
    found = [*loader.diagnostics]
    lines: dict[str, Span] = {}
    for unit in units:
        found += check(unit)
        for index, files in unit.roster.files.items():
            lines |= {file: unit.span("include", index) for file in files if file not in lines}
    for document in loader.documents:
        found = list(apply_suppressions(document, found, is_included=document.file in loader.rosters))
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

_OVERRIDE = re.compile(r"agents\.(\*|[A-Za-z_][A-Za-z0-9_]*)\.model")


def _models(overrides: Mapping[str, str]) -> dict[str, str]:
    models = {}
    for key, model in overrides.items():
        found = _OVERRIDE.fullmatch(key)
        if found is None:
            raise SettingsError(
                f"{key!r} cannot be overridden",
                hint="what can be is `agents.NAME.model=…`, or `agents.*.model=…` for all agents",
                key=key,
            )
        models[found[1]] = model
    return models


def _applied(
    models: Mapping[str, str], overrides: Mapping[str, str], known: Collection[str]
) -> dict[str, str]:
    """Return what overrides the blueprint: the project's models, under the words of the caller."""
    if "agents.*.model" in overrides:
        return dict(overrides)
    project = {
        f"agents.{name}.model": model for name, model in models.items() if name in known or name == "*"
    }
    return {**(project if known else {}), **overrides}


def _check_overrides(models: Mapping[str, str], known: Collection[str]) -> None:
    for name in models:
        if name != "*" and name not in known:
            raise SettingsError(
                f"`agents.{name}.model` cannot be overridden: there is no agent {name!r}",
                hint=suggest(name, known, what="there are") or "this blueprint has no agents",
                key=f"agents.{name}.model",
            )


# The tree ------------------------------------------------------------------------------------------------


@dataclass
class _Tree:
    """Builds the syntax tree of blueprints that have passed every check."""

    models: Mapping[str, str]
    built: dict[str, Pipeline] = field(default_factory=dict)
    """By file: what is imported twice is built once."""

    def pipeline(self, unit: Unit) -> Pipeline:
        file = unit.document.file
        if file not in self.built:
            self.built[file] = self._pipeline(unit)
        return self.built[file]

    def _pipeline(self, unit: Unit) -> Pipeline:
        blueprint = unit.blueprint
        return Pipeline(
            steps=_Steps(unit, self).all(blueprint.steps),
            name=blueprint.name,
            description=blueprint.description,
            input_schema=blueprint.input_schema,
            context_schema=blueprint.context_schema,
            context_type=blueprint.context,
            output=blueprint.output,
            budget=UsageLimits(**blueprint.budget.model_dump()) if blueprint.budget else None,
        )

    def agent(self, unit: Unit, name: str) -> AgentSpec:
        agent = unit.blueprint.agents[name]
        path, text = unit.prompts.get(name, (None, agent.instructions))
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
            tools=[tool for tool in agent.tools if isinstance(tool, str)],
        )


class _Steps:
    """Builds the steps of one blueprint file."""

    def __init__(self, unit: Unit, tree: _Tree) -> None:
        self.unit = unit
        self.agent = cache(lambda name: tree.agent(unit, name))
        self.tree = tree

    def all(self, steps: Sequence[doc.BaseStep]) -> tuple[BaseStep, ...]:
        return tuple(self.one(step) for step in steps)

    def body(self, steps: Sequence[doc.BaseStep]) -> Pipeline:
        return Pipeline(steps=self.all(steps))

    def one(self, step: doc.BaseStep) -> BaseStep:
        common = _common(step)
        match step:
            case doc.Step():
                return self.step(step, common)
            case doc.HitlStep():
                return self.hitl(step, common)
            case doc.ImportStep():
                return self.imports(step, common)
            case doc.CacheStep():
                return CacheStep(step=self.one(step.step), key=step.key, ttl_s=step.ttl_s, **common)
            case doc.TreeSearchStep():
                return self.tree_search(step, common)
            case _:
                return self.composite(step, common | {"output": getattr(step, "output", None)})

    def composite(self, step: doc.BaseStep, common: dict[str, Any]) -> BaseStep:
        match step:
            case doc.ConditionalStep():
                return self.conditional(step, common)
            case doc.LoopStep():
                return self.loop(step, common)
            case doc.StateMachineStep():
                return self.state_machine(step, common)
            case doc.MapStep():
                return self.map(step, common)
            case doc.ParallelStep():
                return ParallelStep(**self.branches(step), **common)
            case doc.RouterStep():
                return DynamicParallelRouterStep(
                    router=self.who(step.router), input=step.input, **self.branches(step), **common
                )
            case _:
                raise TypeError(f"the rules let through a step that cannot be built: {step!r}")

    def who(self, name: str) -> AgentSpec | CallableRef:
        """Return who is named: a callable, or an agent of this file."""
        return CallableRef(name) if looks_like_target(name) else self.agent(name)

    def tree_search(self, step: doc.TreeSearchStep, common: dict[str, Any]) -> TreeSearchStep:
        return TreeSearchStep(
            propose=self.who(step.propose),
            evaluate=self.who(step.evaluate),
            goal=step.goal,
            beam_width=step.beam_width,
            max_depth=step.max_depth,
            max_concurrency=step.max_concurrency,
            input=step.input,
            **common,
        )

    def step(self, step: doc.Step, common: dict[str, Any]) -> Step:
        return Step(
            agent=self.agent(step.agent) if step.agent else None,
            call=step.call,
            arguments=step.with_,
            input=step.input,
            output_schema=step.output_schema,
            effect=step.effect,
            enforce_idempotency=step.enforce_idempotency,
            in_doubt=step.in_doubt,
            reconcile=step.reconcile,
            processors=Processors(input=step.processors.input, output=step.processors.output),
            validators=step.validators,
            fallback=self.step(step.fallback, _common(step.fallback)) if step.fallback else None,
            **common,
        )

    def hitl(self, step: doc.HitlStep, common: dict[str, Any]) -> HumanInTheLoopStep:
        late = step.on_deadline
        return HumanInTheLoopStep(
            message=step.message,
            answer_schema=step.answer_schema,
            deadline_s=step.deadline_s,
            on_deadline="fail" if isinstance(late, str) else {"answer": late.answer},
            **common,
        )

    def conditional(self, step: doc.ConditionalStep, common: dict[str, Any]) -> ConditionalStep:
        if step.if_ is not None:
            branches = {"then": self.body(step.then or ())}
            if step.else_ is not None:
                branches["else"] = self.body(step.else_)
            return ConditionalStep(condition=step.if_, form="if", branches=branches, **common)
        return ConditionalStep(
            condition=step.switch or "",
            form="switch",
            branches={name: self.body(steps) for name, steps in (step.branches or {}).items()},
            default=self.body(step.default) if step.default is not None else None,
            **common,
        )

    def loop(self, step: doc.LoopStep, common: dict[str, Any]) -> LoopStep:
        return LoopStep(
            body=self.body(step.steps),
            until=step.until or "false",
            max_iterations=step.max_iterations,
            on_limit=step.on_limit,
            carry={name: Carry(one.initial, one.next) for name, one in step.carry.items()},
            **common,
        )

    def state_machine(self, step: doc.StateMachineStep, common: dict[str, Any]) -> StateMachineStep:
        return StateMachineStep(
            initial=step.initial,
            states={
                name: State(
                    self.body(state.steps),
                    tuple(Transition(one.to, one.when) for one in state.transitions),
                )
                for name, state in step.states.items()
            },
            final=tuple(step.final),
            max_transitions=step.max_transitions,
            **common,
        )

    def map(self, step: doc.MapStep, common: dict[str, Any]) -> MapStep:
        return MapStep(
            over=step.over,
            body=self.body(step.steps),
            item_name=step.as_,
            max_concurrency=step.max_concurrency,
            on_error=step.on_error,
            merge=step.merge,
            **common,
        )

    def branches(self, step: doc.ParallelStep | doc.RouterStep) -> dict[str, Any]:
        """Return the keys that a parallel step and a router have in common."""
        return {
            "branches": {name: self.body(steps) for name, steps in step.branches.items()},
            "merge": step.merge,
            "field_mapping": {name: tuple(fields) for name, fields in step.field_mapping.items()},
            "on_branch_failure": step.on_branch_failure,
            "max_concurrency": step.max_concurrency,
        }

    def imports(self, step: doc.ImportStep, common: dict[str, Any]) -> ImportStep:
        instead = step.on_failure
        return ImportStep(
            blueprint=self.unit.imports[step.blueprint].document.file,
            pipeline=self.tree.pipeline(self.unit.imports[step.blueprint]),
            arguments=step.with_,
            context=step.context,
            on_failure={"output": instead.output} if isinstance(instead, doc.OutputInstead) else instead,
            **common,
        )


def _common(step: doc.BaseStep) -> dict[str, Any]:
    config = step.config
    retry = None
    if config.retry is not None:
        retry = RetryPolicy(**{**config.retry.model_dump(), "on": tuple(config.retry.on)})
    return {
        "name": step.name,
        "when": step.when,
        "save": {
            name: {"append": save.append} if isinstance(save, doc.Append) else save
            for name, save in step.save.items()
        },
        "cache": None if step.cache is None else CachePolicy(key=step.cache.key, ttl_s=step.cache.ttl_s),
        "tags": tuple(step.tags),
        "config": StepConfig(
            timeout_s=config.timeout_s,
            max_retries=config.max_retries,
            retry=retry,
            execution_mode=config.execution_mode,
            durability=config.durability,
        ),
    }
