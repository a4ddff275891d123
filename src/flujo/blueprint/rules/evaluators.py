"""Rules about scores: evaluators are tables of flujo.toml."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import rule
from flujo.domain.wording import suggest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.language.traversal import Path

_TABLE = "# flujo.toml: [evaluation.evaluators.polite]\n"
_STEPS = 'steps: [{name: say, call: "skills.hello:greet"}]'
UNKNOWN_EVALUATOR = rule(
    "FLJ471",
    "unknown-evaluator",
    "An evaluator that flujo.toml does not have",
    finds="A name in `evaluate`, and no table `[evaluation.evaluators.NAME]` in flujo.toml.",
    why="Only flujo.toml says what an evaluator is. Nothing would be scored.",
    example=f"{_TABLE}evaluate: [polit]\n{_STEPS}",
    instead=f"{_TABLE}evaluate: [polite]\n{_STEPS}",
)


def unknown_evaluators(unit: Unit) -> Iterator[Diagnostic]:
    """Report names in `evaluate`, of the blueprint and of its steps, that the settings do not have."""
    if unit.evaluators is None:
        return
    for path, name in _named(unit):
        if name not in unit.evaluators:
            yield UNKNOWN_EVALUATOR.at(
                unit.span(*path),
                f"there is no [evaluation.evaluators.{name}] in flujo.toml",
                hint=suggest(name, unit.evaluators, what="there are", cutoff=0.6)
                or f"write a table [evaluation.evaluators.{name}] with `judge`, `call` or `expr`",
            )


def _named(unit: Unit) -> Iterator[tuple[Path, str]]:
    yield from ((("evaluate", index), name) for index, name in enumerate(unit.blueprint.evaluate))
    for visit in unit.visits:
        named = enumerate(visit.step.evaluators)
        yield from (((*visit.path, "evaluate", index), name) for index, name in named)
