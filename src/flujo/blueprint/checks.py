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
    import_rules,
    machine_rules,
    places,
    question_rules,
    rules,
    type_rules,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.rules import Unit

AT_TOP = (
    agent_rules.unused_agent,
    agent_rules.unused_include,
    agent_rules.agent_without_model,
    rules.reserved_context_field,
    rules.unavailable_at_top,
    budget_rules.unbounded_answers,
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
)


def check(unit: Unit) -> Iterator[Diagnostic]:
    """Yield what every rule finds in one blueprint file; a finding may come more than once."""
    for at_top in AT_TOP:
        yield from at_top(unit)
    for named in callable_rules.named_at_top(unit):
        yield from callable_rules.callable_problems(unit, named)
    for visit in unit.visits:
        for on_step in ON_STEPS:
            yield from on_step(unit, visit)
        for named in callable_rules.named_in_step(visit):
            yield from callable_rules.callable_problems(unit, named)
        for place in places.places(unit, visit):
            if place.names_callable:
                named = callable_rules.Named(place.source.strip(), place.path)
                yield from callable_rules.callable_problems(unit, named)
            else:
                yield from expression_rules.expression_problems(unit, place)
    for place in places.places_at_top(unit):
        yield from expression_rules.expression_problems(unit, place)
