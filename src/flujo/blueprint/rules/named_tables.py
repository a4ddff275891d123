"""Rules about names whose definitions are tables of flujo.toml: targets of messages, and evaluators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import rule
from flujo.domain.wording import suggest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic, Rule
    from flujo.blueprint.language.traversal import Path

_STEPS = 'steps: [{name: say, call: "skills.hello:greet"}]'
UNKNOWN_TARGET = rule(
    "FLJ310",
    "unknown-target",
    "A target of messages that flujo.toml does not have",
    finds="A name in `notify`, and no table `[notify.NAME]` in flujo.toml.",
    why="A blueprint cannot say where a message goes: only flujo.toml can. The message would never be sent.",
    example=f"# flujo.toml: [notify.ops]\nnotify: [op]\n{_STEPS}",
    instead=f"# flujo.toml: [notify.ops]\nnotify: [ops]\n{_STEPS}",
)
_TABLE = "# flujo.toml: [evaluation.evaluators.polite]\n"
UNKNOWN_EVALUATOR = rule(
    "FLJ471",
    "unknown-evaluator",
    "An evaluator that flujo.toml does not have",
    finds="A name in `evaluate`, and no table `[evaluation.evaluators.NAME]` in flujo.toml.",
    why="Only flujo.toml says what an evaluator is. Nothing would be scored.",
    example=f"{_TABLE}evaluate: [polit]\n{_STEPS}",
    instead=f"{_TABLE}evaluate: [polite]\n{_STEPS}",
)


def unknown_targets(unit: Unit) -> Iterator[Diagnostic]:
    """Report names in `notify` that the settings do not have."""
    if unit.project.targets is not None:
        write = "with a `url` and its `secret`, or a `callable`"
        yield from _unknown(unit, UNKNOWN_TARGET, _targets(unit), unit.project.targets, "notify", write)


def unknown_evaluators(unit: Unit) -> Iterator[Diagnostic]:
    """Report names in `evaluate`, of the blueprint and of its steps, that the settings do not have."""
    if unit.project.evaluators is not None:
        table, write = "evaluation.evaluators", "with `judge`, `call` or `expr`"
        yield from _unknown(unit, UNKNOWN_EVALUATOR, _evaluators(unit), unit.project.evaluators, table, write)


def _unknown(
    unit: Unit, found: Rule, named: Iterable[tuple[Path, str]], known: Collection[str], table: str, write: str
) -> Iterator[Diagnostic]:
    for path, name in named:
        if name not in known:
            yield found.at(
                unit.span(*path),
                f"there is no [{table}.{name}] in flujo.toml",
                hint=suggest(name, known, what="there are", cutoff=0.6)
                or f"write a table [{table}.{name}] {write}",
            )


def _targets(unit: Unit) -> Iterator[tuple[Path, str]]:
    notify = unit.blueprint.notify
    if isinstance(notify, list):
        yield from ((("notify", index), name) for index, name in enumerate(notify))
        return
    for event, names in notify:
        yield from ((("notify", event, index), name) for index, name in enumerate(names or ()))


def _evaluators(unit: Unit) -> Iterator[tuple[Path, str]]:
    yield from ((("evaluate", index), name) for index, name in enumerate(unit.blueprint.evaluate))
    for visit in unit.visits:
        named = enumerate(visit.step.evaluators)
        yield from (((*visit.path, "evaluate", index), name) for index, name in named)
