"""Finds the lines of a project's files that differ from flujo.lock, for annotations."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

from flujo.blueprint.reading.reader import read
from flujo.blueprint.sources.signatures import read_module
from flujo.blueprint.sources.source_files import FileSource
from flujo.services.checks.locking import Floating
from flujo.services.project.project import LOCK_FILE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flujo.services.checks.locking import Mismatch
    from flujo.services.project.project import Project


def place_of(project: Project, found: Mismatch) -> tuple[str, int]:
    """Return the file and the line of a mismatch: of its step, agent, callable or key of flujo.toml.

    Of one that no file has any more, it is the first line of the lock.
    """
    of = found.of
    if isinstance(of, Floating):
        return of.file, _line(project, of.file, [of.agent])
    if of.what == "blueprint":
        return of.name, 1
    if of.file:
        return of.file, _line(project, of.file, of.name.split("/"))
    if of.what == "callable":
        return _definition(project, of.name) or (LOCK_FILE, 1)
    if of.what == "setting":  # the name of a price is that of a model, which may have dots
        key = of.name.split(".", 1 if of.name.startswith("prices.") else -1)
    else:
        key = ["mcp", of.name.partition("/")[0]]
    around = ["env", of.environment] if of.environment else []
    return _key(project, *around, *key) or (LOCK_FILE, 1)


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


def _definition(project: Project, target: str) -> tuple[str, int] | None:
    """Return where a callable is defined; the first line of its module if it is not a function or a class."""
    name, _, qualname = target.partition(":")
    module = read_module(name, FileSource(project.root))
    if module is None:
        return None
    body, line = ast.parse((project.root / module.path).read_bytes()).body, 1
    for part in qualname.split("."):
        for statement in body:
            if isinstance(statement, _DEFINED) and statement.name == part:
                body, line = statement.body, statement.lineno
                break
    return module.path, line


_DEFINED = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def _key(project: Project, *key: str) -> tuple[str, int] | None:
    """Return where flujo.toml sets a key or opens its table; None without the file."""
    path = project.config_file
    return None if path is None else (path.name, project.settings.line(*key))
