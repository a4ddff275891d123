"""The digest of a callable's source: a cached output is reused only while it is unchanged."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator


def source_digest(thing: Any) -> str:
    """Return a digest that changes with a callable's module and differs between callables of a module.

    Captured plain values count. Values that the function looks up at call time do not.
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
