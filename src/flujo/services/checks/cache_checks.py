"""Which steps may be cached, and what tells one version of a callable from the next."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical
from flujo.domain.steps import BaseStep, CacheStep, HumanInTheLoopStep, ImportStep
from flujo.exceptions import NotCacheable

if TYPE_CHECKING:
    from collections.abc import Iterator


def require_cacheable(step: BaseStep) -> None:
    """Refuse a cached step whose kept answer would not stand for running it.

    Raises:
        NotCacheable: naming the step and what is in it.
    """
    if step.cache is not None and isinstance(step, CacheStep | HumanInTheLoopStep):
        raise NotCacheable(f"`cache` on step {step.name!r} of kind {step.kind!r} has no meaning")
    if isinstance(step, CacheStep) and (step.step.when is not None or step.step.cache is not None):
        key = "when" if step.step.when is not None else "cache"
        raise NotCacheable(
            f"step {step.step.name!r} has `{key}` and is inside the cache {step.name!r}",
            hint=f"write `{key}` on the cache step" if key == "when" else "one cache is enough",
        )
    if isinstance(step, CacheStep) or step.cache is not None:
        for inner, writes_here in _inside(step):
            _require_answer_only(step, inner, writes_here=writes_here)


def _require_answer_only(step: BaseStep, inner: BaseStep, *, writes_here: bool) -> None:
    if isinstance(inner, HumanInTheLoopStep):
        raise NotCacheable(
            f"step {inner.name!r} asks a human, inside step {step.name!r}, whose answers are cached",
            hint="ask before or after it: a cached answer would answer for the human",
        )
    if writes_here and inner.save:
        raise NotCacheable(
            f"step {inner.name!r} writes to the context inside step {step.name!r}, whose answers are cached",
            hint=f"write `save` on step {step.name!r}: it is done for a cached answer too",
        )


def _inside(step: BaseStep, *, writes_here: bool = True) -> Iterator[tuple[BaseStep, bool]]:
    """Yield the steps inside a step, and whether they write to the context around it."""
    own = writes_here and not (isinstance(step, ImportStep) and step.context == "own")
    for body in step.bodies().values():
        for inner in body.steps:
            yield inner, own
            yield from _inside(inner, writes_here=own)


def source_digest(thing: Any) -> str:
    """Return a digest that changes with the module of a callable, and tells apart what stands in it.

    Of what a function has captured, plain values count; what it looks up when it is called cannot.
    """
    parts: list[Any] = []
    while isinstance(thing, functools.partial):
        parts.append(repr((thing.args, sorted(thing.keywords.items()))))
        thing = thing.func
    target = thing if inspect.isroutine(thing) or inspect.isclass(thing) else type(thing)
    code = getattr(target, "__code__", None)
    if code is not None:
        parts += [code.co_code.hex(), list(code.co_positions()), list(_captured(target))]
    return canonical.digest(canonical.encode([_module_source(target), *parts]))


def _module_source(thing: Any) -> str:
    try:
        module = inspect.getmodule(thing)
        return "" if module is None else inspect.getsource(module)
    except (OSError, TypeError):  # built in, or typed into a shell
        return ""


def _captured(function: Any) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            value = cell.cell_contents
        except ValueError:  # not filled yet
            continue
        yield repr(value) if isinstance(value, str | int | float | bool | None) else None
