"""Finds the lines of a project's files that differ from flujo.lock, for annotations."""

from __future__ import annotations

import ast
import re
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
    key = of.name if of.what == "setting" else f"mcp.{of.name.partition('/')[0]}"
    return _key(project, f"env.{of.environment}.{key}" if of.environment else key) or (LOCK_FILE, 1)


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
_TABLE = re.compile(r"\s*\[{1,2}(?P<name>[^\[\]]+)\]")
_ENTRY = re.compile(r"\s*(?P<name>[^\s=#\[]+)\s*=")


def _key(project: Project, key: str) -> tuple[str, int] | None:
    """Return where flujo.toml says a key, or the nearest table around it; None if it has neither."""
    path = project.config_file
    if path is None:
        return None
    table, found, most = "", None, ""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        if header := _TABLE.match(line):
            here = table = _unquoted(header["name"])
        elif entry := _ENTRY.match(line):
            here = f"{table}.{_unquoted(entry['name'])}" if table else _unquoted(entry["name"])
        else:
            continue
        if len(here) > len(most) and f"{key}.".startswith(f"{here}."):
            found, most = number, here
    return None if found is None else (path.relative_to(project.root).as_posix(), found)


def _unquoted(name: str) -> str:
    return name.strip().replace('"', "").replace("'", "")
