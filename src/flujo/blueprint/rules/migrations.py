"""Rules about migrations: a renamed or moved part must be found, and its record must have one meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import RULES, rule
from flujo.domain.migration_checks import migration_findings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.domain.pipeline import Pipeline

_STEPS = "\nsteps:\n  - {name: count, call: skills.text:count}"
rule(
    "FLJ284",
    "migration-to-no-step",
    "A migration to a step that does not exist",
    finds="A `to` of `migrations:` that is not the path of a step of this blueprint.",
    why="The record of the old step would belong to no step, so no waiting run could continue.",
    example="migrations: [{from: length, to: cuont}]" + _STEPS,
    instead="migrations: [{from: length, to: count}]" + _STEPS,
)
rule(
    "FLJ285",
    "migration-repeated",
    "Two migrations from one path",
    finds="The same `from` in two entries of `migrations:`.",
    why="A recorded step can be only one step of the blueprint.",
    example="migrations: [{from: length, to: count}, {from: length, to: count}]" + _STEPS,
    instead="migrations: [{from: length, to: count}]" + _STEPS,
)
rule(
    "FLJ286",
    "migration-unfit",
    "A migration that a run cannot follow",
    finds="A `from` that is still a path of the blueprint or the `to` of another entry (a chain or a swap), "
    "two paths in different places, other names of `then`, `else` and `default`, and names of branches at "
    "which a composite has records of its own (`merge`, `cache`, `agent`, `files`).",
    why="The recorded path would have two meanings, or the record would not say what the run has decided.",
    example="migrations: [{from: count, to: count}]" + _STEPS,
    instead="migrations: [{from: length, to: count}]" + _STEPS,
)
_ROUND = (
    "\nsteps:\n  - {name: again, kind: loop, until: 'true', steps: [{name: count, call: skills.text:count}]}"
)
_BOTH = (
    "\nsteps:\n  - {name: both, kind: parallel, branches: {one: [{name: count, call: skills.text:count}]}}"
)
rule(
    "FLJ287",
    "migration-into-unfit",
    "A step that moved where its record cannot follow",
    finds="A migration that moves a step into a new loop, map, state machine, router, `cache`, `tree_search` "
    "or conversation, or into a composite that runs in the background, has a `cache:`, or has a callable as "
    "its condition.",
    why="The record does not say in which iteration, item or branch of the new composite the step was. A "
    "step can move into a `parallel`, an import, or a conditional with an expression.",
    example="migrations: [{from: count, to: again/count}]" + _ROUND,
    instead="migrations: [{from: count, to: 'both:one/count'}]" + _BOTH,
)


def unfit_migrations(unit: Unit, pipeline: Pipeline) -> Iterator[Diagnostic]:
    """Report migrations that no run could follow."""
    for one in migration_findings(pipeline):
        yield RULES[one.code].at(unit.span("migrations", one.index, one.key), one.message, hint=one.hint)
