"""A digest of the code that a callable runs, as this process has loaded it."""

from __future__ import annotations

import functools
import inspect
import sys
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from flujo.domain import canonical

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def code_digest(fn: Callable[..., Any], root: Path) -> str:
    """Return the digest of a callable's module, and of the modules below `root` that it uses.

    The digest is of compiled functions and methods, not of files: a process that has loaded a file before it
    changed has other code than one that loads it now. Comments and values of variables do not count. It
    depends on the version of Python.
    """
    module = _module_of(_unwrapped(fn))
    known: dict[str, list[Any]] = {}
    if module is not None:
        _collect(module, root.resolve(), known)
    return canonical.digest(canonical.encode([known[name] for name in sorted(known)]))


def _unwrapped(fn: Any) -> Any:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn if hasattr(fn, "__module__") else type(fn)


def _module_of(thing: Any) -> ModuleType | None:
    name = getattr(thing, "__module__", None)
    return sys.modules.get(name) if isinstance(name, str) else None


def _collect(module: ModuleType, root: Path, known: dict[str, list[Any]]) -> None:
    if module.__name__ in known:
        return
    codes: list[Any] = []
    known[module.__name__] = codes
    for name, value in sorted(vars(module).items()):
        for function in _functions(value, module.__name__):
            codes.append([name, function.__qualname__, _data(function.__code__)])
        used = (
            value
            if isinstance(value, ModuleType)
            else sys.modules.get(getattr(value, "__module__", None) or "")
        )
        if used is not None and used is not module and _is_below(used, root):
            _collect(used, root, known)
    known[module.__name__] = [module.__name__, codes]


def _functions(value: Any, module: str) -> Iterator[FunctionType]:
    """Yield a function of a module, or the methods of one of its classes."""
    if getattr(value, "__module__", None) != module:
        return
    for one in vars(value).values() if inspect.isclass(value) else (value,):
        plain = getattr(one, "__func__", getattr(one, "fget", one))
        plain = inspect.unwrap(plain) if callable(plain) else plain
        # Libraries put methods of their own into classes of the module, as pydantic does.
        if isinstance(plain, FunctionType) and plain.__module__ == module:
            yield plain


def _data(code: CodeType) -> list[Any]:
    consts = [_data(each) if isinstance(each, CodeType) else _constant(each) for each in code.co_consts]
    return [code.co_code.hex(), list(code.co_names), list(code.co_varnames), consts]


def _constant(value: Any) -> str:
    return repr(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)


def _is_below(module: ModuleType, root: Path) -> bool:
    file = getattr(module, "__file__", None)
    if file is None:
        return False
    path = Path(file).resolve()
    return path.is_relative_to(root) and "site-packages" not in path.parts
