"""The scopes of a long blueprint share their names."""

from __future__ import annotations

import gc
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from flujo.blueprint.analysis.scopes import Walk
from flujo.blueprint.language import models as doc

if TYPE_CHECKING:
    from collections.abc import Callable

    Blueprint = Callable[[int], dict[str, Any]]

SIZES = (100, 200, 400)


def step(number: int, **keys: Any) -> dict[str, Any]:
    return {"name": f"s{number}", "call": "skills.greet:greet", "output_schema": {"type": "string"}, **keys}


def chain(steps: int) -> dict[str, Any]:
    """Return a blueprint of steps, one after another."""
    return {"steps": [step(number) for number in range(steps)]}


def context(steps: int) -> dict[str, Any]:
    """Return a blueprint of steps that each write a field of the context."""
    fields = {f"f{number}": {"type": "string"} for number in range(steps)}
    saving = [step(number, save={f"f{number}": "output"}) for number in range(steps)]
    return {"context_schema": {"properties": fields}, "steps": saving}


def machine(steps: int) -> dict[str, Any]:
    """Return a blueprint with one machine, in which each state follows the one before."""
    states = {
        f"q{number}": {"steps": [step(number)], "transitions": [{"to": f"q{number + 1}"}]}
        for number in range(steps)
    }
    long = {"kind": "state_machine", "name": "long", "initial": "q0", "final": [f"q{steps}"]}
    return {"steps": [{**long, "states": {**states, f"q{steps}": {}}}]}


@pytest.mark.usefixtures("own_objects")
@pytest.mark.parametrize("blueprint", [chain, context, machine])
def test_twice_the_steps_need_twice_the_memory(blueprint: Blueprint) -> None:
    def bytes_of(steps: int) -> int:
        read = doc.Blueprint.model_validate({"version": "1", "name": "long", **blueprint(steps)})
        walk = Walk(read, lambda _path: None)
        gc.collect()
        tracemalloc.start()
        try:
            walk.run()
            return tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()

    few, more, many = (bytes_of(steps) for steps in SIZES)
    assert (many - more) / (more - few) < 2.5  # 2 is linear, a square is 4
