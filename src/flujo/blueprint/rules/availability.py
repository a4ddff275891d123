"""Rules about the parts of the language that this version does not execute yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.blueprint.diagnostics import one_of, rule
from flujo.blueprint.language import models as doc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flujo.blueprint.analysis.scopes import Visit
    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
    from flujo.blueprint.language.traversal import Path

NOT_AVAILABLE = rule(
    "FLJ213",
    "not-available-yet",
    "A part of the language that has no body yet",
    finds="A kind of step or a key that the language has, and that this version of Flujo does not execute.",
    why="Ignoring it would run something else than what was written.",
    example="steps:\n  - {name: sort, agent: sorter, config: {execution_mode: background}}",
    instead="steps:\n  - {name: sort, agent: sorter}",
)
AVAILABLE = tuple(model for model in doc.KINDS.values() if model.is_available)

_LATER_ON_AGENTS = ("spec", "capabilities", "trust")


def unavailable_step(unit: Unit, visit: Visit) -> Iterator[Diagnostic]:
    """Refuse kinds and keys of a step that are not executed yet."""
    step = visit.step
    if not isinstance(step, AVAILABLE):
        kind = getattr(step, "kind", "")
        kinds = one_of(known for known, model in doc.KINDS.items() if model in AVAILABLE)
        yield NOT_AVAILABLE.at(
            unit.span(*visit.path, "kind"),
            f"`kind: {kind}` is not available yet",
            hint=f"this version runs {kinds}",
        )
        return
    if step.config.execution_mode == "background":
        yield _unavailable(unit, (*visit.path, "config", "execution_mode"), "execution_mode: background")
    if isinstance(step, doc.HitlStep):
        yield from _attempts_of_a_human(unit, visit.path, step)


def _attempts_of_a_human(unit: Unit, path: Path, step: doc.HitlStep) -> Iterator[Diagnostic]:
    """Refuse limits on attempts where there are none: a human is asked once, and has time."""
    for key in ("timeout_s", "max_retries", "retry"):
        if getattr(step.config, key) != type(step.config).model_fields[key].default:
            yield NOT_AVAILABLE.at(
                unit.span(*path, "config", key, key=True),
                f"`{key}` on `kind: {step.kind}` is not available yet",
                hint="a human who is asked has time; set it on the steps around or after",
            )


def unavailable_at_top(unit: Unit) -> Iterator[Diagnostic]:
    """Refuse keys of agents that are not acted on yet."""
    for name, agent in unit.blueprint.agents.items():
        yield from _unavailable_keys(unit, ("agents", name), agent, _LATER_ON_AGENTS)
        for index, tool in enumerate(agent.tools):
            if not isinstance(tool, str):
                path = ("agents", name, "tools", index)
                yield NOT_AVAILABLE.at(
                    unit.span(*path),
                    "a tool in the form of a mapping is not available yet",
                    hint="write `module:callable`",
                )


def _unavailable_keys(unit: Unit, path: Path, model: Any, keys: Sequence[str]) -> Iterator[Diagnostic]:
    for key in keys:
        default = type(model).model_fields[key].default if key in type(model).model_fields else None
        if getattr(model, key, default) != default:
            yield _unavailable(unit, (*path, key), key)


def _unavailable(unit: Unit, path: Path, what: str) -> Diagnostic:
    return NOT_AVAILABLE.at(
        unit.span(*path, key=True), f"`{what}` is not available yet", hint="take it out for now"
    )
