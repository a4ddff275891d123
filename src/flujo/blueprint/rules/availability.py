"""Rules about the parts of the language that this version does not execute yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.blueprint.diagnostics import rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.language.traversal import Path

NOT_AVAILABLE = rule(
    "FLJ213",
    "not-available-yet",
    "A feature that is not available yet",
    finds="A kind of step or a key that this version of Flujo does not execute yet.",
    why="The run would ignore it.",
    example="steps:\n  - {kind: sleep, name: rest, for: 1h, config: {timeout_s: 5s}}",
    instead="steps:\n  - {kind: sleep, name: rest, for: 1h}",
)
LATER_ON_AGENTS = ("spec", "capabilities")
"""The keys of agents that the language reserves."""


def unavailable_at_top(unit: Unit) -> Iterator[Diagnostic]:
    """Report keys of agents that have no effect yet."""
    for name, agent in unit.blueprint.agents.items():
        yield from _unavailable_keys(unit, ("agents", name), agent, LATER_ON_AGENTS)


def _unavailable_keys(unit: Unit, path: Path, model: Any, keys: Sequence[str]) -> Iterator[Diagnostic]:
    for key in keys:
        default = type(model).model_fields[key].default if key in type(model).model_fields else None
        if getattr(model, key, default) != default:
            yield _unavailable(unit, (*path, key.rstrip("_")), key.rstrip("_"))


def _unavailable(unit: Unit, path: Path, what: str) -> Diagnostic:
    return NOT_AVAILABLE.at(unit.span(*path, key=True), f"`{what}` is not available yet", hint="remove it")
