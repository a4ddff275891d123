"""Every rule about what a blueprint means, applied: all findings of one file at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint import (
    agent_rules,
    arm_rules,
    budget_rules,
    cache_rules,
    callable_rules,
    effect_rules,
    expression_rules,
    flow_rules,
    import_rules,
    machine_rules,
    python_types,
    question_rules,
    rules,
    safety_rules,
    type_rules,
)
from flujo.blueprint.reading_rules import bounded
from flujo.blueprint.salvage import StandIn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeAlias

    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.rules import Unit
    from flujo.blueprint.scopes import Visit

    OnStep: TypeAlias = Callable[[Unit, Visit], Iterator[Diagnostic]]

AT_TOP = (
    agent_rules.unused_agent,
    agent_rules.unused_include,
    agent_rules.agent_without_model,
    agent_rules.duplicate_tool,
    rules.reserved_context_field,
    rules.unavailable_at_top,
    budget_rules.unbounded_answers,
    python_types.stale_types,
    safety_rules.unbounded_spending,
    safety_rules.pauses_inside_agents,
)
ON_STEPS = (
    agent_rules.unknown_agent,
    rules.repeated_name,
    rules.reserved_name,
    rules.unavailable_step,
    rules.stray_with,
    rules.endless_loop,
    import_rules.import_input,
    import_rules.import_context,
    question_rules.deadline,
    effect_rules.effects,
    machine_rules.state_machine,
    arm_rules.merge_conflict,
    arm_rules.thrown_away,
    arm_rules.field_mapping,
    arm_rules.router_answer,
    cache_rules.cached_step,
    cache_rules.never_cached,
    cache_rules.search_answers,
    type_rules.save_targets,
    type_rules.carry_types,
    type_rules.switch_branches,
    safety_rules.cached_effects,
    safety_rules.recorded_late,
)
AMONG_STEPS = (flow_rules.standing_condition, safety_rules.rule_of_two)
"""What depends on what other steps do, and so on all of them being there."""
AT_TOP_OF_PARTS = (rules.reserved_context_field, rules.unavailable_at_top)
"""What can be said of a blueprint whatever else there may be of it."""


ON_PARTS = (
    agent_rules.unknown_agent,
    rules.repeated_name,
    rules.reserved_name,
    rules.unavailable_step,
    type_rules.save_targets,
)
"""What can be said of a step whatever else there may be of it."""


def check(unit: Unit) -> Iterator[Diagnostic]:
    """Yield what every rule finds in one blueprint file; a finding may come more than once.

    Of a file that does not fit the language in every part, it is what does not follow from that.
    """
    is_sound = unit.is_whole
    for one in bounded(_each_rule(unit)):
        is_sound = is_sound and not one.is_error
        if unit.is_whole or not (one.code == expression_rules.NOT_CHECKED.code or unit.is_wrong(one.span)):
            yield one
    if is_sound:  # a misspelt name reads nothing, and would leave an output unread as well
        yield from flow_rules.unread_outputs(unit)


def _each_rule(unit: Unit) -> Iterator[Diagnostic]:
    for at_top in AT_TOP if unit.is_whole else AT_TOP_OF_PARTS:
        yield from at_top(unit)
    unwritten = flow_rules.unwritten_fields(unit) if unit.is_whole else frozenset()
    for named in callable_rules.named_at_top(unit):
        yield from callable_rules.callable_problems(unit, named)
    for visit in unit.visits:
        for on_step in _fitting(unit, visit):
            yield from on_step(unit, visit)
        for named in callable_rules.named_in_step(visit):
            yield from callable_rules.callable_problems(unit, named)
        for place in unit.places[visit.path]:
            if place.names_callable:
                named = callable_rules.Named(place.source.strip(), place.path)
                yield from callable_rules.callable_problems(unit, named)
            else:
                yield from expression_rules.expression_problems(unit, place, unwritten)
    for place in unit.places[()]:
        yield from expression_rules.expression_problems(unit, place, unwritten)


def _fitting(unit: Unit, visit: Visit) -> Sequence[OnStep]:
    """Return the rules that can judge a step, by how much is known of it and of the others."""
    if isinstance(visit.step, StandIn):
        return (rules.repeated_name,)
    if not visit.is_known:
        return ON_PARTS
    return (*ON_STEPS, *AMONG_STEPS) if unit.is_whole else ON_STEPS
