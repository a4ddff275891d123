"""Names become things: project files read behind their guards, and `module:callable` checked and imported."""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import os
import posixpath
import re
import stat
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Protocol

from flujo.exceptions import CallableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

# Files ---------------------------------------------------------------------------------------------------

BLUEPRINT_BYTES = 256 * 1024
TEXT_BYTES = 1024 * 1024
"""The most that a prompt, a schema or a module of Python may have."""

_NAMED_PATH = re.compile(r"(\./|(\.\./)+)?[A-Za-z0-9_][A-Za-z0-9_./-]*\.(ya?ml|json|md|txt)", re.ASCII)
_ODDITIES = (
    ("\x00", "it has a NUL character"),
    ("\\", "it has a backslash"),
    ("%", "it has a `%`, and paths are taken as they stand"),
    ("~", "`~` is somebody's home, not a place in the project"),
    ("://", "it is an address, and blueprints read files of the project only"),
)


class SourceRefused(Exception):
    """A file that a blueprint names is not read: `reason` says why, `hint` what to do."""

    def __init__(self, reason: str, hint: str, *, missing: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.missing = missing


class Source(Protocol):
    """Where the files of a project are read from."""

    def read(self, path: str) -> bytes:
        """Return the bytes at `path`: POSIX, relative to the project, without `.` and `..`.

        Raises:
            SourceRefused: there is no such file, or it must not be read.
        """
        ...


@dataclass(frozen=True)
class FileSource:
    """The files below `root`: regular ones of a sensible size, none that a link leads out to."""

    root: Path

    def read(self, path: str) -> bytes:
        """Return the bytes at `path`; see `Source`."""
        _check_inside(path)
        root = Path(os.path.realpath(self.root))
        real = Path(os.path.realpath(root / path))
        if not real.is_relative_to(root):
            raise SourceRefused("a symbolic link on its way leads out of the project", _INSIDE)
        limit = BLUEPRINT_BYTES if real.suffix in (".yaml", ".yml") else TEXT_BYTES
        try:
            data = _read_regular(real, limit)
        except OSError as error:
            raise _refusal(error, root, path) from error
        _check_case(root, path)
        return data


@dataclass(frozen=True)
class PinnedSource:
    """The files that a run was accepted with; what was not pinned is not there."""

    files: Mapping[str, bytes]

    def read(self, path: str) -> bytes:
        """Return the bytes at `path`; see `Source`."""
        try:
            return self.files[path]
        except KeyError:
            raise SourceRefused(
                "it is not among the files that this run was accepted with",
                "start a new run, or resume with `--accept-changes`",
                missing=True,
            ) from None


_INSIDE = "keep what blueprints read inside the project, and name it relative to the file that names it"


def named_path(text: str, *, named_in: str) -> str:
    """Return the project path of `text`, as the file `named_in` names it.

    Raises:
        SourceRefused: it is absolute, leaves the project, or is written in a way that could mislead.
    """
    for oddity, reason in _ODDITIES:
        if oddity in text:
            raise SourceRefused(reason, _INSIDE)
    if text.startswith("/") or re.match(r"[A-Za-z]:", text):
        raise SourceRefused("it is absolute", _INSIDE)
    if not _NAMED_PATH.fullmatch(text):
        raise SourceRefused(
            "it is no plain path to a `.yaml`, `.yml`, `.json`, `.md` or `.txt` file",
            "write letters, digits, `_`, `-`, `.` and `/`, for instance `./answer.yaml`",
        )
    path = posixpath.normpath(posixpath.join(posixpath.dirname(named_in), text))
    if path.startswith("../"):
        raise SourceRefused("it leads out of the project", _INSIDE)
    return path


def _check_inside(path: str) -> None:
    if "\x00" in path:
        raise SourceRefused("it has a NUL character", _INSIDE)
    if path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise SourceRefused("it leads out of the project", _INSIDE)


def _read_regular(path: Path, limit: int) -> bytes:
    # O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever. O_NOFOLLOW: the links were
    # resolved, so one that is found now was put there in the meantime.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise SourceRefused(
                "it is a directory, a pipe or a device, not a file", "name a file of the project"
            )
        data = file.read(limit + 1)
    if len(data) > limit:
        raise SourceRefused(
            f"it is larger than {limit // 1024} KiB",
            "split it, or import parts of it from files of their own",
        )
    return data


_REASONS = {
    errno.EACCES: ("its permissions do not let this user read it", "make it readable for this user"),
    errno.ELOOP: ("its symbolic links go in a circle", "replace the link by the file"),
    errno.EISDIR: ("it is a directory", "name a file of the project"),
    errno.ENAMETOOLONG: ("its name is longer than this file system allows", "give it a shorter name"),
}


def _refusal(error: OSError, root: Path, path: str) -> SourceRefused:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        _check_case(root, path)
        return SourceRefused("there is no such file", "look at the spelling and the folder", missing=True)
    reason, hint = _REASONS.get(error.errno or 0, (os.strerror(error.errno or 0), "look at the file"))
    return SourceRefused(reason, hint)


def _check_case(root: Path, path: str) -> None:
    """Refuse a path that only a file system without upper and lower case would find."""
    folder = root
    for name in PurePosixPath(path).parts:
        if (folder / name.swapcase()).exists() or not (folder / name).exists():
            with contextlib.suppress(OSError):
                present = [there.name for there in folder.iterdir()]
                twins = [there for there in present if there.casefold() == name.casefold()]
                if twins and name not in present:
                    raise SourceRefused(
                        f"upper and lower case differ: on disk it is {twins[0]!r}",
                        "write it as it is on disk: other machines tell them apart",
                        missing=True,
                    )
        folder = folder / name


# Callables -----------------------------------------------------------------------------------------------

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
"""Packages that are never called from a blueprint, whatever `allow_callables` says."""


@dataclass(frozen=True)
class CallableProblem:
    """Why a `module:callable` is not taken."""

    message: str
    hint: str


def check_callable_name(target: str, allow: Sequence[str]) -> CallableProblem | None:
    """Return why `target` must not be imported, or None; reads the name and nothing else.

    Args:
        target: `module:callable`.
        allow: patterns of `allow_callables`: `skills.crm` (a module), `skills.*` (every module below), or
            `skills.crm:lookup` (one callable).
    """
    if problem := _misspelt(target):
        return problem
    module, _, name = target.partition(":")
    if module.partition(".")[0] in DENIED:
        return CallableProblem(
            f"`{target}` is in `{module.partition('.')[0]}`, which blueprints never call",
            "write a function of your own that does exactly what is needed, and call that",
        )
    if not _admits(allow, module, name):
        return CallableProblem(
            f"`{target}` is not among the callables that this project admits",
            f'add "{module}" to `allow_callables` under `[blueprints]` in flujo.toml',
        )
    return None


def _misspelt(target: str) -> CallableProblem | None:
    shown = target if len(target) <= 60 else f"{target[:60]}…"
    if len(target) > _TARGET_CHARS or not _TARGET.fullmatch(target):
        return CallableProblem(
            f"{shown!r} is no `module:callable`",
            "write the module, one colon, and one name, for instance `skills.crm:lookup_customer`",
        )
    if any(part.startswith("__") for part in re.split(r"[.:]", target)):
        return CallableProblem(
            f"`{shown}` names something with two leading underscores", "call a function of your own"
        )
    return None


def _admits(allow: Sequence[str], module: str, name: str | None = None, *, exactly: bool = False) -> bool:
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
    """Return the callable that `target` names, importing its module.

    The name is checked before anything is imported; then the modules in which the callable and what it
    wraps were really written are checked again, so that a re-export opens no door.

    Raises:
        CallableError: it is not allowed, does not exist, or is nothing that can be called.
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
            message = f"`{target}` cannot be imported: `{module}` needs `{error.name}`, which is not there"
            hint = f"install what provides `{error.name}`"
        raise CallableError(message, hint=hint, target=target) from error
    except (Exception, SystemExit) as error:  # the top level of a module is foreign code
        raise CallableError(
            f"`{target}` cannot be imported: `{module}` raised {type(error).__name__}: {error}",
            hint=f"`python -c 'import {module}'` in the project's folder shows where",
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
            f"`{target}` is nothing that can be called: it is a {type(thing).__name__}",
            hint="name a function, an `async` function, or a class",
            target=target,
        )
    return thing  # type: ignore[no-any-return]  # what a user's module holds


def _origins(thing: Any) -> Iterator[str | None]:
    """Yield the module of `thing` and of everything that it wraps, as far as it shows."""
    for _ in range(32):  # a chain of wrappers may be a circle
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
    installed = _is_installed(home)
    denied = not origin or origin.partition(".")[0] in DENIED
    if not denied and origin and _admits(allow, origin, listed, exactly=installed):
        return
    hint = "write a function of your own that does exactly what is needed, and call that"
    if not denied:
        exactly = ", exactly: a pattern does not admit installed packages" if installed else ""
        hint = f'add "{origin}" to `allow_callables` under `[blueprints]` in flujo.toml{exactly}'
    raise CallableError(
        f"`{target}` is written elsewhere: in `{origin or 'a C extension'}`, which is not admitted",
        hint=hint,
        target=target,
        origin=origin,
    )


def _is_installed(module: ModuleType | None) -> bool:
    """Return whether a module is a package's or Python's own, not the project's."""
    file = getattr(module, "__file__", None)
    if not file:
        return True
    path = Path(os.path.realpath(file))
    return any(path.is_relative_to(place) for place in _installed_places())


@functools.cache
def _installed_places() -> tuple[str, ...]:
    keys = ("purelib", "platlib", "stdlib", "platstdlib")
    return tuple({os.path.realpath(sysconfig.get_path(key)) for key in keys})
