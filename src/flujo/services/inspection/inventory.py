"""What a blueprint consists of: its steps, the agents and callables that answer them, what it imports."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from flujo.domain.agents import AgentSpec
from flujo.domain.steps import CallableRef, ImportStep
from flujo.services.inspection.step_summary import gist

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.domain.pipeline import Pipeline

What = Literal["step", "agent", "callable", "import"]


@dataclasses.dataclass(frozen=True, slots=True)
class Item:
    """One thing that a blueprint has; its name is a step's path, an agent's name, a callable or a file."""

    blueprint: str
    what: What
    name: str
    detail: str = ""


def inventory(path: str, pipeline: Pipeline) -> list[Item]:
    """Return what the blueprint at `path` has, its steps in the order of the tree, everything else once."""
    found = [
        Item(path, "step", where, gist(step) if step.kind == "step" else f"{step.kind}: {gist(step)}")
        for where, step in pipeline.walk()
    ]
    others: dict[Item, None] = {}
    for leaf in _leaves(pipeline):
        if isinstance(leaf, AgentSpec):
            others[Item(path, "agent", leaf.name, leaf.model)] = None
        elif isinstance(leaf, CallableRef):
            others[Item(path, "callable", leaf.target)] = None
        else:
            others[Item(path, "import", leaf.blueprint, _count(leaf))] = None
    order = {"agent": 0, "callable": 1, "import": 2}
    return found + sorted(others, key=lambda item: order[item.what])


def _leaves(value: Any) -> Iterator[AgentSpec | CallableRef | ImportStep]:
    """Yield what a part of the tree names, wherever it stands."""
    if isinstance(value, AgentSpec | CallableRef | ImportStep):
        yield value
    if dataclasses.is_dataclass(value) and not isinstance(value, type | CallableRef):
        for field in dataclasses.fields(value):
            yield from _leaves(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, tuple):
        for item in value:
            yield from _leaves(item)


def _count(step: ImportStep) -> str:
    steps = len(step.pipeline.steps)
    return f"{steps} step{'s' if steps != 1 else ''}"
