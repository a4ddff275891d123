"""What a blueprint consists of: its steps, the agents and callables that answer them, what it imports."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from flujo.domain.agents import AgentSpec
from flujo.domain.values import CallableRef

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flujo.domain.pipeline import Imported, Pipeline

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
        Item(path, "step", where, f"{'' if step.kind == 'step' else f'{step.kind}: '}{step.summary()}")
        for where, step in pipeline.walk()
    ]
    others = dict.fromkeys(_item(path, part) for part in _parts(pipeline))
    order = {"agent": 0, "callable": 1, "import": 2}
    return found + sorted(others, key=lambda item: order[item.what])


def _parts(pipeline: Pipeline) -> Iterator[AgentSpec | CallableRef | Imported]:
    """Yield what a pipeline and everything inside it names."""
    for _, step in pipeline.walk():
        if step.imported is not None:
            yield step.imported
        for named in step.names():
            yield named
            if isinstance(named, AgentSpec):
                yield from named.names()
        contexts = (body.context_type for body in step.bodies().values())
        yield from (each for each in contexts if each is not None)
    if pipeline.context_type is not None:
        yield pipeline.context_type


def _item(path: str, part: AgentSpec | CallableRef | Imported) -> Item:
    if isinstance(part, AgentSpec):
        return Item(path, "agent", part.name, part.model)
    if isinstance(part, CallableRef):
        return Item(path, "callable", part.target)
    count = len(part.pipeline.steps)
    return Item(path, "import", part.blueprint, f"{count} step{'s' if count != 1 else ''}")
