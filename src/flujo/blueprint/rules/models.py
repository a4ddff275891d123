"""Rules about the models of agents: unknown providers and local models, misspelt and unfit settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import Fix, Severity, rule
from flujo.domain.model_names import model_problem, unfit_setting, unknown_setting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic, Rule, Span
    from flujo.domain.model_names import NameProblem

_STEPS = "\nsteps:\n  - {name: sort, agent: sorter}"
UNKNOWN_MODEL = rule(
    "FLJ151",
    "unknown-model",
    "A model that no provider has",
    finds="`model` of an agent without a provider (`gpt-5-mini`), with an unknown one (`opnai:gpt-5-mini`), "
    "or with a local model that Flujo does not have. A warning if the provider is similar to no known one. "
    "The providers of `[providers.NAME]` in flujo.toml are known too. A model of "
    "`[agents.NAME]` in flujo.toml that the blueprint uses is checked as well.",
    why="The run could not start.",
    example="agents: {sorter: {model: gpt-5-mini}}" + _STEPS,
    instead="agents: {sorter: {model: openai:gpt-5-mini}}" + _STEPS,
)
UNKNOWN_SETTING = rule(
    "FLJ152",
    "unknown-model-setting",
    "A setting that models do not have",
    finds="A key of `model_settings` that is not a setting: `temprature`. The settings of one provider begin "
    "with its name (`openai_reasoning_effort`); a field of its API without a setting goes into `extra_body`. "
    "A warning if the key is similar to no known setting.",
    why="The key is ignored: the model answers as if it were not there.",
    example="agents: {sorter: {model: openai:gpt-4o, model_settings: {temprature: 0}}}" + _STEPS,
    instead="agents: {sorter: {model: openai:gpt-4o, model_settings: {temperature: 0}}}" + _STEPS,
)
UNFIT_SETTING = rule(
    "FLJ153",
    "unfit-model-setting",
    "A setting that the model does not take",
    finds="A key of `model_settings` that belongs to another provider, or that a reasoning model of OpenAI "
    "does not take: `temperature`, `top_p`, `presence_penalty`, `frequency_penalty`, `logit_bias`.",
    why="The setting is left out of the requests: the model answers as if it were not there.",
    example="agents: {sorter: {model: openai:gpt-5-mini, model_settings: {temperature: 0}}}" + _STEPS,
    instead="agents: {sorter: {model: openai:gpt-5-mini}}" + _STEPS,
)


def unknown_models(unit: Unit) -> Iterator[Diagnostic]:
    """Report models of agents that no provider has."""
    if unit.project.providers is None:
        return
    for name, agent in unit.blueprint.agents.items():
        if agent.model is not None and (problem := model_problem(agent.model, unit.project.providers)):
            yield _found(UNKNOWN_MODEL, problem, unit.span("agents", name, "model"))


def unfit_settings(unit: Unit) -> Iterator[Diagnostic]:
    """Report settings of agents that no model has, or that their model does not take."""
    if unit.project.providers is None:
        return
    for name, agent in unit.blueprint.agents.items():
        model = agent.model or ""
        is_named = model.partition(":")[0] in unit.project.providers
        for setting in agent.model_settings:
            span = unit.span("agents", name, "model_settings", setting, key=True)
            if (problem := unknown_setting(setting, agent.model_settings)) is not None:
                yield _found(UNKNOWN_SETTING, problem, span)
            elif not is_named and (problem := unfit_setting(model, setting)) is not None:
                yield _found(UNFIT_SETTING, problem, span)


def _found(which: Rule, problem: NameProblem, span: Span) -> Diagnostic:
    return which.at(
        span,
        problem.message,
        hint=problem.hint,
        severity=Severity.ERROR if problem.is_certain else Severity.WARNING,
        fix=None if problem.meant is None else Fix(span, problem.meant),
    )
