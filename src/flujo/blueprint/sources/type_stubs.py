"""Reads the schemas of Python types that `flujo types` recorded, and checks that they are current.

Each module has a file, `schemas/PACKAGE.MODULE.json`, with the digests of the source files that its schemas
depend on: the module, and the modules of the project that it imports. So a check can detect an outdated
schema without importing anything.
"""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flujo.blueprint.sources.source_files import SourceRefused
from flujo.domain import canonical

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from flujo.blueprint.schemas.algebra import Schema
    from flujo.blueprint.sources.source_files import Source

FOLDER = "schemas"


@dataclass(frozen=True)
class ModuleTypes:
    """The recorded types of one module."""

    path: str
    types: Mapping[str, Schema] = field(default_factory=dict)
    """The schema of each class, and of each function's return value, by name."""
    changed: str | None = None
    """The reason why the types are outdated, or None."""


def path_of(module: str) -> str:
    """Return the project path of the file with a module's types."""
    return f"{FOLDER}/{module}.json"


def written(module: str, types: Mapping[str, Schema], source: Source) -> bytes:
    """Return the bytes of a module's file; they depend only on the types and sources."""
    data = {"version": 1, "module": module, "sources": digests(module, source), "types": dict(types)}
    return (json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def read_types(module: str, source: Source) -> ModuleTypes | None:
    """Return the recorded types of a module, or None if it has no file."""
    path = path_of(module)
    try:
        data = json.loads(source.read(path))
        said, types = dict(data["sources"]), dict(data["types"])
        known = data["version"] == 1
    except SourceRefused as refused:
        return None if refused.missing else ModuleTypes(path, changed=f"{path} is not read: {refused.reason}")
    except (ValueError, TypeError, KeyError, RecursionError):
        return ModuleTypes(path, changed=f"{path} is not what `flujo types` writes")
    now = digests(module, source)
    if not known or said != now:
        differing = sorted(one for one in {*said, *now} if said.get(one) != now.get(one))
        return ModuleTypes(path, types, f"{(differing or [path])[0]} has changed since {path} was written")
    return ModuleTypes(path, types)


def is_ours(module: str, data: bytes) -> bool:
    """Return whether a file in the folder has this module's types, not those of another tool."""
    try:
        said = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("module") == module and "sources" in said and "types" in said


# The sources of a module's types -------------------------------------------------------------------------


def digests(module: str, source: Source) -> dict[str, str]:
    """Return the digest of a module's file and of each file of the project that it imports, by path."""
    found: dict[str, str] = {}
    waiting = [module]
    for name in waiting:  # the list grows during the loop
        read = _read(name, source)
        if read is not None and read[0] not in found:
            path, data = read
            found[path] = canonical.digest(data)
            package = name if path.endswith("/__init__.py") else name.rpartition(".")[0]
            waiting += _imported(data, package)
    return found


def _read(module: str, source: Source) -> tuple[str, bytes] | None:
    stem = module.replace(".", "/")
    for path in (f"{stem}.py", f"{stem}/__init__.py"):
        try:
            return path, source.read(path)
        except SourceRefused:
            continue
    return None


def _imported(data: bytes, package: str) -> Iterator[str]:
    """Yield every module that a source may import: imported names may be modules or not."""
    try:
        nodes: list[Any] = list(ast.walk(ast.parse(data)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in nodes:
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom():
                around = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                base = ".".join(filter(None, (*around, node.module)))
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
            case _:
                pass
