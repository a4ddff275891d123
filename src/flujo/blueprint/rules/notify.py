"""Rules about messages: their targets are tables of flujo.toml."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flujo.blueprint.diagnostics import rule
from flujo.domain.wording import suggest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.blueprint.analysis.unit import Unit
    from flujo.blueprint.diagnostics import Diagnostic
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


def unknown_targets(unit: Unit) -> Iterator[Diagnostic]:
    """Report names in `notify` that the settings do not have."""
    if unit.targets is None:
        return
    for path, name in _named(unit):
        if name not in unit.targets:
            yield UNKNOWN_TARGET.at(
                unit.span(*path),
                f"there is no [notify.{name}] in flujo.toml",
                hint=suggest(name, unit.targets, what="there are", cutoff=0.6)
                or f"write a table [notify.{name}] with a `url` and its `secret`, or a `callable`",
            )


def _named(unit: Unit) -> Iterator[tuple[Path, str]]:
    notify = unit.blueprint.notify
    if isinstance(notify, list):
        yield from ((("notify", index), name) for index, name in enumerate(notify))
        return
    for event, names in notify:
        yield from ((("notify", event, index), name) for index, name in enumerate(names or ()))
