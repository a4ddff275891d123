"""Rules about budgets: the maximum cost of a request must be known before it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import rule
from flujo.blueprint.rules.agents import in_use_by
from flujo.domain.agents import AgentSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.language import models as doc
    from flujo.domain.pipeline import Pipeline

_BUDGET = "budget: {total_cost_usd_limit: 0.5}\n"
_STEPS = "\nsteps:\n  - {name: sort, agent: sorter}"
UNBOUNDED_ANSWER = rule(
    "FLJ271",
    "unbounded-answer",
    "An agent under a budget without a limit on its response length",
    finds="A budget with a limit on cost or tokens, and an agent in the blueprint or in one that it imports "
    "without `max_tokens` in its `model_settings`. Local models have a limit of their own.",
    why="Before each request, Flujo reserves its maximum cost in the budget. Without `max_tokens` the "
    "maximum is unknown, and the request would be refused.",
    example=_BUDGET + "agents: {sorter: {model: openai:gpt-5-mini}}" + _STEPS,
    instead=_BUDGET
    + "agents: {sorter: {model: openai:gpt-5-mini, model_settings: {max_tokens: 500}}}"
    + _STEPS,
)


def unbounded_answers(unit: Unit) -> Iterator[Diagnostic]:
    """Report agents under a limit on cost or tokens whose response length is unlimited."""
    budget = unit.blueprint.budget
    if budget is None or (budget.total_cost_usd_limit is None and budget.total_tokens_limit is None):
        return
    for name in _unbounded(unit):
        yield UNBOUNDED_ANSWER.at(
            unit.span("agents", name, key=True),
            f"agent {name!r} is under a budget, but its response length is unlimited",
            hint="set a limit: `model_settings: {max_tokens: 1000}`",
        )
    for child in _below(unit, set()):
        for name in _unbounded(child):
            yield UNBOUNDED_ANSWER.at(
                unit.span("budget", key=True),
                f"agent {name!r} of {child.document.file} is under this budget, but its response length "
                "is unlimited",
                hint="set a limit there: `model_settings: {max_tokens: 1000}`",
            )


UNPRICED_MODEL = rule(
    "FLJ154",
    "unpriced-model",
    "A model without a known price under a limit on cost",
    finds="A limit on cost (`budget:` of the entry or of the file, or `[budgets.limits]` of flujo.toml), and "
    "an agent whose model has no price: neither in `[prices]` of flujo.toml nor in the public list.",
    why="Flujo reserves the cost of each request before it is sent. The first request of this agent would be "
    "refused, after the steps before it were paid for.",
    example=_BUDGET
    + "agents: {sorter: {model: openai:my-tuned-model, model_settings: {max_tokens: 500}}}"
    + _STEPS,
    instead='# flujo.toml: [prices."openai:my-tuned-model"] with input_mtok and output_mtok\n'
    + _BUDGET
    + "agents: {sorter: {model: openai:my-tuned-model, model_settings: {max_tokens: 500}}}"
    + _STEPS,
)


def budget_refuses(budget: doc.Budget | None) -> bool:
    """Return whether a budget refuses requests of unknown price."""
    return budget is not None and budget.total_cost_usd_limit is not None and budget.unknown_price == "refuse"


def unpriced_models(unit: Unit, pipeline: Pipeline) -> Iterator[Diagnostic]:
    """Report the models of a file's agents whose price is unknown, if a limit refuses their requests.

    Args:
        unit: the file.
        pipeline: its tree, in which the settings may have replaced models.
    """
    if not (unit.refuses_unpriced or budget_refuses(unit.blueprint.budget)):
        return
    for spec in _asked(pipeline):
        if not spec.model.startswith(_FREE) and not unit.project.is_priced(spec.model):
            yield UNPRICED_MODEL.at(
                unit.span("agents", spec.name, key=True),
                f"agent {spec.name!r} is under a limit on cost, and the price of {spec.model!r} is not known",
                hint=f'set it in flujo.toml: `[prices."{spec.model}"]` with `input_mtok` and `output_mtok`, '
                "dollars for a million tokens; or count only its tokens: `unknown_price: allow` "
                "in the budget",
            )


_FREE = ("local:", "test:")
"""Models whose requests cost nothing."""


def _asked(pipeline: Pipeline) -> Iterator[AgentSpec]:
    """Yield the agents that the steps of a file ask, without those of its imports, each once."""
    found: dict[str, AgentSpec] = {}
    waiting = [*pipeline.steps, *(step for body in pipeline.endings().values() for step in body.steps)]
    while waiting:
        step = waiting.pop()
        if step.imported is None:
            found |= {each.name: each for each in step.names() if isinstance(each, AgentSpec)}
            waiting += (inner for body in step.bodies().values() for inner in body.steps)
    yield from found.values()


def _unbounded(unit: Unit) -> list[str]:
    """Return the agents of a step that have no limit on their response length."""
    in_use = in_use_by(unit)
    return [
        name
        for name, agent in unit.blueprint.agents.items()
        if name in in_use and is_unbounded(agent) and unit.roster.agents[name].is_whole
    ]


def is_unbounded(agent: doc.Agent) -> bool:
    """Return whether an agent's responses cost money and have no length limit."""
    is_local = (agent.model or "").startswith("local:")
    return not is_local and not isinstance(agent.model_settings.get("max_tokens"), int)


def _below(unit: Unit, seen: set[str]) -> Iterator[Unit]:
    """Yield every blueprint that this one imports, once."""
    for child in unit.imports.values():
        if child.document.file not in seen:
            seen.add(child.document.file)
            yield child
            yield from _below(child, seen)
