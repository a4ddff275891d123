"""Walks over steps and the names in them, with their paths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.blueprint.language.roles import Role, in_role
from flujo.domain.values import looks_like_target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from flujo.blueprint.language import models as doc

Path = tuple[str | int, ...]
"""Keys and indexes from the root of a document."""

UNNAMED = "__unnamed__"
"""The name of a step whose name cannot be read."""


def placed(steps: Sequence[doc.BaseStep], path: Path) -> Iterator[tuple[doc.BaseStep, Path]]:
    """Yield the steps of a body with their paths; a single step has the path of its key."""
    if isinstance(steps, tuple):
        yield steps[0], path
    else:
        yield from ((step, (*path, index)) for index, step in enumerate(steps))


def walk(steps: Sequence[doc.BaseStep], path: Path) -> Iterator[tuple[Path, doc.BaseStep]]:
    """Yield every step of a list and of the lists inside it, with its path."""
    for step, here in placed(steps, path):
        yield here, step
        for _, body, where in step.bodies():
            yield from walk(body, (*here, *where))


def walk_blueprint(blueprint: doc.Blueprint) -> Iterator[tuple[Path, doc.BaseStep]]:
    """Yield every step of a blueprint with its path."""
    for key, steps in lists_of_steps(blueprint):
        yield from walk(steps, (key,))


def lists_of_steps(blueprint: Any) -> Iterator[tuple[str, Sequence[doc.BaseStep]]]:
    """Yield the lists of steps of a blueprint, or of what could be read of one, with their keys."""
    for key in ("steps", "on_failure", "finally"):
        yield key, getattr(blueprint, "finally_" if key == "finally" else key, [])


def asked(step: doc.BaseStep) -> Iterator[tuple[Path, str]]:
    """Yield the keys under which a step names an agent, with the agent's name."""
    for key in in_role(type(step), Role.ANSWERER):
        named = getattr(step, key)
        if isinstance(named, str):
            if not looks_like_target(named):
                yield (key,), named
        elif named is not None:
            yield from (((key, "one_of", index), name) for index, name in enumerate(named.one_of))


def texts(data: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield every text in JSON data with its path."""
    match data:
        case str():
            yield path, data
        case dict():
            for key, value in data.items():
                yield from texts(value, (*path, key))
        case list():
            for index, value in enumerate(data):
                yield from texts(value, (*path, index))
        case _:
            pass
