"""Reads project files safely: paths stay inside the project, files are regular and not too large."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import re
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from flujo.blueprint.sources.package_files import (
    PACKAGED,
    blueprints_like,
    folders_of,
    in_package,
    packages_like,
)
from flujo.domain.wording import did_you_mean, size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

BLUEPRINT_BYTES = 256 * 1024
TEXT_BYTES = 1024 * 1024
"""The size limit of a prompt, a schema or a Python module."""

_NAMED_PATH = re.compile(r"(\./|(\.\./)+)?[A-Za-z0-9_][A-Za-z0-9_./-]*\.(ya?ml|json|md|txt)", re.ASCII)
_PACKAGED_PATH = re.compile(
    r"pkg:[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+\.(ya?ml|json|md|txt)", re.ASCII
)
_ODDITIES = (
    ("\x00", "it has a NUL character"),
    ("\\", "it has a backslash"),
    ("%", "it has a `%`, and paths are not decoded"),
    ("~", "`~` is a home directory, not a path in the project"),
    ("://", "it is a URL, and blueprints can only read files of the project"),
)


class SourceRefused(Exception):
    """A file that cannot or must not be read, with the reason and a hint."""

    def __init__(self, reason: str, hint: str, *, missing: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.missing = missing


class Source(Protocol):
    """The source of a project's files, and of those of installed packages."""

    def read(self, path: str) -> bytes:
        """Return the bytes at `path`: POSIX, relative to the project, without `.` and `..`.

        `pkg:acme_flows/greet.yaml` is the file `greet.yaml` of the installed package `acme_flows`.

        Raises:
            SourceRefused: the file does not exist, or must not be read.
        """
        ...


@runtime_checkable
class ListedSource(Source, Protocol):
    """A source that also has the code which blueprints call, and knows the names of its modules."""

    def modules(self, package: str) -> Sequence[str]:
        """Return the names of the Python modules and packages in the folder of `package`.

        Nothing if there is no such folder with modules.
        """
        ...


@dataclass(frozen=True)
class FileSource:
    """The files below `root`: regular ones within the size limit, none outside through a link."""

    root: Path
    limit: int | None = None
    """The size limit of every file, instead of those of blueprints and texts."""

    def modules(self, package: str) -> Sequence[str]:
        """Return the names in the folder of `package`; see `ListedSource`."""
        folder = self.root.joinpath(*package.split("."))
        try:
            found = sorted(folder.iterdir()) if folder.is_dir() else []
        except OSError:
            return ()
        names = {each.name.partition(".")[0] for each in found if each.suffix in _MODULES or each.is_dir()}
        is_package = any(each.suffix == ".py" for each in found)
        return sorted(filter(_is_module, names)) if is_package else ()

    def read(self, path: str) -> bytes:
        """Return the bytes at `path`; see `Source`."""
        packaged = in_package(path)
        if packaged is not None:
            return _packaged(*packaged, self.root)
        _check_inside(path)
        root = Path(os.path.realpath(self.root))
        real = Path(os.path.realpath(root / path))
        if not real.is_relative_to(root):
            raise SourceRefused("a symbolic link in its path leads out of the project", _INSIDE)
        limit = self.limit or (BLUEPRINT_BYTES if real.suffix in (".yaml", ".yml") else TEXT_BYTES)
        try:
            data = _read_regular(real, limit)
        except OSError as error:
            raise _refusal(error, root, path) from error
        _check_case(root, path)
        return data


@dataclass(frozen=True)
class PinnedSource:
    """The files that were pinned when a run was accepted; no other file exists."""

    files: Mapping[str, bytes]

    def read(self, path: str) -> bytes:
        """Return the bytes at `path`; see `Source`."""
        try:
            return self.files[path]
        except KeyError:
            raise SourceRefused(
                "it is not one of the files that were pinned at the start of this run",
                "start a new run, or resume with `--accept-changes`",
                missing=True,
            ) from None


@dataclass(frozen=True)
class RevisionSource:
    """The files of a project at a revision; the text of each comes from `at`, None if there is none."""

    revision: str
    at: Callable[[str], str | None]

    def read(self, path: str) -> bytes:
        """Return the bytes at `path`, those of today for a file of a package; see `Source`."""
        packaged = in_package(path)
        if packaged is not None:
            return _packaged(*packaged)
        _check_inside(path)
        text = self.at(path)
        if text is None:
            raise SourceRefused(
                f"the file does not exist at revision {self.revision}",
                "use a later revision, or a file that exists there",
                missing=True,
            )
        return text.encode()


def _is_module(name: str) -> bool:
    return name.isidentifier() and not name.startswith("__")


_MODULES = (".py", ".pyi", ".so", ".pyd")

_INSIDE = "keep the file inside the project, and write its path relative to the file that names it"


def named_path(text: str, *, named_in: str) -> str:
    """Return the project path of `text`, as the file `named_in` names it, or its path in a package.

    Raises:
        SourceRefused: it is absolute, leaves the project or the package, or is ambiguous.
    """
    if text.startswith(PACKAGED):
        return _named_in_package(text)
    for oddity, reason in _ODDITIES:
        if oddity in text:
            raise SourceRefused(reason, _INSIDE)
    if text.startswith("/") or re.match(r"[A-Za-z]:", text):
        raise SourceRefused("it is an absolute path", _INSIDE)
    if not _NAMED_PATH.fullmatch(text):
        raise SourceRefused(
            "it is not a plain path to a `.yaml`, `.yml`, `.json`, `.md` or `.txt` file",
            "use only letters, digits, `_`, `-`, `.` and `/`, for instance `./answer.yaml`",
        )
    path = posixpath.normpath(posixpath.join(posixpath.dirname(named_in), text))
    packaged = in_package(named_in)
    if packaged is not None and not path.startswith(f"{PACKAGED}{packaged[0]}/"):
        raise SourceRefused(
            f"it leads out of the package `{packaged[0]}`", "keep the file inside the package that names it"
        )
    if path.startswith("../"):
        raise SourceRefused("it leads out of the project", _INSIDE)
    return path


def _named_in_package(text: str) -> str:
    if not _PACKAGED_PATH.fullmatch(text):
        raise SourceRefused(
            "it is not a plain path of a file in a package",
            "write the package and the path inside it, for instance `pkg:acme_flows/greet.yaml`",
        )
    return text


def _packaged(package: str, inside: str, root: Path | None = None) -> bytes:
    """Return the bytes of a file of an installed package.

    Args:
        package: its name.
        inside: the path in its folder.
        root: the folder of the project, whose own packages are not meant.
    """
    if root is not None and (root / package).is_dir():
        raise SourceRefused(
            f"`{package}` is a folder of this project, not an installed package",
            f"write the path of the file, relative to the blueprint: `../{package}/{inside}`",
        )
    folders = folders_of(package)
    for folder in folders:
        try:
            return FileSource(folder).read(inside)
        except SourceRefused as refused:
            if not refused.missing:
                raise
    if folders:
        what = f"package `{package}` has no file {inside!r}"
        hint = blueprints_like(package, inside, folders) or "the package may not contain its data files"
    else:
        what = f"no package `{package}` is installed as a folder"
        hint = packages_like(package, inside) or "install it in the environment that Flujo runs in"
    raise SourceRefused(what, hint, missing=True)


def _check_inside(path: str) -> None:
    if "\x00" in path:
        raise SourceRefused("it has a NUL character", _INSIDE)
    if path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise SourceRefused("it leads out of the project", _INSIDE)


def _read_regular(path: Path, limit: int) -> bytes:
    # O_NONBLOCK: opening a FIFO without a writer would block. O_NOFOLLOW: links are already resolved, so
    # a link found now was created in the meantime.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise SourceRefused(
                "it is a directory, a pipe or a device, not a file", "name a file of the project"
            )
        data = file.read(limit + 1)
    if len(data) > limit:
        raise SourceRefused(
            f"it is larger than {size(limit)}",
            "split it, or move parts of it to imported files",
        )
    return data


_REASONS = {
    errno.EACCES: ("this user has no permission to read it", "make it readable for this user"),
    errno.ELOOP: ("its symbolic links form a cycle", "replace the link with the file"),
    errno.EISDIR: ("it is a directory", "name a file of the project"),
    errno.ENAMETOOLONG: ("its name is longer than this file system allows", "give it a shorter name"),
}


def _refusal(error: OSError, root: Path, path: str) -> SourceRefused:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        _check_case(root, path)
        near = did_you_mean(posixpath.basename(path), _files_beside(root / path))
        hint = near or "check the spelling and the folder"
        return SourceRefused("the file does not exist", hint, missing=True)
    reason, hint = _REASONS.get(error.errno or 0, (os.strerror(error.errno or 0), "check the file"))
    return SourceRefused(reason, hint)


def _files_beside(path: Path) -> list[str]:
    """Return the names of the files in the folder of a path that have its ending."""
    with contextlib.suppress(OSError):
        return sorted(each.name for each in path.parent.iterdir() if each.suffix == path.suffix)
    return []


def _check_case(root: Path, path: str) -> None:
    """Refuse a path that only a case-insensitive file system would find."""
    folder = root
    for name in PurePosixPath(path).parts:
        if (folder / name.swapcase()).exists() or not (folder / name).exists():
            with contextlib.suppress(OSError):
                present = [there.name for there in folder.iterdir()]
                twins = [there for there in present if there.casefold() == name.casefold()]
                if twins and name not in present:
                    raise SourceRefused(
                        f"upper and lower case differ: the file is named {twins[0]!r}",
                        "write it as it is on disk: other file systems are case-sensitive",
                        missing=True,
                    )
        folder = folder / name
