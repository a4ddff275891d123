"""Looks up a `module:callable`: the name is checked before anything is imported, the origin afterwards."""

from __future__ import annotations

import functools
import importlib
import os
import re
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from flujo.domain.commands import command
from flujo.domain.wording import nearest, short
from flujo.exceptions import CallableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_TARGET = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_TARGET_CHARS = 200

# fmt: off
DENIED = frozenset({
    "__main__", "_posixsubprocess", "antigravity", "builtins", "cProfile", "code", "codeop", "ctypes",
    "ensurepip", "importlib", "marshal", "multiprocessing", "nt", "os", "pdb", "pickle", "pip", "posix",
    "profile", "pty", "runpy", "shutil", "site", "socket", "subprocess", "sys", "timeit", "venv",
    "webbrowser",
})
# fmt: on
"""Packages that blueprints may never call, regardless of `allow_callables`."""


@dataclass(frozen=True)
class CallableProblem:
    """Why a `module:callable` is refused."""

    message: str
    hint: str
    meant: str | None = None
    """The target that is probably meant."""


def check_callable_name(target: str, allow: Sequence[str] | None) -> CallableProblem | None:
    """Return why `target` must not be imported, or None; checks only the name.

    Args:
        target: `module:callable`.
        allow: patterns of `allow_callables`: `skills.crm` (a module), `skills.*` (every module below), or
            `skills.crm:lookup` (one callable). None allows all, for what is read and never imported.
    """
    if problem := _misspelt(target):
        return problem
    module, _, name = target.partition(":")
    if module.partition(".")[0] in DENIED:
        return CallableProblem(
            f"`{target}` is in `{module.partition('.')[0]}`, which blueprints may not call",
            "write your own function for exactly this purpose, and call that",
        )
    if allow is not None and not _allows(allow, module, name):
        meant = _near(target, allow)
        return CallableProblem(
            f"`{target}` is not in this project's `allow_callables`",
            f'add "{module}" to `allow_callables` under `[blueprints]` in flujo.toml'
            if meant is None
            else f"did you mean `{meant}`?",
            meant,
        )
    return None


def _near(target: str, allow: Sequence[str]) -> str | None:
    """Return a target with its package corrected to a similar one that is allowed, or None."""
    package, _, rest = target.partition(".")
    packages = {re.split(r"[.:]", pattern)[0] for pattern in allow}
    near = nearest(package, sorted(packages - {package})) if rest else None
    meant = f"{near}.{rest}"
    module, _, name = meant.partition(":")
    return meant if near is not None and _allows(allow, module, name) else None


def _misspelt(target: str) -> CallableProblem | None:
    shown = short(target)
    if len(target) > _TARGET_CHARS or not _TARGET.fullmatch(target):
        return CallableProblem(
            f"{shown!r} is not of the form `module:callable`",
            "write the module, one colon, and one name, for instance `skills.crm:lookup_customer`",
        )
    if any(part.startswith("__") for part in re.split(r"[.:]", target)):
        return CallableProblem(
            f"`{shown}` has a name with two leading underscores", "call a function of your own"
        )
    return None


def _allows(allow: Sequence[str], module: str, name: str | None = None, *, exactly: bool = False) -> bool:
    for pattern in allow:
        place, colon, one = pattern.partition(":")
        if colon:
            if place == module and one == name:
                return True
        elif place == module or (
            place.endswith(".*") and module.startswith(place.removesuffix("*")) and not exactly
        ):
            return True
    return False


def load_callable(target: str, allow: Sequence[str]) -> Callable[..., Any]:
    """Import a module and return the callable that `target` names.

    The name is checked before anything is imported. Then the modules that define the callable, and the
    functions that it wraps, are checked as well: a re-export does not get around `allow_callables`.

    Raises:
        CallableError: it is not allowed, does not exist, or is not callable.
    """
    if problem := check_callable_name(target, allow):
        raise CallableError(problem.message, hint=problem.hint, target=target)
    module, _, name = target.partition(":")
    thing = _attribute(_import(module, target), name, target)
    for origin in _origins(thing):
        _check_origin(target, origin, allow, listed=name if origin == module else None)
    return thing


def _import(module: str, target: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            message = f"`{target}` cannot be imported: there is no module `{error.name}`"
            hint = f"create `{module.replace('.', '/')}.py` below the folder of flujo.toml, or install it"
        else:
            message = f"`{target}` cannot be imported: `{module}` needs `{error.name}`, which is missing"
            hint = f"install what provides `{error.name}`"
        raise CallableError(message, hint=hint, target=target) from error
    except (Exception, SystemExit) as error:  # the top level of a module is user code
        raise CallableError(
            f"`{target}` cannot be imported: `{module}` raised {type(error).__name__}: {error}",
            hint=f"`{command('python', '-c', f'import {module}')}` in the project's folder "
            "shows the traceback",
            target=target,
        ) from error


def _attribute(module: ModuleType, name: str, target: str) -> Callable[..., Any]:
    thing = getattr(module, name, None)
    if thing is None:
        raise CallableError(
            f"`{target}` does not exist: `{module.__name__}` has no `{name}`",
            hint=f"define `{name}` in {module.__name__.replace('.', '/')}.py, or correct the name",
            target=target,
        )
    if isinstance(thing, ModuleType) or not callable(thing):
        raise CallableError(
            f"`{target}` is not callable: it is of type {type(thing).__name__}",
            hint="name a function, an `async` function, or a class",
            target=target,
        )
    return thing  # type: ignore[no-any-return]  # what a user's module holds


def _origins(thing: Any) -> Iterator[str | None]:
    """Yield the module of `thing` and of everything that it wraps, if known."""
    for _ in range(32):  # a chain of wrappers may be a cycle
        if isinstance(thing, functools.partial):
            thing = thing.func
            continue
        yield getattr(thing, "__module__", None)
        if wrapped := getattr(thing, "__wrapped__", None):
            thing = wrapped
            continue
        if isinstance(thing, FunctionType):
            yield thing.__globals__.get("__name__")
        return


def _check_origin(target: str, origin: str | None, allow: Sequence[str], *, listed: str | None) -> None:
    home = sys.modules.get(origin) if origin else None
    installed = is_installed(home)
    denied = not origin or origin.partition(".")[0] in DENIED
    if not denied and origin and _allows(allow, origin, listed, exactly=installed):
        return
    hint = "write your own function for exactly this purpose, and call that"
    if not denied:
        exactly = ", exactly: a pattern does not allow installed packages" if installed else ""
        hint = f'add "{origin}" to `allow_callables` under `[blueprints]` in flujo.toml{exactly}'
    raise CallableError(
        f"`{target}` is defined in `{origin or 'a C extension'}`, which is not in `allow_callables`",
        hint=hint,
        target=target,
        origin=origin,
    )


def is_installed(module: ModuleType | None) -> bool:
    """Return whether a module belongs to an installed package or to Python, not to the project."""
    file = getattr(module, "__file__", None)
    return not file or is_installed_file(file)


def is_installed_file(file: str) -> bool:
    """Return whether a file belongs to an installed package or to Python."""
    path = Path(os.path.realpath(file))
    return any(path.is_relative_to(place) for place in _installed_places())


@functools.cache
def _installed_places() -> tuple[str, ...]:
    keys = ("purelib", "platlib", "stdlib", "platstdlib")
    return tuple({os.path.realpath(sysconfig.get_path(key)) for key in keys})
