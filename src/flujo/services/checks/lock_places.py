"""Finds the lines of a project's files that differ from flujo.lock, for annotations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flujo.blueprint.reading.reader import read
from flujo.services.checks.locking import Floating
from flujo.services.project.project import LOCK_FILE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.services.checks.locking import Mismatch
    from flujo.services.project.project import Project


def place_of(project: Project, found: Mismatch) -> tuple[str, int]:
    """Return the file and the line of a mismatch: of its step or agent, or the first line of the lock."""
    of = found.of
    if isinstance(of, Floating):
        return of.file, _line(project, of.file, [of.agent])
    if of.what == "blueprint":
        return of.name, 1
    return (of.file, _line(project, of.file, of.name.split("/"))) if of.file else (LOCK_FILE, 1)


def _line(project: Project, file: str, names: Sequence[str]) -> int:
    """Return the line of a step, by the names on its path, or of an agent; 1 if the file has none."""
    path = project.root / file
    if not path.is_file():
        return 1
    document = read(path.read_bytes(), file)
    where = _named(document.data, names, ())
    return 1 if where is None else document.span(where, key=True).line


def _named(data: Any, names: Sequence[str], at: tuple[str | int, ...]) -> tuple[str | int, ...] | None:
    """Return where the last of these names stands, below the others: as `name:` or as a key."""
    if isinstance(data, dict) and data.get("name") in names:
        rest = names[names.index(data["name"]) + 1 :]
        if not rest:
            return at
        names = rest
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        if len(names) == 1 and key == names[0] and isinstance(value, dict):
            return (*at, key)
        if (found := _named(value, names, (*at, key))) is not None:
            return found
    return None
