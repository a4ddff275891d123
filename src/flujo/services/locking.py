"""flujo.lock of a project: written, held against the files, and asked before a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flujo.exceptions import BlueprintError, LockMismatch, SettingsError
from flujo.services.checking import compiled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from flujo.blueprint.closure import Closure
    from flujo.blueprint.compiler import Compiled
    from flujo.services.project import Project

LOCK_FILE = "flujo.lock"


@dataclass(frozen=True, slots=True)
class Written:
    """A lock that was written."""

    path: Path
    blueprints: int
    changed: bool


def write(project: Project) -> Written:
    """Write the project's lock; the same files give the same bytes.

    Raises:
        BlueprintError: a blueprint has errors; the lock is left as it was.
        SettingsError: there is nothing to lock, or the file cannot be written.
    """
    from flujo.blueprint.lockfile import lock
    from flujo.blueprint.resolver import FileSource

    found = _compiled(project, project.blueprint_paths())
    if not found:
        raise SettingsError("there are no blueprints to lock", hint="`flujo init` writes a first one")
    text = lock(found, FileSource(project.root))
    path = project.root / LOCK_FILE
    changed = not path.exists() or path.read_text("utf-8") != text
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from error
    return Written(path, len(found), changed)


def verify(project: Project, *, strict: bool = False) -> list[str]:
    """Return what differs from the lock, a sentence each.

    Args:
        project: whose lock.
        strict: whether blueprints that are not locked count as well.

    Raises:
        LockMismatch: there is no lock.
        BlueprintError: a blueprint has errors.
    """
    from flujo.blueprint.lockfile import locked
    from flujo.blueprint.lockfile import verify as differences
    from flujo.blueprint.resolver import FileSource

    text = _text(project)
    known = locked(text)
    paths = [path for path in project.blueprint_paths() if strict or path in known]
    return differences(text, _compiled(project, paths), FileSource(project.root))


def require_match(project: Project, closure: Closure) -> None:
    """Return when a blueprint is what the lock holds.

    Raises:
        LockMismatch: it is not; `differences` says where.
    """
    from flujo.blueprint.lockfile import locked

    text = _text(project)
    held = locked(text).get(closure.entry)
    if held == closure.digest:
        return
    if held is None:
        raise LockMismatch(f"{closure.entry} is not in {LOCK_FILE}", differences=())
    words = _words(project, text, closure)
    raise LockMismatch(
        "\n".join([f"{closure.entry} is not what {LOCK_FILE} holds:", *(f"  {line}" for line in words)]),
        differences=tuple(words),
    )


def _words(project: Project, text: str, closure: Closure) -> list[str]:
    from flujo.blueprint.lockfile import verify as differences
    from flujo.blueprint.resolver import FileSource

    overrides: Mapping[str, str] = closure.overrides
    found = differences(text, [compiled(project, closure.entry, overrides)], FileSource(project.root))
    # the lock holds other blueprints too, which are not asked about
    return [line for line in found if any(file in line for file in closure.files)]


def _compiled(project: Project, paths: Sequence[str]) -> list[Compiled]:
    found = [compiled(project, path) for path in paths]
    broken = [one for one in found if one.pipeline is None]
    if broken:
        raise BlueprintError(
            f"{broken[0].closure.entry} has errors",
            diagnostics=[finding for one in broken for finding in one.diagnostics],
            sources={path: text for one in broken for path, text in one.sources.items()},
        )
    return found


def _text(project: Project) -> str:
    path = project.root / LOCK_FILE
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        raise LockMismatch(
            f"there is no {LOCK_FILE} in {project.root}", hint="`flujo lock` writes it"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}") from error
