"""Where steps stand: the bodies of every kind of composite, and the keys that lead to them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from flujo.blueprint.language import models as doc
from flujo.domain.values import looks_like_target

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Path = tuple[str | int, ...]
"""Keys and indexes from the root of a document."""

COMPOSITES = (
    doc.ConditionalStep,
    doc.LoopStep,
    doc.StateMachineStep,
    doc.MapStep,
    doc.ParallelStep,
    doc.RouterStep,
)
"""The kinds that hold bodies and have an `output` of their own."""

UNNAMED = "__unnamed__"
"""The name of a step whose own one cannot be read."""


def inside(step: doc.BaseStep) -> Iterator[tuple[str, Sequence[doc.BaseStep], Path]]:
    """Yield the bodies of a composite: name, steps, and the keys that lead there.

    Steps that are a tuple are one step that stands there without a list (`placed`).
    """
    match step:
        case doc.ConditionalStep():
            yield from _ways(step)
        case doc.LoopStep() | doc.MapStep():
            yield "steps", step.steps, ("steps",)
        case doc.ParallelStep() | doc.RouterStep():
            for name, steps in step.branches.items():
                yield name, steps, ("branches", name)
        case doc.StateMachineStep():
            for name, state in step.states.items():
                yield name, state.steps, ("states", name, "steps")
        case doc.Step(fallback=doc.Fallback() as spare):
            yield "fallback", (asked_the_same(step, spare),), ("fallback",)
        case doc.CacheStep():
            yield "step", (step.step,), ("step",)
        case _:
            pass


def placed(steps: Sequence[doc.BaseStep], path: Path) -> Iterator[tuple[doc.BaseStep, Path]]:
    """Yield the steps of a body with their places; a key that holds one step, not a list, is its place."""
    if isinstance(steps, tuple):
        yield steps[0], path
    else:
        yield from ((step, (*path, index)) for index, step in enumerate(steps))


def asked_the_same(step: doc.Step, spare: doc.Fallback) -> doc.Fallback:
    """Return a fallback as it runs: without `input` or `with` of its own it gets those of its step."""
    if spare.input is not None or spare.with_ is not None:
        return spare
    return spare.model_copy(update={"input": step.input, "with_": step.with_ if spare.call else None})


def _ways(step: doc.ConditionalStep) -> Iterator[tuple[str, Sequence[doc.BaseStep], Path]]:
    if step.then is not None:
        yield "then", step.then, ("then",)
    if step.else_ is not None:
        yield "else", step.else_, ("else",)
    for name, steps in (step.branches or {}).items():
        yield name, steps, ("branches", name)
    if step.default is not None:
        yield "default", step.default, ("default",)


def walk(steps: Sequence[doc.BaseStep], path: Path) -> Iterator[tuple[Path, doc.BaseStep]]:
    """Yield every step of a list and of the lists inside it, with its place."""
    for step, here in placed(steps, path):
        yield here, step
        for _, body, where in inside(step):
            yield from walk(body, (*here, *where))


def asked(step: doc.BaseStep) -> Iterator[tuple[str, str]]:
    """Yield each key under which a step names an agent, with the agent's name."""
    for key in _asking(type(step)):
        name = getattr(step, key)
        if isinstance(name, str) and not looks_like_target(name):
            yield key, name


@cache
def _asking(kind: type[doc.BaseStep]) -> Sequence[str]:
    # A model looks for a field that it does not have in three places.
    return [key for key in ("agent", "router", "propose", "evaluate") if key in kind.model_fields]


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
