"""Runs all rules of the FLJ2xx range on one blueprint file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.language.error_recovery import StandIn
from flujo.blueprint.reading.syntax_rules import bounded
from flujo.blueprint.rules import (
    agents,
    allowed_tools,
    availability,
    background,
    branches,
    budgets,
    caching,
    callables,
    composed_tools,
    data_flow,
    executors,
    expressions,
    human_input,
    imports,
    instructions,
    mcp,
    migrations,
    models,
    named_tables,
    safety,
    schedules,
    tool_bindings,
    tree,
    type_stubs,
    types,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import TypeAlias

    from flujo.blueprint.analysis.scopes import Visit
    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.domain.pipeline import Pipeline
    from flujo.domain.tree_checks.findings import Finding

    OnStep: TypeAlias = Callable[[Unit, Visit], Iterator[Diagnostic]]
    Also: TypeAlias = Callable[[Pipeline], Iterable[Finding]]

AT_TOP = (
    agents.unused_agent,
    agents.unused_include,
    agents.agent_without_model,
    agents.duplicate_tool,
    agents.weaker_effect,
    tool_bindings.bound_parameters,
    tool_bindings.unset_secret,
    tool_bindings.tool_without_connection,
    agents.client_retries,
    agents.provider_tools,
    agents.output_function,
    instructions.untrusted_instructions,
    models.unknown_models,
    models.unfit_settings,
    composed_tools.unfit_input,
    composed_tools.unknown_helper,
    availability.unavailable_at_top,
    mcp.mcp_tools,
    allowed_tools.denied_tools,
    named_tables.unknown_targets,
    named_tables.unknown_evaluators,
    background.unknown_queues,
    executors.unknown_executors,
    executors.left_behind,
    budgets.unbounded_answers,
    schedules.unfit_schedules,
    human_input.approval_deadline,
    type_stubs.stale_types,
    safety.unbounded_spending,
    safety.pauses_inside_agents,
)
ON_STEPS = (
    agents.unknown_agent,
    agents.agent_choice,
    callables.stray_with,
    data_flow.endless_loop,
    imports.import_input,
    imports.import_context,
    human_input.deadline,
    branches.merge_conflict,
    branches.thrown_away,
    branches.keeps_nothing,
    branches.field_mapping,
    branches.router_answer,
    caching.never_cached,
    caching.search_answers,
    types.save_targets,
    types.carry_types,
    types.switch_branches,
    safety.cached_effects,
    safety.recorded_late,
)
AMONG_STEPS = (data_flow.standing_condition, safety.rule_of_two)
# These judge a step by the other steps, so they need all of them.
AT_TOP_OF_PARTS = (availability.unavailable_at_top, models.unknown_models, models.unfit_settings)
# These also work on a blueprint that could only be read in part.


ON_PARTS = (
    agents.unknown_agent,
    types.save_targets,
)
# These also work on a step that could only be read in part.


def check(unit: Unit, pipeline: Pipeline, also: Also | None = None) -> Iterator[Diagnostic]:
    """Yield the findings of all rules in one blueprint file; a finding may occur more than once.

    Args:
        unit: the file. Findings that only follow from an error in the file's syntax are left out.
        pipeline: the tree of the file.
        also: returns further findings in the tree of a file that has no errors.
    """
    is_sound = unit.is_whole
    known = set()
    for one in bounded(_each_rule(unit, pipeline)):
        is_sound = is_sound and not one.is_error
        known.add(one.message)
        if unit.is_whole or not (one.code == expressions.NOT_CHECKED.code or unit.is_wrong(one.span)):
            yield one
    if is_sound:  # a misspelt name would also leave an output unread
        yield from data_flow.unread_outputs(unit)
        yield from migrations.unfit_migrations(unit, pipeline)
        yield from budgets.unpriced_models(unit, pipeline)
        found = tree.placed_problems(unit, () if also is None else also(pipeline))
        yield from (one for one in found if one.message not in known)


def _each_rule(unit: Unit, pipeline: Pipeline) -> Iterator[Diagnostic]:
    yield from tree.tree_problems(unit, pipeline)
    for at_top in AT_TOP if unit.is_whole else AT_TOP_OF_PARTS:
        yield from at_top(unit)
    unwritten = data_flow.unwritten_fields(unit) if unit.is_whole else frozenset()
    for named in callables.named_at_top(unit):
        yield from callables.callable_problems(unit, named)
    for visit in unit.visits:
        for on_step in _fitting(unit, visit):
            yield from on_step(unit, visit)
        for named in callables.named_in_step(visit):
            yield from callables.callable_problems(unit, named)
        for place in unit.places[visit.path]:
            if place.names_callable:
                named = callables.Named(place.source.strip(), place.path)
                yield from callables.callable_problems(unit, named)
            else:
                yield from expressions.expression_problems(unit, place, unwritten)
    for place in unit.places[()]:
        yield from expressions.expression_problems(unit, place, unwritten)


def _fitting(unit: Unit, visit: Visit) -> Sequence[OnStep]:
    """Return the rules that apply to a step, given how much of it and of the others could be read."""
    if isinstance(visit.step, StandIn):
        return ()
    if not visit.is_known:
        return ON_PARTS
    return (*ON_STEPS, *AMONG_STEPS) if unit.is_whole else ON_STEPS
