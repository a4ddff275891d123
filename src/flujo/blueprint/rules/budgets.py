"""Rules about budgets: the maximum cost of a request must be known before it is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import rule
from flujo.blueprint.rules.agents import in_use_by

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.language import models as doc

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
